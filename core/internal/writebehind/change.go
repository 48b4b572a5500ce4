package writebehind

import (
	"context"
	"fmt"
	"time"
)

// Change is a change of one key on its way into the queue.
type Change struct {
	key        string
	payload    []byte
	tags       []string   // under which readers store the value
	lease      string     // the change needs this lease of the key; "": none
	deadline   time.Time  // of the caller
	done       chan error // receives the result
	superseded []*Change  // earlier changes of the key, which share the result
}

// NewChange returns a change of a key.
func NewChange(key string, r Record) *Change {
	return &Change{key: key, payload: r.Encode(), tags: r.Tags, done: make(chan error, 1)}
}

// finish gives the result to the caller, and to the callers of superseded changes.
func (c *Change) finish(err error) {
	c.done <- err
	for _, earlier := range c.superseded {
		earlier.finish(err)
	}
	c.superseded = nil
}

// wait returns the result.
func (c *Change) wait(ctx context.Context) error {
	select {
	case err := <-c.done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrNotQueued, ctx.Err())
	}
}

// dropExpired returns the changes whose callers still wait. The other callers get
// ErrNotQueued: after the caller's deadline another instance may have queued a later
// change.
func dropExpired(list []*Change) (left []*Change) {
	now := time.Now()
	for _, c := range list {
		if now.Before(c.deadline) {
			left = append(left, c)
		} else {
			c.finish(fmt.Errorf("%w: %w", ErrNotQueued, context.DeadlineExceeded))
		}
	}
	return left
}

// coalesce returns the last change of each key. Earlier changes of the key share its
// result.
func (s *shared) coalesce(list []*Change) []*Change {
	last := make(map[string]int, len(list))
	latest := make([]*Change, 0, len(list))
	for _, c := range list {
		i, ok := last[c.key]
		if !ok {
			last[c.key] = len(latest)
			latest = append(latest, c)
			continue
		}
		s.counters.coalesced.Add(1)
		c.superseded = append(c.superseded, latest[i])
		latest[i] = c
	}
	return latest
}
