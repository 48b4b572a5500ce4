package simulate_test

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	defaultOperations = 150_000
	defaultHistory    = 10_000
)

func number(t *testing.T, name string, def int64) int64 {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return def
	}
	n, err := strconv.ParseInt(s, 10, 64)
	require.NoError(t, err, name)
	return n
}

// kinds are the profiles that are drawn from.
func kinds(t *testing.T) []string {
	t.Helper()
	if p := os.Getenv("LARDER_PROFILE"); p != "" {
		require.Contains(t, profiles, p, "LARDER_PROFILE")
		return []string{p}
	}
	return slices.Sorted(maps.Keys(profiles))
}

func TestSimulationNoAnswerOfRacingInstancesBreaksAPromise(t *testing.T) {
	few := int64(defaultOperations)
	if testing.Short() {
		few /= 5
	}
	operations, each := number(t, "LARDER_OPERATIONS", few), number(t, "LARDER_HISTORY", defaultHistory)
	queues := os.Getenv("LARDER_QUEUES") != ""
	if os.Getenv("LARDER_SEED") != "" {
		c := config{seed: uint64(number(t, "LARDER_SEED", 0)), ops: each, trace: os.Getenv("LARDER_TRACE") != "", broken: os.Getenv("LARDER_BROKEN"), queues: queues}
		c.profile = profileOf(c.seed, kinds(t))
		for n := range number(t, "LARDER_REPEAT", 1) {
			h := run(t, c)
			if f := h.failure.Load(); f != nil {
				t.Fatalf("repetition %d: %s", n, *f)
			}
			t.Log(&h.totals)
		}
		return
	}
	s := &simulation{t: t, kinds: kinds(t), left: operations, each: each, first: uint64(time.Now().UnixNano() % 1e12), broken: os.Getenv("LARDER_BROKEN"), trace: os.Getenv("LARDER_TRACE") != "", queues: queues}
	begun := time.Now()
	failure := s.run()
	n := s.all.operations()
	t.Logf("SIMULATION %v\n  %.0f operations/s, seeds from %d", &s.all, float64(n)/time.Since(begun).Seconds(), s.first)
	if failure != "" {
		t.Fatalf("after %d histories, %d operations: %s", s.all.Histories, n, failure)
	}
	if operations < defaultOperations || len(s.kinds) < len(profiles) {
		return
	}
	// Histories without the rare events prove nothing.
	st, tier := s.all.Stats, s.all.Tier
	for name, n := range map[string]int64{
		"hits": st.Hits, "remote hits": st.RemoteHits, "loads": st.Loads, "shared loads": st.Coalesced, "stored": st.Stored,
		"refused": st.Refused, "announcements": s.all.announced.Load(), "lost hints": int64(tier.LostHints), "refused fills": int64(tier.FencedFills),
		"changes queued": s.all.queued.Load(), "changes applied": s.all.applied.Load(), "nested reads": s.all.nested.Load(),
		"resent": int64(tier.Resent), "evicted": int64(tier.EvictedKeys), "executed late": int64(tier.ExecutedLate),
	} {
		require.Positive(t, n, name)
	}
	if operations < 1_000_000 { // too few operations for every fault
		return
	}
	if operations < 10*defaultOperations {
		return // some events are rare
	}
	for _, name := range []string{"crash", "failover", "restored", "flushed", "migration", "full", "down", "frozen"} {
		require.Positive(t, s.all.faults[name], name)
	}
}

func profileOf(seed uint64, kinds []string) string { return kinds[seed%uint64(len(kinds))] }

// simulation is many histories.
type simulation struct {
	t      *testing.T
	kinds  []string
	left   int64
	each   int64
	first  uint64
	broken string
	trace  bool
	queues bool
	all    totals
}

// run runs histories, several of them concurrently, until the operations are done or one
// fails.
func (s *simulation) run() (failure string) {
	var next, left atomic.Int64
	left.Store(s.left)
	var failed atomic.Pointer[string]
	var wg sync.WaitGroup
	for range workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for left.Add(-s.each) > -s.each && failed.Load() == nil {
				c := config{seed: s.first + uint64(next.Add(1)) - 1, ops: s.each, broken: s.broken, trace: s.trace, queues: s.queues}
				c.profile = profileOf(c.seed, s.kinds)
				s.t.Run(fmt.Sprintf("%s/%d", c.profile, c.seed), func(t *testing.T) {
					h := run(t, c)
					s.all.merge(&h.totals)
					if f := h.failure.Load(); f != nil {
						failed.CompareAndSwap(nil, f)
					}
				})
			}
		}()
	}
	wg.Wait()
	if f := failed.Load(); f != nil {
		return *f
	}
	return ""
}

const workers = 4
