package local

import (
	"sync/atomic"

	"github.com/larderhq/larder/core/internal/glob"
)

// sweeps are the patterns that were invalidated last. To walk through the whole tier
// for each of them would take long, and over a shared tier it comes in many items:
// an entry is compared instead, when it is looked up, with the patterns that came
// since it was compared last. The journal's lock guards all but head.
type sweeps struct {
	head    atomic.Uint64 // behind the last pattern's position
	list    []sweep
	trimmed uint64 // an entry that was compared last before it may match what is no longer listed
	until   int64  // when the last of those was heard of
}

type sweep struct {
	position uint64
	glob     string
	at       int64 // when it was heard of last
}

// maxSweeps is how many different patterns are listed. An entry that misses some
// is gone.
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

// swept reports whether a pattern since it was compared last takes en out.
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

// SweptSince reports whether a pattern that key matches was heard of since a time.
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
