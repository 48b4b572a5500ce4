package coherence

import (
	"sync"
	"time"

	"github.com/larderhq/larder/core/internal/tier"
)

const (
	// refusalForgotten is the time after which a kind of refusal that has not occurred is
	// logged again.
	refusalForgotten = 10 * time.Minute
	// sameFailure is the time after a logged refusal within which a failed round counts as
	// the same failure.
	sameFailure = 5 * time.Second
)

// failureLog decides which failures of the tier are logged. Refused calls and failed rounds
// are logged once for each kind: a password that is wrong after a restart is another failure
// than the server that did not answer.
type failureLog struct {
	mu      sync.Mutex
	refused map[string]refusal // calls, by kind
	outage  map[string]bool    // the kinds of failed rounds since the last that succeeded; nil: none has failed
}

// refusal has the times at which a kind of refusal was logged and occurred last.
type refusal struct{ logged, last int64 }

// isNew reports whether an event of a kind, such as a refused call, has to be logged.
func (c *failureLog) isNew(kind string, now int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	old, known := c.refused[kind]
	next := refusal{logged: old.logged, last: now}
	first := !known || now-old.last > int64(refusalForgotten)
	if first {
		next.logged = now
	}
	if c.refused == nil {
		c.refused = make(map[string]refusal) // kinds are few
	}
	c.refused[kind] = next
	return first
}

// newOutage reports whether a failed round has to be logged.
func (c *failureLog) newOutage(kind string, now int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.outage[kind] {
		return false
	}
	if c.outage == nil {
		c.outage = make(map[string]bool)
	}
	c.outage[kind] = true
	call, known := c.refused[kind]
	return !known || now-call.logged > int64(sameFailure)
}

// endOutage records a round that succeeded. It reports whether the rounds before had failed.
func (c *failureLog) endOutage() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	failed := c.outage != nil
	c.outage = nil
	return failed
}

// unreachable logs a failed round, or the last failed call that is tolerated, once for each
// kind of failure until a round succeeds.
func (s *shared) unreachable(err error) {
	kind := tier.KindOf(err)
	if !s.health.failures.newOutage(kind, s.local.Monotonic()) {
		return
	}
	if kind == "" {
		s.Log.Warn("larder: the shared tier does not answer; requests go to the handlers instead", "error", err)
		return
	}
	s.Log.Warn("larder: the shared tier refuses to serve; requests go to the handlers instead",
		"kind", kind, "error", err)
}

// reachable logs the end of an outage.
func (s *shared) reachable() {
	if s.health.failures.endOutage() {
		s.Log.Info("larder: the shared tier answers again")
	}
}

// refused counts a call that a server has refused, and logs it once for each kind.
func (s *shared) refused(err error) {
	s.count.Errors.Add(1)
	if kind := tier.KindOf(err); s.health.failures.isNew(kind, s.local.Monotonic()) {
		s.Log.Warn("larder: the shared tier refuses a call; what depends on it is not cached, or not invalidated in time",
			"kind", kind, "error", err)
	}
}

// countUnrefused counts a failure that refused has not counted.
func (s *shared) countUnrefused(err error) {
	if tier.KindOf(err) == "" {
		s.count.Errors.Add(1)
	}
}

// observe logs the features that a session's servers lack, and has refused calls reported.
func (s *shared) observe(ses tier.Session) {
	if limited, ok := ses.(tier.Limited); ok {
		for _, limit := range limited.Limits() {
			s.Log.Warn("larder: the shared tier lacks a feature, and the cache works without it", "limit", limit)
		}
	}
	if reporter, ok := ses.(tier.Reporter); ok {
		reporter.OnRefusal(s.refused)
	}
}
