package coherence

import (
	"context"
	"time"

	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/tier"
)

// Query is what a turn asks of the shared tier before its load.
type Query struct {
	Codec local.Codec
	// Key is the key of the entry, if it differs from the turn's. Both have the same
	// name.
	Key  string
	Wait time.Duration // the time for which the load of another instance is waited for
	// LeaseOnly asks for the lease only: the entry that is there must not be answered. Seen is an
	// entry that is to be replaced.
	LeaseOnly bool
	Seen      *local.Entry
	// Background returns at once if another instance loads.
	Background bool
	// Leads: a Fetch follows this Look, which can leave the question to it.
	Leads bool
	// Queue: changes of the key may be queued.
	Queue bool

	look bool // the query is a Look's
}

// Found is the answer to a Query.
type Found struct {
	Entry *local.Entry // nil: there is none, and the caller loads
	State local.State
	Busy  bool // another instance loads, and Query.Background was set
	// Queued is a change of the key that has not been applied to the database: it is the
	// value. If it comes with a lease, the caller may fill with it.
	Queued *tier.Queued
	// fenced: an entry was found, and an item that concerns it was heard of while it was
	// read.
	fenced bool
}

// usable reports whether the entry may be answered, if only while it is refreshed.
func usable(found Found) bool { return found.Entry != nil && found.State >= local.Stale }

// Fetch asks the shared tier for the value of the turn's key, and takes the lease to fill it
// if there is none. Without a lease the value of the load is answered and shared in this process,
// and stored nowhere. Fetch never fails: a tier that cannot be asked counts as one without
// the entry.
func (t *Turn) Fetch(ctx context.Context, q Query) Found {
	s := t.e.shared
	if s == nil {
		return Found{Queued: t.e.queued(t.Key())}
	}
	found, done := Found{}, false
	if t.refused != nil {
		q.Seen, q.LeaseOnly = t.refused, true
	}
	if t.fetch == nil || q.LeaseOnly {
		found, done = t.ask(ctx, q)
	}
	t.fetch.query = q
	if !done {
		found = t.fetch.acquire(ctx)
	}
	if !usable(found) {
		// A queued change dates from the question: an item that was applied since then may
		// concern it, and the registration from before the question stays.
		t.restart(found.Queued == nil)
		if t.unique && t.held != nil {
			t.Lead(t.held)
		}
	}
	if q.Queue && found == (Found{}) && t.held == nil && !t.fetch.queueKnown {
		found.Queued = s.ownChange(t.Key())
	}
	if t.OverBudget() {
		t.e.TierCount.OverBudget.Add(1)
	}
	return found
}

// OverBudget reports whether the turn has no lease for lack of time alone. A load behind the
// response can then store the value (Later).
func (t *Turn) OverBudget() bool {
	return t.held == nil && t.fetch != nil && t.fetch.budget.exceeded && !t.behind
}

// Refuse rejects the entry that was found. The next Fetch asks for the lease to replace it.
func (t *Turn) Refuse(en *local.Entry) { t.refused = en }

// Look is the first step of Fetch: it reads the entry and takes no lease. A Fetch after it
// continues where it ended. It waits within the budget, even if the client leaves.
func (t *Turn) Look(ctx context.Context, q Query) Found {
	if t.e.shared == nil {
		return Found{}
	}
	q.look = true
	found, _ := t.ask(context.WithoutCancel(ctx), q)
	return found
}

// allowance is the time for which the turn may wait for the tier in all.
func (t *Turn) allowance() time.Duration {
	if t.behind {
		return behindWait
	}
	return t.e.shared.Budget*time.Duration(max(1, t.budgets)) - t.waited
}

// ask begins a fetch. It reads the entry unless the entry is known. done: no further question
// is needed.
func (t *Turn) ask(ctx context.Context, q Query) (found Found, done bool) {
	s := t.e.shared
	f := &fetch{s: s, t: t, query: q, budget: budget{s: s, left: t.allowance()}, part: tier.Partition(tier.Name(t.Key()), t.e.Partitions())}
	if t.fetch != nil {
		f.budget = t.fetch.budget // all questions of a turn share one budget
	}
	f.awaken(ctx)
	t.fetch = f
	if f.key = q.Key; f.key == "" {
		f.key = t.Key()
	}
	if q.Seen != nil {
		f.seen = q.Seen.ID()
	}
	if !q.LeaseOnly && q.Seen == nil && !f.combined() {
		found, f.noLease = f.get(ctx)
	}
	return found, f.noLease
}

// restart notes where the load begins. With renew it registers the load again: an item that
// was applied while the tier was asked does not concern a load that begins now.
func (t *Turn) restart(renew bool) {
	if renew {
		t.Load = t.Load.Renew()
	}
	if t.held != nil {
		t.held.before, t.held.registered = t.e.shared.places(), true
		t.held.began = t.Began()
	}
}

// fetch is the state of one Fetch, and of the Look before it.
type fetch struct {
	s       *shared
	t       *Turn
	query   Query
	key     string // of the entry
	part    int    // of the key
	seen    string // the id of an entry that is known and not used
	budget  budget
	noLease bool // no lease is asked for
	// queueKnown: the tier has reported the queued change of the key, or that there is none.
	queueKnown bool
	sent       int64 // when the last question for the entry was sent, on the engine's clock
}

// awaken ends a rest of the watchdog, within the budget.
func (f *fetch) awaken(ctx context.Context) {
	began := time.Now()
	f.s.awaken(ctx, f.budget.left)
	f.budget.left -= time.Since(began)
}

// combined reports whether the question for the lease also asks for the entry, which saves a
// round trip where the tier is distant.
func (f *fetch) combined() bool {
	return f.s.distant() && f.key == f.t.Key() && (f.query.Leads || !f.query.look)
}

// get reads the entry. That is one command if this instance knows the generations of its
// tags. done: no lease is to be asked for.
func (f *fetch) get(ctx context.Context) (found Found, done bool) {
	s, t := f.s, f.t
	ses, ok := s.askable(t.Key(), t.Tags())
	if !ok {
		return Found{}, !f.query.Queue
	}
	unknown := s.unmirrored(t.Tags())
	var en tier.Entry
	var gens []string
	f.sent = s.local.Now()
	err := f.budget.use(ctx, func(ctx context.Context) (err error) {
		en, gens, err = ses.Get(ctx, f.key, unknown)
		return err
	})
	s.recordCall(ctx, f.part, s.local.Mask(t.Key(), unknown), err)
	if err != nil || len(gens) != len(unknown) {
		return Found{}, true
	}
	for i, tag := range unknown {
		s.learn(t.Position(), tag, gens[i])
	}
	if en.ID == "" {
		return Found{}, false
	}
	f.seen = en.ID
	found = f.admit(ctx, ses, &en)
	return found, usable(found)
}

// MayStore reports whether the value of the load can be stored: the turn has the lease, or
// there is no shared tier.
func (t *Turn) MayStore() bool { return t.e.shared == nil || t.held != nil }

// AllowBudgets gives the turn several budgets for its questions, since it is one of many that are
// asked together.
func (t *Turn) AllowBudgets(budgets int) { t.budgets = budgets }
