package coherence

import (
	"context"
	"time"

	"github.com/larderhq/larder/core/internal/local"
)

// Turn is the right and the duty to load. Exactly one call of Finish ends it,
// whatever happens to the load.
type Turn struct {
	local.Turn
	e *Engine

	// With a shared tier:
	held    *heldLease   // nil: the value of the load is stored nowhere
	refused *local.Entry // an entry that was found and that the caller does not use
	fetch   *fetch       // the questions so far, and the time that is left for more

	waited  time.Duration // for a round, before the first question
	budgets int           // number of budgets for the questions; 0: one
	behind  bool          // no request waits for the turn, see TryLater
	unique  bool          // it is registered as the only load of its key behind a response
}

// Enter joins the flight of key, or begins one. It returns a turn if the caller has to load.
// Otherwise it returns the outcome of another load, or an error: that of ctx if it ended
// first, local.ErrBusy, or local.ErrCycle. tags are those known before the load; gate applies
// to the flight that this call begins.
func (e *Engine) Enter(ctx context.Context, key string, tags []string, gate local.Gate) (*Turn, local.Outcome, error) {
	waited := e.Awaken(ctx)
	turn, o, err := e.Cache.Enter(ctx, key, tags, gate)
	if !turn.Granted() {
		return nil, o, err
	}
	return e.newTurn(&Turn{Turn: turn, waited: waited}), o, nil
}

// TryLead begins a flight of key unless there is one.
func (e *Engine) TryLead(key string, tags []string, gate local.Gate) (*Turn, bool) {
	turn, ok := e.Cache.TryLead(key, tags, gate)
	if !ok {
		return nil, false
	}
	return e.newTurn(&Turn{Turn: turn}), true
}

// Alone returns a turn outside any flight, for a load that no other request can share.
func (e *Engine) Alone(key string, tags []string) *Turn {
	return e.newTurn(&Turn{Turn: e.Cache.Alone(key, tags)})
}

// Finish ends the turn and wakes the requests that wait for it. Calls after the first
// do nothing. It is not safe for concurrent use.
func (t *Turn) Finish(o local.Outcome) {
	if t.Finished() {
		return
	}
	if t.held != nil {
		t.held.Release() // the lease of a turn that stored nothing must not delay other instances
	}
	if t.unique {
		t.e.behind.done(t.Key())
	}
	t.Turn.Finish(o)
	if t.e.shared != nil {
		t.e.shared.demand()
		t.e.shared.rest.turns.Add(-1)
	}
}
