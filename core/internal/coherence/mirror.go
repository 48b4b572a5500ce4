package coherence

import (
	"sync/atomic"

	"github.com/larderhq/larder/core/internal/tier"
)

// mirrors keeps the stamps of the tags whose generations were learned last, so
// that a generation is known without asking although no entry in this process
// carries its tag. Stamps are otherwise held by their entries alone.
type mirrors struct {
	ring [8192]atomic.Pointer[stamp]
	next atomic.Uint32
}

func (m *mirrors) keep(st *stamp) { m.ring[m.next.Add(1)%uint32(len(m.ring))].Store(st) }

// known returns the generation of a tag, "" if this instance does not know it.
func (s *shared) known(tag string) string {
	st := s.e.stamps.peek(tag)
	if st == nil || st.dead.Load() {
		return ""
	}
	if m := st.known.Load(); m != nil && !m.era.dead.Load() {
		return m.token
	}
	return ""
}

// unknown returns the tags whose generations must be asked for.
func (s *shared) unknown(tags []string) (ask []string) {
	for _, tag := range tags {
		if s.known(tag) == "" {
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
	e := s.e
	e.lapse(e.Now())
	if s.doubtful(1<<tier.Partition(tag, e.partitions()), e.Now()) {
		return // it may expire before this process hears of it
	}
	st := e.stamps.get(tag)
	era := e.eras[tier.Partition(tag, e.partitions())].Load()
	e.journal.mu.RLock()
	defer e.journal.mu.RUnlock()
	if e.concern(pos, "", []string{tag}) != 0 || era.dead.Load() || !e.intents.mayKeep(e.Now(), e.Now()) {
		return
	}
	if st.known.Swap(&mirrored{token, era}) == nil {
		s.mirrors.keep(st)
	}
}
