package coherence

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/tier"
)

// A request waits for the shared tier within its budget. Work that does not fit into the
// budget continues behind the response:
//
//   - A fill continues after its load has ended (Turn.Fill, Deferred).
//   - A load that began without a lease is stored nowhere (R3). Another load, which begins when
//     it has the lease, stores its value (Later).
//
// The engine owns this work, and its Close ends it and waits for it. Each fill and each load
// has a limit of time, their numbers are bounded, and so are the bytes of fills.
//
// The interleavings of a fill follow. F is the script that fills, R its reply, C an
// invalidation of the key or a tag, A its application here, and N a request of this instance
// after the response. x < y means that x comes before y.
//
//	C < F                    C took the lease, or F stores under a generation that has ended,
//	                         as for any fill, however late it is executed.
//	F < C, A < R             The lock that applies items is held while an entry is inserted in
//	                         this process. The items since the load contain A, and the entry
//	                         is refused.
//	F < C, R < A             The entry is in this process until A removes it, as any entry.
//	F executed, R lost       No copy is kept here. The entry in the tier is valid.
//	F abandoned, executed    As F executed: the script compares. If the lease has been given
//	                         back meanwhile, F is refused.
//	N < R, A not before N    N joins: the flight stays, with its outcome, until R. N could
//	                         have come a moment before the end of the load (R7).
//	A < N < R                The flight is fenced for N, which loads again. So does a request
//	                         that finds the log not followed for MaxStaleness.
//	N < R, a late tag        The items are also compared with the tags that the response named.
//	R < N                    N finds the entry in this process.
//	R refuses                The flight ends with R. A later request loads.
//	an open intent or a      No request joins. It could otherwise get an old value after the
//	lagging replica          deadline of a writer that has died, or after the end of the lag.
//
// The interleavings of a load behind the response follow. L is the reply with its lease.
//
//	the entry is there       It is kept in this process, as for a request.
//	another load has it      The load waits for the lease, and finds the entry at its end.
//	C before or after L      The load is registered after L, with its position in the log.
//	                         Everything else is as for the load of a request.
//	L with a queued change   No load begins: the change is the value, and was read before L. It
//	                         stays registered from before the question, which may have taken
//	                         behindWait. An item that came in between fences it.
//	N before L               N does not wait behind this load for the tier. It loads, and
//	                         begins no second load behind its response.
//	L < N                    From L on the load leads a flight, if there is none. N joins it.
const (
	// behindWait is the time for which a load behind a response waits for the tier in all, and
	// fillLimit that for which a fill does.
	behindWait = 3 * time.Second
	fillLimit  = 2 * time.Second
	// maxFills bounds the fills behind responses.
	maxFills = 256
)

// behind bounds the work behind responses.
type behind struct {
	fills    chan struct{} // has room for each fill
	loads    chan struct{} // has room for each load
	maxBytes int64         // of all fills

	mu    sync.Mutex
	bytes int64
	keys  map[string]struct{} // of the loads
}

func newBehind(loads int, maxBytes uint64) behind {
	return behind{
		fills: make(chan struct{}, maxFills), loads: make(chan struct{}, loads),
		maxBytes: int64(maxBytes / 4), keys: make(map[string]struct{}),
	}
}

// reserve reserves room for a fill. It returns false if there is none.
func (b *behind) reserve(size int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bytes+int64(size) > b.maxBytes {
		return false
	}
	select {
	case b.fills <- struct{}{}:
		b.bytes += int64(size)
		return true
	default:
		return false
	}
}

// free frees the room of a fill.
func (b *behind) free(size int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bytes -= int64(size)
	<-b.fills
}

// begin registers a load of key. It returns false if there is one.
func (b *behind) begin(key string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.keys[key]; ok {
		return false
	}
	b.keys[key] = struct{}{}
	return true
}

// done removes the load of key.
func (b *behind) done(key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.keys, key)
}

// outlast runs fn in the background and waits for its end for the given time, unless a round trip
// takes longer. It reports whether fn has ended. If the engine is closed, fn runs for the
// given time only.
func (e *Engine) outlast(ctx context.Context, wait time.Duration, fn func(context.Context)) (ended bool) {
	done := make(chan struct{})
	ok := e.SpawnInBatch(ctx, fillLimit, func(ctx context.Context) {
		defer close(done)
		fn(ctx)
	})
	if !ok {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), max(wait, 0))
		defer cancel()
		fn(ctx)
		return true
	}
	return e.await(done, wait)
}

// await waits for the end of a call to the tier.
func (e *Engine) await(done <-chan struct{}, wait time.Duration) bool {
	if wait <= 0 || !e.shared.fits(wait) {
		select {
		case <-done:
			return true
		default:
			return false
		}
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

// fillBehind fills in the background, and waits for the rest of the turn's budget. It returns
// false if there is no room.
func (t *Turn) fillBehind(ctx context.Context, h *heldLease, f local.Fill) (*local.Entry, local.Refusal, bool) {
	e, l := t.e, t.Load
	if !e.behind.reserve(f.Size) {
		return nil, "", false
	}
	d := local.NewDeferredFill(f.ReplicaLag == 0 && !h.doubtful())
	wait := e.shared.Budget / 2
	switch {
	case t.behind:
		wait = fillLimit
	case t.fetch != nil:
		wait = t.fetch.budget.left
	}
	ok := e.SpawnInBatch(ctx, fillLimit, func(ctx context.Context) {
		defer e.behind.free(f.Size)
		en, refusal := t.fillNow(ctx, l, h, &budget{s: e.shared, left: fillLimit}, f)
		if left := e.End(d, en, refusal); left && f.Then != nil {
			f.Then(refusal)
		}
	})
	if !ok {
		e.behind.free(f.Size)
		return nil, "", false
	}
	began := time.Now()
	e.await(d.Done(), wait)
	if t.fetch != nil {
		t.fetch.budget.left -= time.Since(began)
	}
	if en, refusal, over := t.Leave(d); over {
		l.Made(en)
		return en, refusal, true
	}
	e.TierCount.Deferred.Add(1)
	return l.Make(f, h.lease.Token), local.Deferred, true
}

// doubtful reports whether an open intent or a lagging replica may concern the value of the
// load.
func (h *heldLease) doubtful() bool {
	return h.lease.Lagging || h.lease.Open != 0 ||
		slices.ContainsFunc(h.lease.Generations, func(g tier.Generation) bool { return g.Open > 0 || g.Lagging })
}

// TryLater returns a turn for a load of key behind the response, unless there is one. The turn
// may wait long for the tier, and requests join its load only after that. Without a lease it
// has no use (Turn.MayStore).
func (e *Engine) TryLater(key string, tags []string, gate local.Gate) (*Turn, bool) {
	if e.shared == nil || !e.behind.begin(key) {
		return nil, false
	}
	return e.newTurn(&Turn{Turn: local.NewTurn(e.NewLoad(key, tags), gate), behind: true, unique: true}), true
}

// Later runs fn with such a turn in the background. It returns false if the maximum number of
// loads is running.
func (e *Engine) Later(parent context.Context, key string, tags []string, gate local.Gate, limit time.Duration, fn func(context.Context, *Turn)) bool {
	turn, ok := e.TryLater(key, tags, gate)
	if !ok {
		return false
	}
	ok = e.Behind(parent, limit, func(ctx context.Context) {
		defer turn.Finish(local.Outcome{Verdict: local.Failed})
		fn(ctx, turn)
	})
	if !ok {
		turn.Finish(local.Outcome{Verdict: local.Failed})
	}
	return ok
}

// Behind runs fn in the background, for limit plus the time that the tier may take. It returns
// false if the maximum number of loads is running.
func (e *Engine) Behind(parent context.Context, limit time.Duration, fn func(context.Context)) bool {
	select {
	case e.behind.loads <- struct{}{}:
	default:
		e.Count.RefreshesSkipped.Add(1)
		return false
	}
	ok := e.Spawn(parent, limit+behindWait, func(ctx context.Context) {
		defer func() { <-e.behind.loads }()
		fn(ctx)
	})
	if !ok {
		<-e.behind.loads
	}
	return ok
}

// Behind reports whether the turn belongs to a load behind a response.
func (t *Turn) Behind() bool { return t.behind }

// Distant reports whether the tier is so distant that a refresh should run behind the
// response (TryLater), since a request's budget holds few round trips.
func (e *Engine) Distant() bool { return e.shared != nil && e.shared.distant() }
