package coherence

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/tier"
)

// What goes on behind a response. A request waits for the shared tier for its budget;
// what its budget had no room for is not lost:
//
//   - A fill whose load has been paid for goes on (Turn.Fill, Deferred).
//   - A load that had to begin without a lease is made up for by another one that begins
//     once the lease is there (Later): R3 forbids to store the first.
//
// Each has an owner, the engine, whose Close ends and awaits it, a limit of time, and a
// bound in number: fills also in bytes. The interleavings, where F is the script that
// fills, R its reply here, C an invalidation of the key or a tag, A its application here,
// and N a request of this instance that comes after the response:
//
//	C < F                    C took the lease, or F stores under a generation that is no
//	                         more: as for any fill, however late it is executed
//	F < C, A < R             the entry is put into this process under the lock that applies
//	                         items, and refused: it is compared from before its load
//	F < C, R < A             the entry is in this process until A takes it out, as any
//	F executed, R lost       nothing is kept here; the entry in the tier is valid
//	F abandoned, executed    as F executed: what is compared is compared in the script. The
//	                         lease may have been given back meanwhile: refused
//	N < R, A not before N    N joins: the flight stays, with its outcome, until R. It is as
//	                         if N had come a moment before the load's end (R7)
//	A < N < R                the flight is fenced for N: he loads anew. So does who finds
//	                         the log no longer followed for MaxStaleness
//	N < R, a tag named late  the log is compared with the tags that the response names, too
//	R < N                    N finds the entry in this process
//	R refuses                the flight ends with R: who comes then loads
//	a writer is at work, or  nobody joins between: what he left behind when he died, or a
//	a replica lags           replica had, would be answered past the end of that
//
// Of a load behind the response, where L is the reply that brings its lease:
//
//	the entry is there       it is put into this process, as when a request had asked
//	somebody has the lease   it is waited for: his entry is found when it ends
//	C before L, or after     the load is registered after L, and its log position taken; all
//	                         that follows is as for a load of a request
//	N before L               N does not wait for the tier behind somebody else: he loads, and
//	                         begins no second load behind his response
//	L < N                    the load leads a flight from L on, if there is none: N joins it
const (
	// behindWait is how long a load behind a response waits for the tier, in all, and
	// fillLimit how long a fill does.
	behindWait = 3 * time.Second
	fillLimit  = 2 * time.Second
	// maxFills is how many fills go on behind their responses.
	maxFills = 256
)

// behind is what goes on behind responses.
type behind struct {
	fills chan struct{} // has room for each
	loads chan struct{}
	most  int64 // bytes that fills may hold

	mu    sync.Mutex
	bytes int64
	keys  map[string]struct{} // that are loaded
}

func newBehind(loads int, maxBytes uint64) behind {
	return behind{
		fills: make(chan struct{}, maxFills), loads: make(chan struct{}, loads),
		most: int64(maxBytes / 4), keys: make(map[string]struct{}),
	}
}

// room makes room for a fill, if there is any.
func (b *behind) room(size int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bytes+int64(size) > b.most {
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

func (b *behind) filled(size int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bytes -= int64(size)
	<-b.fills
}

func (b *behind) begin(key string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.keys[key]; ok {
		return false
	}
	b.keys[key] = struct{}{}
	return true
}

func (b *behind) done(key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.keys, key)
}

// outlast runs fn in the background and waits for it for a time, unless that is too
// short for a round trip. It reports whether fn has ended by then. Where the engine is
// closed fn has that time and no more.
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

// await waits for the end of something that has been sent to the tier.
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

// fillBehind fills in the background. The caller waits for what is left of its budget.
// It returns false if there is no room.
func (t *Turn) fillBehind(ctx context.Context, h *held, f local.Fill) (*local.Entry, local.Refusal, bool) {
	e, l := t.e, t.Load
	if !e.behind.room(f.Size) {
		return nil, "", false
	}
	d := local.NewDeferredFill(f.ReplicaLag == 0 && !h.lease.Lagging && h.lease.Open == 0 &&
		!slices.ContainsFunc(h.lease.Generations, func(g tier.Generation) bool { return g.Open > 0 || g.Lagging }))
	wait := e.shared.Budget / 2
	switch {
	case t.behind:
		wait = fillLimit
	case t.asked != nil:
		wait = t.asked.budget.left
	}
	ok := e.SpawnInBatch(ctx, fillLimit, func(ctx context.Context) {
		defer e.behind.filled(f.Size)
		en, refusal := t.fillNow(ctx, l, h, &budget{s: e.shared, left: fillLimit}, f)
		if left := e.End(d, en, refusal); left && f.Then != nil {
			f.Then(refusal)
		}
	})
	if !ok {
		e.behind.filled(f.Size)
		return nil, "", false
	}
	began := time.Now()
	e.await(d.Done(), wait)
	if t.asked != nil {
		t.asked.budget.left -= time.Since(began)
	}
	if en, refusal, over := t.Leave(d); over {
		l.Made(en)
		return en, refusal, true
	}
	e.Count.Deferred.Add(1)
	return l.Make(f, h.lease.Token), local.Deferred, true
}

// TryLater returns a turn for a load of key that nobody waits for, unless there is one: it
// may wait long for the tier, and is joined only after that. It is no use without a lease
// (Turn.MayStore).
func (e *Engine) TryLater(key string, tags []string, gate local.Gate) (*Turn, bool) {
	if e.shared == nil || !e.behind.begin(key) {
		return nil, false
	}
	return &Turn{Turn: local.NewTurn(e.NewLoad(key, tags), gate), e: e, behind: true, noted: true}, true
}

// Later runs fn in the background with such a turn, unless as many as there may be are
// running.
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

// Behind runs fn in the background, for limit and the time that the tier may take, unless
// as many as there may be are running.
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

// Behind reports whether nobody waits for the turn.
func (t *Turn) Behind() bool { return t.behind }

// Thrifty reports whether what nobody waits for had better go on behind (TryLater), since
// the tier is so far away that a request's budget holds few round trips.
func (e *Engine) Thrifty() bool { return e.shared != nil && e.shared.thrifty() }
