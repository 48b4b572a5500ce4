package local

import (
	"sync/atomic"

	"github.com/larderhq/larder/core/internal/glob"
)

// sweeps are the patterns that were invalidated last. A scan of the whole tier for each of them
// would take long. Instead, a lookup compares its entry with the patterns that came since the
// last comparison. The journal's lock guards all fields except head.
type sweeps struct {
	head    atomic.Uint64 // the position after the last pattern
	list    []sweep
	trimmed uint64 // an entry that was last compared before this position counts as matched
	until   int64  // the time of the last pattern that is no longer listed
}

type sweep struct {
	position uint64
	glob     string
	at       int64 // when it was last applied
}

// maxSweeps bounds the list. An entry that was not compared with a pattern while it was listed
// counts as matched.
const maxSweeps = 256

func (s *sweeps) add(position uint64, pattern string, now int64) {
	if n := len(s.list); n > 0 && s.list[n-1].glob == pattern {
		s.list[n-1].position, s.list[n-1].at = position, now
	} else {
		if n == maxSweeps {
			s.trimmed, s.until = s.list[maxSweeps/2].position+1, s.list[maxSweeps/2].at
			s.list = append(s.list[:0], s.list[maxSweeps/2+1:]...)
		}
		s.list = append(s.list, sweep{position, pattern, now})
	}
	s.head.Store(position + 1)
}

// swept reports whether a pattern since the last comparison of en matches key.
func (c *Cache) swept(key string, en *Entry) bool {
	c.journal.mu.RLock()
	defer c.journal.mu.RUnlock()
	from := en.compared.Load()
	if from < c.sweeps.trimmed {
		return true
	}
	name := Name(key)
	for i := len(c.sweeps.list) - 1; i >= 0 && c.sweeps.list[i].position >= from; i-- {
		if glob.Match(c.sweeps.list[i].glob, name) {
			return true
		}
	}
	en.compared.Store(c.journal.head)
	return false
}

// SweptSince reports whether a pattern that matches key has been applied since a time.
func (c *Cache) SweptSince(key string, at int64) bool {
	c.journal.mu.RLock()
	defer c.journal.mu.RUnlock()
	name := Name(key)
	for i := len(c.sweeps.list) - 1; i >= 0 && c.sweeps.list[i].at >= at; i-- {
		if glob.Match(c.sweeps.list[i].glob, name) {
			return true
		}
	}
	return c.sweeps.until >= at && c.sweeps.until != 0
}
