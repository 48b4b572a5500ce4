package memtier

import (
	"math/rand/v2"
	"slices"
	"time"
)

// SetFaults replaces the faults of the network.
func (s *Server) SetFaults(f Faults) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = f
}

// Skew sets how far the clocks of partitions (default: all) are ahead.
func (s *Server) Skew(d time.Duration, partitions ...int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range s.partitions(partitions) {
		s.shards[i].skew = d
	}
}

// Down makes requests to partitions (default: all) fail, or ends that. Requests
// in progress fail as well, and subscribers are cut off.
func (s *Server) Down(down bool, partitions ...int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range s.partitions(partitions) {
		s.shards[i].down = down
		if down {
			s.shards[i].disconnect()
		}
	}
	if down {
		s.cut(nil)
	}
}

// Freeze makes requests to partitions (default: all) wait, or ends that. The end executes the
// waiting requests, including those of callers that have left.
func (s *Server) Freeze(frozen bool, partitions ...int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range s.partitions(partitions) {
		sh := &s.shards[i]
		switch {
		case frozen && sh.thawed == nil:
			sh.thawed = make(chan struct{})
		case !frozen && sh.thawed != nil:
			close(sh.thawed)
			sh.thawed = nil
		}
	}
}

// Full sets whether memory has run out, without evictions. Requests that need memory are refused.
// Changes remove their targets and then fail.
func (s *Server) Full(full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.full = full
}

// Migrating sets whether a partition is being moved to another server.
func (s *Server) Migrating(partition int, migrating bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shards[partition].migrating = migrating
}

// CutHints cuts every subscriber.
func (s *Server) CutHints() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut(nil)
}

// Restart restarts the servers of partitions (default: all) with their data.
func (s *Server) Restart(partitions ...int) { s.LoseLast(0, partitions...) }

// LoseLast makes a failover of partitions (default: all) that loses the writes of the last d, at
// most those within Config.History.
func (s *Server) LoseLast(d time.Duration, partitions ...int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	lost := s.partitions(partitions)
	for w, sp := range s.spaces {
		if d > 0 && slices.Contains(lost, w.partition) {
			sp.loseLast(d)
		}
	}
	s.restart(lost)
}

// Flush removes everything, under the same server ids.
func (s *Server) Flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sp := range s.spaces {
		sp.clear()
	}
}

// Snapshot is a state of a server.
type Snapshot struct{ spaces map[where]*space }

// Snapshot returns the present state.
func (s *Server) Snapshot() Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Snapshot{cloneSpaces(s.spaces)}
}

// Restore restarts the servers from an older state.
func (s *Server) Restore(snap Snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spaces = cloneSpaces(snap.spaces)
	s.restart(s.partitions(nil))
}

// Swap exchanges the data for another state, as SWAPDB or a restore in place does. The servers
// keep their ids, and no client is disconnected. It returns the former state. A zero Snapshot is
// empty.
func (s *Server) Swap(snap Snapshot) (was Snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was = Snapshot{s.spaces}
	s.spaces = cloneSpaces(snap.spaces)
	return was
}

func cloneSpaces(spaces map[where]*space) map[where]*space {
	c := make(map[where]*space, len(spaces))
	for w, sp := range spaces {
		c[w] = sp.clone()
	}
	return c
}

// Evict removes one key, drawn from those of the kinds (default: all except Queue), and returns
// its kind.
//
// The protocol has no protection against the loss of Intents: it cannot notice a writer that dies
// after the eviction of its intent.
func (s *Server) Evict(rng *rand.Rand, kinds ...Kind) (kind Kind, name string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	type found struct {
		where
		key
	}
	var all []found
	for w, sp := range s.spaces {
		for k := range sp.keys {
			if len(kinds) == 0 && k.kind != Queue || slices.Contains(kinds, k.kind) {
				all = append(all, found{w, k})
			}
		}
	}
	if len(all) == 0 {
		return 0, "", false
	}
	// In a fixed order, so that a seed draws the same key again.
	slices.SortFunc(all, func(a, b found) int {
		if a.partition != b.partition {
			return a.partition - b.partition
		}
		return compareKeys(a.key, b.key)
	})
	f := all[rng.IntN(len(all))]
	s.spaces[f.where].del(f.key)
	s.stats.EvictedKeys++
	return f.kind, f.name, true
}

// EvictKey removes a value of a namespace and reports whether it was there. The name of an
// entry or lease is its key (all versions are removed), the name of a generation its tag, the
// name of intents their key or tag. Heads, logs, queues and the layout have no name.
func (s *Server) EvictKey(namespace string, partition int, kind Kind, name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if kind == Layout {
		partition = layoutShard
	}
	sp, gone := s.space(where{namespace, partition}), false
	for k := range sp.keys {
		if k.kind == kind && (k.name == name || kind == Intents && k.name != "" && k.name[1:] == name) {
			sp.del(k)
			gone = true
		}
	}
	return gone
}

// Keys returns the number of keys, including expired keys that have not been removed yet.
func (s *Server) Keys() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, sp := range s.spaces {
		n += len(sp.keys)
	}
	return n
}
