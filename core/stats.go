package core

// Stats are the counters of a cache since it was made. All but the last four only grow.
type Stats struct {
	Hits          int64 // requests answered with a fresh entry
	StaleHits     int64 // requests answered with a stale entry, while it is refreshed or in place of an error
	Misses        int64 // requests whose entry was absent, expired or invalidated
	Bypassed      int64 // requests that the cache left alone
	Coalesced     int64 // requests that waited for another request's load
	Loads         int64 // runs of handlers and loaders for a miss or a refresh
	LoadErrors    int64 // Loads that failed
	Panics        int64 // panics of loaders, codecs and clone functions
	Refreshes     int64 // Loads in the background
	Skipped       int64 // refreshes that were left out because Options.MaxRefreshes ran
	Stored        int64 // entries stored
	Refused       int64 // values not stored although the class allows it: invalidated meanwhile, no room, no lifetime
	Invalidations int64 // targets invalidated
	Evicted       int64 // entries evicted for others
	Undecodable   int64 // stored values that did not decode
	Unencodable   int64 // values answered and not stored, since they did not encode, or not decode again
	RemoteHits    int64 // Hits and Misses that the shared tier answered
	RemoteErrors  int64 // calls to the shared tier that failed, were refused or took too long
	OverBudget    int64 // Misses for which Options.RemoteBudget had no time to ask the shared tier
	Deferred      int64 // values answered before the shared tier had them; Stored or Refused later

	Pending int    // invalidations that the shared tier has not confirmed, now
	Entries int    // entries in the in-process tier now, estimated
	Bytes   uint64 // their size in bytes, estimated
	Tags    int    // tags with a generation in this process now, estimated
}

// Stats returns the counters. They are read one by one, so that sums of them may be off
// by concurrent changes.
func (c *Cache) Stats() Stats {
	n, shared := &c.engine.Count, &c.engine.TierCount
	s := Stats{
		Hits: n.Hits.Load(), StaleHits: n.StaleHits.Load(), Misses: n.Misses.Load(),
		Bypassed: n.Bypassed.Load(), Coalesced: n.Coalesced.Load(),
		Loads: n.Loads.Load(), LoadErrors: n.LoadErrors.Load(), Panics: n.Panics.Load(),
		Refreshes: n.Refreshes.Load(), Skipped: n.RefreshesSkipped.Load(),
		Stored: n.Stored.Load(), Refused: n.Refused.Load(),
		Invalidations: n.Invalidations.Load(), Evicted: n.Evicted.Load(), Undecodable: n.Undecodable.Load(), Unencodable: n.Unencodable.Load(),
		RemoteHits: shared.Hits.Load(), RemoteErrors: shared.Errors.Load(),
		OverBudget: shared.OverBudget.Load(), Deferred: shared.Deferred.Load(), Pending: c.engine.Pending(),
		Tags: c.engine.Tags(),
	}
	s.Entries, s.Bytes = c.engine.Size()
	return s
}
