package coherence

import (
	"math/bits"
	"time"

	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/tier"
)

// The deadline of an intent is a time on the clock of its partition's server (R24). An
// instance that has heard of the beginning lets go of its own copies at that time, by its
// own clock, whatever it hears meanwhile, but for the intent's end:
//
//	begun, heard, copy read, the writer dies      the copy goes at the deadline; so does what
//	                                              the tier has, by itself
//	copy read, begun, deadline, heard             the copy goes when the beginning is heard of,
//	                                              which is before it is legal again
//	begun, adopted, copy read                     the head tells the latest deadline of all that
//	                                              have begun: until then nothing is kept of it
//	deadline here, copy read anew, deadline of    nothing is kept of the partition from the
//	the server                                    earliest moment at which the server's clock may
//	                                              be there to the latest
//	read of the tier, deadline here, reply        the deadline comes once more at the latest
//	                                              such moment: what was read or loaded from
//	                                              before it is fenced
//	adopted, load, deadline, end of the load      the same: an era item comes at that moment
//	server's clock set                            what was reckoned is void: the partition is
//	                                              aged, and as if it had just been adopted
//	closed, heard before the beginning            the deadline comes for nothing

// serverClock is what is known of a server's clock: what has to be added to a time of it, in
// nanoseconds, to get one on the engine's.
type serverClock struct {
	known            bool
	earliest, latest int64
	at               int64 // when it was read
}

// readClocks notes the clocks of the servers that have answered what was asked at a time.
func (s *shared) readClocks(heads []tier.Head, sent int64) {
	received := s.local.Now()
	s.follow.Lock()
	defer s.follow.Unlock()
	for p := range heads {
		if h := &heads[p]; h.Err == nil && h.Now > 0 && p < len(s.parts) {
			now := h.Now * int64(time.Millisecond)
			was := s.parts[p].clock
			is := serverClock{true, sent - now - int64(time.Millisecond), received - now + int64(time.Millisecond), received}
			s.parts[p].clock = is
			drift := (received - was.at) / 500
			if was.known && (is.earliest > was.latest+drift || is.latest < was.earliest-drift) {
				s.doubt(p, h) // the clock was set: deadlines come at other times than were reckoned
				s.age(p)
			}
		}
	}
}

// reached returns the earliest and the latest moment at which a server's clock may be at
// a time.
func (c *serverClock) reached(now, at int64) (earliest, latest int64) {
	at *= int64(time.Millisecond)
	drift := max(0, at+c.latest-now) / 500 // clocks run at rates that differ a little
	return at + c.earliest - drift, at + c.latest + drift
}

// doubt notes until when there may be intents that this instance has not heard of: those
// that had begun when a head was read from which it follows, or, where the server is
// another than before, by another clock. It comes before the partition is aged: what is
// read after that must not be kept. The caller holds follow.
func (s *shared) doubt(p int, h *tier.Head) {
	f := &s.parts[p]
	if h.Until < h.Now || !f.clock.known {
		return
	}
	_, last := f.clock.reached(s.local.Now(), h.Until)
	s.Doubt(p, last)
	s.local.Announce(local.Deadline{At: last, Items: []tier.Item{local.EraItem(p)}}) // for what has begun to be read or loaded before
}

func (s *shared) Doubt(p int, until int64) {
	for d := &s.parts[p].doubtful; ; {
		was := d.Load()
		if was >= until || d.CompareAndSwap(was, until) {
			return
		}
	}
}

// Doubtful reports whether an entry may be covered by an intent that this instance has
// not heard of. The tier knows; no copy is kept.
func (s *shared) Doubtful(mask uint64, now int64) bool {
	for ; mask != 0; mask &= mask - 1 {
		if now < s.parts[bits.TrailingZeros64(mask)].doubtful.Load() {
			return true
		}
	}
	return false
}

// intent applies what the log tells of a writer's intent; false: it is another item. The
// caller holds follow.
func (s *shared) intent(p int, it tier.Item) bool {
	switch it.Kind {
	case tier.Closed:
		s.local.TakeBack(it.Value, p)
		return true
	case tier.Begun:
	default:
		return false
	}
	in, _ := tier.IntentOf(it) // the item has been checked
	if f := &s.parts[p]; f.clock.known {
		now := s.local.Now()
		first, last := f.clock.reached(now, in.Deadline)
		if now >= first { // before anything is verified
			s.Doubt(p, last)
			s.local.Fence([]tier.Item{in.Item})
			if now < last {
				s.local.Announce(local.Deadline{At: last, Items: []tier.Item{in.Item}, ID: in.ID})
			}
			return true
		}
		s.local.Announce(local.Deadline{At: first, Doubt: last, Items: []tier.Item{in.Item}, ID: in.ID})
	}
	return true
}
