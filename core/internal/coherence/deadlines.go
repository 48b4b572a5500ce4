package coherence

import (
	"math/bits"
	"time"

	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/tier"
)

// The deadline of an intent is a time on the clock of its partition's server (R24). An
// instance that has heard of the Begin removes its own copies at that time, by its own
// clock, unless it has heard of the intent's end. The interleavings:
//
//	begun, heard, copy read, the writer dies      The copy ends at the deadline. The tier's
//	                                              entry expires at the deadline by itself.
//	copy read, begun, deadline, heard             The copy ends when the Begin is heard of,
//	                                              before the partition is legal again.
//	begun, adopted, copy read                     The head has the latest deadline of all
//	                                              intents. Until then no copy is kept.
//	deadline here, copy read again, deadline of   No copy of the partition is kept between
//	the server                                    the earliest and the latest moment at which
//	                                              the server's clock may reach the deadline.
//	read of the tier, deadline here, reply        The deadline is applied once more at the
//	                                              latest such moment. It fences the reads and
//	                                              loads that began before.
//	adopted, load, deadline, end of the load      As above: an era item is applied at that
//	                                              moment.
//	the server's clock is set                     The computed moments are void. The partition
//	                                              is aged and treated as just adopted.
//	closed, heard before the Begin                The deadline removes copies needlessly.

// serverClock is the difference between a server's clock and the engine's: adding it to a
// time of the server, in nanoseconds, gives a time on the engine's clock.
type serverClock struct {
	known            bool
	earliest, latest int64
	at               int64 // when it was read, on the engine's clock
}

// readClocks records the clocks of the servers that have answered a question.
func (s *shared) readClocks(heads []tier.Head, sent int64) {
	received := s.local.Now()
	s.follow.Lock()
	defer s.follow.Unlock()
	for p := range heads {
		if h := &heads[p]; h.Err == nil && h.Now > 0 && p < len(s.parts) {
			now := h.Now * int64(time.Millisecond)
			was := s.parts[p].server.clock
			is := serverClock{true, sent - now - int64(time.Millisecond), received - now + int64(time.Millisecond), received}
			s.parts[p].server.clock = is
			drift := (received - was.at) / 500
			if was.known && (is.earliest > was.latest+drift || is.latest < was.earliest-drift) {
				s.doubt(p, h) // the clock was set: the deadlines come at other times than computed
				s.age(p)
			}
		}
	}
}

// reaches returns the earliest and the latest moment, on the engine's clock, at which the
// server's clock may reach a time.
func (c *serverClock) reaches(at int64) (earliest, latest int64) {
	at *= int64(time.Millisecond)
	// The rates of two clocks differ a little. The error grows from the reading on.
	drift := max(0, at+c.latest-c.at) / 500
	return at + c.earliest - drift, at + c.latest + drift
}

// doubt keeps no copy of a partition until the latest deadline of the intents that this
// instance may not have heard of: those that had begun before the head from which it follows,
// or, on another server than before, those whose deadlines are times of another clock. It is
// called before the partition is aged, so that an entry that is read afterwards is not kept.
// The caller holds follow.
func (s *shared) doubt(p int, h *tier.Head) {
	f := &s.parts[p]
	if h.Until < h.Now || !f.server.clock.known {
		return
	}
	_, last := f.server.clock.reaches(h.Until)
	s.Doubt(p, last)
	// The deadline fences the reads and loads that have begun before.
	s.local.Schedule(local.Deadline{At: last, Items: []tier.Item{local.EraItem(p)}})
}

// Doubt makes a partition doubtful until a time, unless it already is for longer.
func (ps *partitions) Doubt(p int, until int64) {
	for d := &ps.parts[p].doubtful; ; {
		was := d.Load()
		if was >= until || d.CompareAndSwap(was, until) {
			return
		}
	}
}

// Doubtful reports whether an intent of which this instance has not heard may cover an entry
// of the partitions. Such an entry is answered from the tier, and no copy is kept.
func (ps *partitions) Doubtful(mask uint64, now int64) bool {
	for ; mask != 0; mask &= mask - 1 {
		if now < ps.parts[bits.TrailingZeros64(mask)].doubtful.Load() {
			return true
		}
	}
	return false
}

// applyIntent applies an item of an intent, and returns false for any other item. The caller
// holds follow.
func (s *shared) applyIntent(p int, it tier.Item) bool {
	switch it.Kind {
	case tier.Closed:
		s.local.CancelDeadlines(it.Value, p)
		return true
	case tier.Begun:
		s.applyBegun(p, it)
		return true
	}
	return false
}

// applyBegun schedules the deadline of an intent. The caller holds follow.
func (s *shared) applyBegun(p int, it tier.Item) {
	in, _ := tier.IntentOf(it) // the item has been checked
	clock := &s.parts[p].server.clock
	if !clock.known {
		return
	}
	now := s.local.Now()
	first, last := clock.reaches(in.Deadline)
	if now < first {
		s.local.Schedule(local.Deadline{At: first, Doubt: last, Items: []tier.Item{in.Item}, ID: in.ID})
		return
	}
	// The deadline has passed, perhaps: the copies end before the partition is verified.
	s.Doubt(p, last)
	s.local.Fence([]tier.Item{in.Item})
	if now < last {
		s.local.Schedule(local.Deadline{At: last, Items: []tier.Item{in.Item}, ID: in.ID})
	}
}
