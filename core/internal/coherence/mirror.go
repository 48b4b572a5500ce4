package coherence

import (
	"sync/atomic"

	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/tier"
)

// mirrors keeps the generations that were learned last, so that an instance knows the
// generation of a tag even if none of its entries carries the tag. All other mirrored
// generations are kept by the entries that carry them.
type mirrors struct {
	ring [8192]atomic.Pointer[local.Generation]
	next atomic.Uint32
}

func (m *mirrors) keep(g *local.Generation) { m.ring[m.next.Add(1)%uint32(len(m.ring))].Store(g) }

// unmirrored returns the tags whose generations have to be asked for.
func (s *shared) unmirrored(tags []string) (ask []string) {
	for _, tag := range tags {
		if s.local.Mirrored(tag) == "" {
			ask = append(ask, tag)
		}
	}
	return ask
}

// learn mirrors a generation that was read from the tier after the position pos of the log in
// memory, unless an item since that position concerns its tag (R5).
func (s *shared) learn(pos uint64, tag, token string) {
	if token == "" {
		return
	}
	s.local.Lapse()
	if s.Doubtful(1<<tier.Partition(tag, s.local.Partitions()), s.local.Now()) {
		return // the generation may expire before this process hears of it
	}
	if first := s.local.Mirror(pos, tag, token); first != nil {
		s.mirrors.keep(first)
	}
}
