package local

import (
	"time"

	"github.com/maypok86/otter/v2"
)

// memory is the in-process tier: Otter v2 with a bound in bytes and an expiry for each entry.
// Entry.State decides whether an entry may be answered. The expiry only frees its memory.
type memory struct {
	cache *otter.Cache[string, *Entry]
	clock *otter.CoarseClock
}

// tierResolution is the resolution of the tier's clock. It only delays the release of memory,
// since State reads the precise clock.
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

// dropEntry removes en, unless another entry has replaced it.
func (t *memory) dropEntry(key string, en *Entry) {
	t.dropIf(key, func(old *Entry) bool { return old == en })
}

// dropIf removes the entry under key if a condition holds for it.
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
