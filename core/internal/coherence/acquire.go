package coherence

import (
	"context"
	"time"

	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/tier"
)

// maxAttempts bounds the questions for a lease of one turn.
const maxAttempts = 64

// acquire asks for the lease until the turn has it, an entry or a queued change is found, or
// the query's time is over.
func (f *fetch) acquire(ctx context.Context) Found {
	wait := leaseWait{until: time.Now().Add(f.query.Wait)}
	defer wait.end()
	for range maxAttempts {
		if f.noLease {
			return Found{}
		}
		ses, ok := f.s.askable(f.t.Key(), f.t.Tags())
		if !ok {
			return f.acquireQueued(ctx)
		}
		if found, done := f.attempt(ctx, ses, &wait); done {
			return found
		}
	}
	return Found{}
}

// attempt asks once for the lease. done: no further attempt is needed.
func (f *fetch) attempt(ctx context.Context, ses tier.Session, wait *leaseWait) (found Found, done bool) {
	s, t := f.s, f.t
	// The load is registered before the question: an item that was applied earlier does not
	// concern the answer.
	t.Load = s.local.NewLoad(t.Key(), t.Tags())
	ended, leave := s.waiters.listen(t.Key())
	defer leave()
	var l tier.Lease
	sent := s.local.Now()
	f.sent = sent
	err := f.budget.use(ctx, func(ctx context.Context) (err error) {
		l, err = ses.Acquire(ctx, t.Key(), f.seen, t.Tags(), t.leaseTerm())
		return err
	})
	received := s.local.Now()
	s.recordCall(ctx, f.part, s.local.Mask(t.Key(), t.Tags()), err)
	f.queueKnown = f.queueKnown || err == nil && l.Found.ID == ""
	switch {
	case err != nil:
		return Found{}, true
	case l.Token != "" && len(l.Generations) == len(t.Tags()):
		return f.take(ctx, ses, &l, sent, received), true
	case l.Found.ID != "":
		return f.use(ctx, ses, &l)
	case l.Busy > 0:
		return f.await(ctx, &l, ended, wait)
	}
	return Found{}, true
}

// take holds a lease, if this instance has applied everything that the tier knew when it granted
// it. A queued change is returned in any case: the database is older.
func (f *fetch) take(ctx context.Context, ses tier.Session, l *tier.Lease, sent, received int64) Found {
	if !f.catchUp(ctx, ses, l) {
		f.s.giveBack(&heldLease{s: f.s, ses: ses, lease: *l})
		f.s.requestRound()
		return Found{Queued: l.Queued}
	}
	f.t.hold(ses, *l, sent, received)
	return Found{Queued: l.Queued}
}

// use answers with the entry that was found instead of a lease, if it is valid and the query
// permits it.
func (f *fetch) use(ctx context.Context, ses tier.Session, l *tier.Lease) (found Found, done bool) {
	f.seen = l.Found.ID
	if f.query.LeaseOnly {
		f.joinNote(&l.Found)
	}
	for _, g := range l.Generations {
		if g.Open == 0 { // as for a lease
			f.s.learn(f.t.Position(), g.Tag, g.Token)
		}
	}
	if f.query.LeaseOnly {
		return Found{}, false
	}
	found = f.admit(ctx, ses, &l.Found)
	return found, usable(found)
}

// leaseWait is the wait of one turn for the loads of other instances.
type leaseWait struct {
	until  time.Time
	resume func() // ends the pause of the turn's run; nil: it has not paused
}

// pause records that the turn's load waits for another instance (waitgraph).
func (w *leaseWait) pause(t *Turn) {
	if w.resume == nil && t.Running() != nil {
		w.resume = t.Running().WaitForInstance()
	}
}

func (w *leaseWait) end() {
	if w.resume != nil {
		w.resume()
	}
}

// await waits for the load of another instance, which has the lease. done: no further
// attempt is needed.
func (f *fetch) await(ctx context.Context, l *tier.Lease, ended <-chan struct{}, wait *leaseWait) (found Found, done bool) {
	switch {
	case l.Queued != nil && f.query.Queue:
		return Found{Queued: l.Queued}, true
	case f.query.Background:
		return Found{Busy: true}, true
	case f.t.Claimed(): // another turn of this process has the lease
		return Found{}, true
	}
	wait.pause(f.t)
	ok := f.s.sleepOpen(ctx, min(l.Busy, time.Until(wait.until)), ended)
	if !ok || !time.Now().Before(wait.until) {
		return Found{}, true
	}
	// The time of another instance's load does not count as a wait for the tier.
	f.budget.left = max(f.budget.left, f.t.allowance())
	if f.key != f.t.Key() && !f.query.LeaseOnly { // the end of the lease does not bring the entry
		if found, done := f.get(ctx); done {
			return found, true
		}
	}
	return Found{}, false
}

// acquireQueued asks for a queued change of the key, and for nothing else. It is for partitions
// from which nothing may be answered or stored, since they are not verified or have a
// pending invalidation. A queued change is the value that the database will have, whatever
// else the tier has lost (R27).
func (f *fetch) acquireQueued(ctx context.Context) Found {
	s, t := f.s, f.t
	ses, ok := s.answering(t.Key())
	if !ok || !f.query.Queue {
		return Found{}
	}
	for range 3 { // the next attempt ignores an entry that is found
		t.Load = s.local.NewLoad(t.Key(), t.Tags()) // before the question, as in attempt
		var l tier.Lease
		err := f.budget.use(ctx, func(ctx context.Context) (err error) {
			l, err = ses.Acquire(ctx, t.Key(), f.seen, nil, firstLease)
			return err
		})
		f.queueKnown = f.queueKnown || err == nil && l.Found.ID == ""
		s.recordCall(ctx, f.part, 1<<f.part, err)
		switch {
		case err != nil:
			return Found{}
		case l.Found.ID != "":
			f.seen = l.Found.ID
			continue
		case l.Token != "":
			s.giveBack(&heldLease{s: s, ses: ses, lease: l})
		}
		return Found{Queued: l.Queued}
	}
	return Found{}
}

// catchUp applies the items that the tier had in the partitions of the key and its tags when
// it granted the lease. The load may read other entries of this cache, which stay legal for up
// to MaxStaleness after their invalidation. A value made of them would be stored under the
// newer generations that came with the lease, for the whole TTL of its class (R10, for tags
// that are known before the load).
//
// The end of an era is in no log. A lease of another era than the known one is given back,
// since copies that are still legal may be of the era that has ended.
func (f *fetch) catchUp(ctx context.Context, ses tier.Session, l *tier.Lease) bool {
	n := f.s.local.Partitions()
	heads := map[int]tier.Head{f.part: {Position: tier.Position{Token: l.Head}, Era: l.Era}}
	for _, g := range l.Generations {
		heads[tier.Partition(g.Tag, n)] = tier.Head{Position: tier.Position{Token: g.Head}, Era: g.Era}
	}
	for p, h := range heads {
		if !f.catchUpTo(ctx, ses, p, &h) || f.s.inAnotherEra(p, h.Era) {
			return false
		}
	}
	return true
}

// catchUpTo applies the log of a partition up to a head at least.
func (f *fetch) catchUpTo(ctx context.Context, ses tier.Session, p int, h *tier.Head) bool {
	from, some := f.s.unapplied(p, h.Position.Token)
	if !some || from == nil {
		return !some
	}
	var since tier.Log
	err := f.budget.use(ctx, func(ctx context.Context) (err error) {
		since, err = ses.Log(ctx, p, *from)
		return err
	})
	f.s.recordCall(ctx, p, 1<<p, err)
	return err == nil && f.s.applyLogUpTo(p, from, h, &since)
}

// joinNote joins a stored note that was found, but not asked for, with this instance's.
func (f *fetch) joinNote(en *tier.Entry) {
	if !tier.Learnt(en.ID) || len(en.Eras) != 0 {
		return
	}
	value, _, now, ok := f.decode(en)
	if lasting, lasts := value.(local.Lasting); ok && lasts {
		f.s.local.Join(f.t.Key(), lasting, now+(en.KeepUntil-en.Now)*1e6)
	}
}
