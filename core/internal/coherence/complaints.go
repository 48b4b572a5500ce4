package coherence

import (
	"sync"
	"time"

	"github.com/larderhq/larder/core/internal/tier"
)

const (
	// refusalForgotten is how long a kind of refusal must not have occurred until it
	// is said again.
	refusalForgotten = 10 * time.Minute
	// sameFailure is how long after a refusal was said a failed round is taken for the
	// same failure.
	sameFailure = 5 * time.Second
)

// complaints are what the log has been told of the tier. Refusals of calls and failed
// rounds are told once for each kind: a password that is wrong since the server came
// back is another failure than the server that was away.
type complaints struct {
	mu      sync.Mutex
	refused map[string]complaint // calls of each kind
	outage  map[string]bool      // the kinds of failed rounds, since the last that succeeded; nil: none has failed
}

type complaint struct{ said, last int64 }

// refusal reports whether to tell of a refused call.
func (c *complaints) refusal(kind string, now int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	old, known := c.refused[kind]
	next := complaint{said: old.said, last: now}
	fresh := !known || now-old.last > int64(refusalForgotten)
	if fresh {
		next.said = now
	}
	if c.refused == nil {
		c.refused = make(map[string]complaint) // kinds are few
	}
	c.refused[kind] = next
	return fresh
}

// failed reports whether to tell of a round that failed.
func (c *complaints) failed(kind string, now int64) bool {
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
	return !known || now-call.said > int64(sameFailure)
}

// succeeded reports whether rounds had failed until now.
func (c *complaints) succeeded() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.outage != nil
	c.outage = nil
	return was
}

// unreachable tells of a failed round, or of too many failed calls. It is told once
// for each kind of failure, until a round succeeds.
func (s *shared) unreachable(err error) {
	kind := tier.KindOf(err)
	if !s.complaints.failed(kind, s.local.Monotonic()) {
		return
	}
	if kind == "" {
		s.Log.Warn("larder: the shared tier does not answer; what it would answer goes to the handlers", "error", err)
		return
	}
	s.Log.Warn("larder: the shared tier refuses to serve; what it would answer goes to the handlers",
		"kind", kind, "error", err)
}

func (s *shared) reachable() {
	if s.complaints.succeeded() {
		s.Log.Info("larder: the shared tier answers again")
	}
}

// refused tells of a call that a server has refused. It is told once for each kind.
func (s *shared) refused(err error) {
	s.local.Count.RemoteErrors.Add(1)
	if kind := tier.KindOf(err); s.complaints.refusal(kind, s.local.Monotonic()) {
		s.Log.Warn("larder: the shared tier refuses a call; what depends on it is not cached, or not invalidated in time",
			"kind", kind, "error", err)
	}
}

// uncounted counts a failure that refused has not.
func (s *shared) uncounted(err error) {
	if tier.KindOf(err) == "" {
		s.local.Count.RemoteErrors.Add(1)
	}
}

// observe lets the log know what a session's servers lack and refuse.
func (s *shared) observe(ses tier.Session) {
	if limited, ok := ses.(tier.Limited); ok {
		for _, limit := range limited.Limits() {
			s.Log.Warn("larder: the cache works with less than it could, for what the shared tier lacks", "limit", limit)
		}
	}
	if reporter, ok := ses.(tier.Reporter); ok {
		reporter.OnRefusal(s.refused)
	}
}
