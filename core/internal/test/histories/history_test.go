package histories_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/bridge"
)

// The tests in this file put a cache under load and judge every answer.
//
// The database has rows with versions that only writers raise. A writer commits,
// announces the change to the cache, and once that has returned records the version
// as announced. A reader reads the announced version, then the row through the cache: the
// answer must be at least that version. Chance decides the rest: which rows are read and
// written, how a write is announced, how long loads take, when in their course they read
// the database, and whether they fail.
//
// LARDER_READS sets the number of reads in all. A test stops at the first stale one.

const (
	defaultReads = 300_000
	historyRows  = 64
	hotRows      = 8
	groups       = 12
	readers      = 64
	writers      = 8
)

type row struct {
	version   atomic.Int64 // committed
	announced atomic.Int64 // the announcement of this version, or a later one, has returned
	order     sync.Mutex   // held by writers that store values by Put: see writePut
	_         [40]byte
}

type history struct {
	cache *core.Cache
	rows  [historyRows]row

	reads, failed, writes atomic.Int64
	stale                 atomic.Pointer[string] // the first one
	want                  int64
}

// historyReads returns the number of reads of one test, when tests share them.
func historyReads(t *testing.T, tests int64) int64 {
	reads := int64(defaultReads)
	if s := os.Getenv("LARDER_READS"); s != "" {
		n, err := strconv.ParseInt(s, 10, 64)
		require.NoError(t, err, "LARDER_READS")
		reads = n
	}
	return reads / tests
}

func newHistory(t *testing.T, tests int64, classes core.Classes) *history {
	h := &history{want: historyReads(t, tests)}
	h.cache = open(t, core.Options{Classes: classes, MaxBytes: 8 << 20, MaxRefreshes: 8, CloseTimeout: minute})
	// Other entries make a sweep take longer.
	for i := range 5000 {
		bridge.Of(h.cache).Engine.Put(fmt.Sprint("other:", i), nil, 0, hour)
	}
	return h
}

func (h *history) over() bool { return h.reads.Load() >= h.want || h.stale.Load() != nil }

// pick returns a random row, half of the time one of a few hot rows.
func pick() int {
	if rand.IntN(2) == 0 {
		return rand.IntN(hotRows)
	}
	return rand.IntN(historyRows)
}

// run runs readers and writers until the reads are done. read returns the version of a row
// through the cache; write commits and announces one.
func (h *history) run(t *testing.T, read func(ctx context.Context, r int) (int64, error), write func(r int) (how string)) {
	t.Helper()
	begun := time.Now()
	lastWrite := make([]atomic.Value, historyRows)
	var reading, writing sync.WaitGroup
	for range readers {
		reading.Add(1)
		go func() {
			defer reading.Done()
			for !h.over() {
				r := pick()
				ctx, cancel := context.Background(), context.CancelFunc(func() {})
				if rand.IntN(50) == 0 {
					ctx, cancel = context.WithTimeout(ctx, time.Duration(rand.IntN(int(300*time.Microsecond))))
				}
				least := h.rows[r].announced.Load()
				how := lastWrite[r].Load()
				got, err := read(ctx, r)
				cancel()
				n := h.reads.Add(1)
				switch {
				case err != nil:
					h.failed.Add(1)
				case got < least:
					s := fmt.Sprintf("read %d of row %d answered version %d, although %d had been announced (the last write known then: %v)", n, r, got, least, how)
					h.stale.CompareAndSwap(nil, &s)
				}
			}
		}()
	}
	for range writers {
		writing.Add(1)
		go func() {
			defer writing.Done()
			for !h.over() {
				r := pick()
				how := write(r)
				lastWrite[r].Store(how)
				h.writes.Add(1)
				if rand.IntN(3) > 0 {
					time.Sleep(time.Duration(rand.IntN(int(500 * time.Microsecond))))
				}
			}
		}()
	}
	reading.Wait()
	writing.Wait()

	s := h.cache.Stats()
	stale := 0
	if h.stale.Load() != nil {
		stale = 1
	}
	t.Logf("HISTORY %d reads, %d stale; %d hits, %d hits within a stale window, %d shared, %d loads, %d refreshes, %d refused, %d failed reads; %d writes, %d targets; %v",
		h.reads.Load(), stale, s.Hits, s.StaleHits, s.Coalesced, s.Loads, s.Refreshes, s.Refused, h.failed.Load(), h.writes.Load(), s.Invalidations,
		time.Since(begun).Round(time.Millisecond))
	if first := h.stale.Load(); first != nil {
		t.Fatalf("STALE: %s", *first)
	}
	// A history without these events proves nothing.
	require.Greater(t, s.Hits, h.want/10)
	for name, n := range map[string]int64{
		"stale hits": s.StaleHits, "shared loads": s.Coalesced, "loads": s.Loads, "refreshes": s.Refreshes, "refused": s.Refused,
	} {
		require.Positive(t, n, name)
	}
}

// commit makes a new version of the row.
func (h *history) commit(r int) int64 { return h.rows[r].version.Add(1) }

// announced records that a read that begins now must see the version.
func (h *history) announced(r int, version int64) {
	for {
		old := h.rows[r].announced.Load()
		if old >= version || h.rows[r].announced.CompareAndSwap(old, version) {
			return
		}
	}
}

// announce commits a version of the row and invalidates targets, with or without an
// intent.
func (h *history) announce(r int, targets ...core.Target) (how string) {
	ctx := context.Background()
	intent, err := h.cache.Begin(ctx, targets...) // refuses patterns and all
	if err != nil || rand.IntN(3) > 0 {
		if err == nil && rand.IntN(2) == 0 {
			intent.Abandon() // it writes later
		}
		version := h.commit(r)
		if err := h.cache.Invalidate(ctx, targets...); err != nil {
			panic(err)
		}
		h.announced(r, version)
		return fmt.Sprint("Invalidate", targets)
	}
	pause(10)
	version := h.commit(r)
	pause(10)
	if err := intent.End(ctx); err != nil {
		panic(err)
	}
	h.announced(r, version)
	return fmt.Sprint("End", targets)
}

// pause takes as long as a query: no time, a moment, or rarely up to a millisecond.
func pause(slow int) {
	switch n := rand.IntN(100); {
	case n < 50:
	case n < 75:
		for range rand.IntN(20) {
			runtime.Gosched()
		}
	case n < 90:
		handOff := make(chan struct{})
		go close(handOff)
		<-handOff
	case rand.IntN(slow) == 0:
		time.Sleep(100*time.Microsecond + time.Duration(rand.IntN(int(900*time.Microsecond))))
	}
}

var errHistory = errors.New("database failure")

func groupTag(r int) string { return fmt.Sprint("group:", r%groups) }
