package coherence

import (
	"context"

	"github.com/larderhq/larder/core/internal/local"
)

// Turn is the right and the duty to load. Exactly one call of Finish ends it,
// whatever happens to the load.
type Turn struct {
	local.Turn
	e *Engine

	// With a shared tier:
	held    *held        // the lease to fill it; nil: what is loaded is stored nowhere
	refused *local.Entry // an entry that was found and is of no use
	asked   *asking      // the questions that it has asked, and the time that is left for more

	patience int  // budgets for them; 0: one
	behind   bool // nobody waits for it: see TryLater
	noted    bool // it is the one of its key behind a response
}

// Enter joins the flight of key, or begins one. It returns either a turn (the
// caller loads), or the outcome of another load, or an error: ctx's, when
// it ended first, local.ErrBusy, or local.ErrCircle. tags are those known before the load;
// gate applies to the flight that this call begins.
func (e *Engine) Enter(ctx context.Context, key string, tags []string, gate local.Gate) (*Turn, local.Outcome, error) {
	turn, o, err := e.Cache.Enter(ctx, key, tags, gate)
	if !turn.Granted() {
		return nil, o, err
	}
	return &Turn{Turn: turn, e: e}, o, nil
}

// TryLead begins a flight of key unless one is under way.
func (e *Engine) TryLead(key string, tags []string, gate local.Gate) (*Turn, bool) {
	turn, ok := e.Cache.TryLead(key, tags, gate)
	if !ok {
		return nil, false
	}
	return &Turn{Turn: turn, e: e}, true
}

// Alone returns a turn outside any flight, for a load that nobody can share.
func (e *Engine) Alone(key string, tags []string) *Turn {
	return &Turn{Turn: e.Cache.Alone(key, tags), e: e}
}

// Finish ends the turn and wakes those who wait for it. Calls after the first
// do nothing. It is not safe for concurrent use.
func (t *Turn) Finish(o local.Outcome) {
	if t.Finished() {
		return
	}
	if t.held != nil {
		t.held.Release() // a turn that stored nothing must not hold others up
	}
	if t.noted {
		t.e.behind.done(t.Key())
	}
	t.Turn.Finish(o)
}
