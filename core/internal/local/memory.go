package local

import (
	"time"

	"github.com/maypok86/otter/v2"
)

// tier is the in-process tier: Otter v2, bounded by bytes, each entry with its
// own expiry. Which entry may be answered from is decided by Entry.State; Otter's
// expiry only frees the memory.
type memory struct {
	cache *otter.Cache[string, *Entry]
	clock *otter.CoarseClock
}

// tierResolution is how far the tier's idea of the time may lag. It only delays
// the release of memory: State reads the precise clock.
const tierResolution = 50 * time.Millisecond

func newMemory(maxBytes uint64, now func() int64, deleted func(en *Entry, evicted bool)) (*memory, error) {
	clock := otter.NewCoarseClock(tierResolution)
	cache, err := otter.New(&otter.Options[string, *Entry]{
		MaximumWeight: maxBytes,
		Weigher:       func(_ string, en *Entry) uint32 { return en.weight },
		ExpiryCalculator: otter.ExpiryWritingFunc(func(o otter.Entry[string, *Entry]) time.Duration {
			return max(1, time.Duration(o.Value.KeepUntil-now())+tierResolution)
		}),
		OnAtomicDeletion: func(event otter.DeletionEvent[string, *Entry]) {
			deleted(event.Value, event.Cause == otter.CauseOverflow)
		},
		Clock:  clock,
		Logger: &otter.NoopLogger{},
	})
	if err != nil {
		clock.Stop()
		return nil, err
	}
	return &memory{cache: cache, clock: clock}, nil
}

func (t *memory) get(key string) (*Entry, bool) { return t.cache.GetIfPresent(key) }

func (t *memory) drop(key string) { t.cache.Invalidate(key) }

// dropEntry takes out en, unless another entry has taken its place.
func (t *memory) dropEntry(key string, en *Entry) {
	t.dropIf(key, func(old *Entry) bool { return old == en })
}

// dropIf takes out the entry under key that a condition holds for.
func (t *memory) dropIf(key string, holds func(*Entry) bool) {
	t.cache.ComputeIfPresent(key, func(old *Entry) (*Entry, otter.ComputeOp) {
		if holds(old) {
			return nil, otter.InvalidateOp
		}
		return old, otter.CancelOp
	})
}

func (t *memory) clear() { t.cache.InvalidateAll() }

func (t *memory) close() {
	t.cache.StopAllGoroutines()
	t.clock.Stop()
	t.cache.InvalidateAll()
}
