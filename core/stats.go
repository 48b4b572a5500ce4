package core

// Stats counts since the cache was made.
type Stats struct {
	Hits          int64 // answered fresh
	StaleHits     int64 // answered within a stale window, or in place of an error
	Misses        int64 // not there, expired, or invalidated
	Bypassed      int64 // requests that the cache left alone
	Coalesced     int64 // waited for somebody else's load
	Loads         int64 // runs of handlers and loaders for a miss or a refresh
	LoadErrors    int64 // of these, the ones that failed
	Panics        int64 // of loaders
	Refreshes     int64 // loads in the background
	Skipped       int64 // background refreshes left out because Options.MaxRefreshes ran
	Stored        int64 // entries stored
	Refused       int64 // values not stored although the class wanted it: invalidated meanwhile, no room, no lifetime
	Invalidations int64 // targets invalidated
	Evicted       int64 // entries that had to go for others
	Undecodable   int64 // values that did not decode
	Unencodable   int64 // values that were answered and not stored, since they did not encode, or not decode again
	RemoteHits    int64 // answers that the shared tier had, of the hits and misses above
	RemoteErrors  int64 // calls to the shared tier, of requests and of the cache itself, that failed, were refused or took too long
	OverBudget    int64 // misses that Options.RemoteBudget had no time to ask the shared tier about: what was loaded is not what is stored
	Deferred      int64 // values that were answered before the shared tier had them: of Stored or Refused in the end
	Pending       int   // invalidations that the shared tier has not confirmed

	Entries int    // in the in-process tier now, about
	Bytes   uint64 // they take, about
	Tags    int    // with a living generation, about
}

// Stats returns the counters. They are read one by one: their sums may be off by
// what happens meanwhile.
func (c *Cache) Stats() Stats {
	n := &c.engine.Count
	s := Stats{
		Hits: n.Hits.Load(), StaleHits: n.StaleHits.Load(), Misses: n.Misses.Load(),
		Bypassed: n.Bypassed.Load(), Coalesced: n.Coalesced.Load(),
		Loads: n.Loads.Load(), LoadErrors: n.LoadErrors.Load(), Panics: n.Panics.Load(),
		Refreshes: n.Refreshes.Load(), Skipped: n.RefreshesSkipped.Load(),
		Stored: n.Stored.Load(), Refused: n.Refused.Load(),
		Invalidations: n.Invalidations.Load(), Evicted: n.Evicted.Load(), Undecodable: n.Undecodable.Load(), Unencodable: n.Unencodable.Load(),
		RemoteHits: n.RemoteHits.Load(), RemoteErrors: n.RemoteErrors.Load(),
		OverBudget: n.OverBudget.Load(), Deferred: n.Deferred.Load(), Pending: c.engine.Pending(),
		Tags: c.engine.Tags(),
	}
	s.Entries, s.Bytes = c.engine.Size()
	return s
}
