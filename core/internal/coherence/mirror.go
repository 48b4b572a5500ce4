package coherence

import (
	"sync/atomic"

	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/tier"
)

// mirrors keeps the generations of the tags that were learned last, so
// that a generation is known without asking although no entry in this process
// carries its tag. Generations are otherwise held by their entries alone.
type mirrors struct {
	ring [8192]atomic.Pointer[local.Generation]
	next atomic.Uint32
}

func (m *mirrors) keep(g *local.Generation) { m.ring[m.next.Add(1)%uint32(len(m.ring))].Store(g) }

// unknown returns the tags whose generations must be asked for.
func (s *shared) unknown(tags []string) (ask []string) {
	for _, tag := range tags {
		if s.local.Mirrored(tag) == "" {
			ask = append(ask, tag)
		}
	}
	return ask
}

// learn keeps a generation that was read from the tier after the position pos of
// this process's journal. Whatever was applied since may concern it (R5).
func (s *shared) learn(pos uint64, tag, token string) {
	if token == "" {
		return
	}
	s.local.Lapse()
	if s.Doubtful(1<<tier.Partition(tag, s.local.Partitions()), s.local.Now()) {
		return // it may expire before this process hears of it
	}
	if first := s.local.Mirror(pos, tag, token); first != nil {
		s.mirrors.keep(first)
	}
}
