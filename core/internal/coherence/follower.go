package coherence

import (
	"slices"
	"sync/atomic"

	"github.com/larderhq/larder/core/internal/tier"
)

// follower is what this instance knows of one partition. partitions.follow guards the
// fields that are not atomic.
type follower struct {
	verified atomic.Int64                  // when the last successful question for the head was sent, on the engine's clock; 0: never
	position atomic.Pointer[tier.Position] // every item up to it has been applied; nil: no position
	doubtful atomic.Int64                  // until when no copy is kept in this process, see doubt

	eras    eraHistory
	applied tokenRing              // the items that were applied last
	early   map[string]tier.Logged // hints that arrived before their predecessors, by the predecessor's token
	server  partitionServer
}

// partitionServer is the server of one partition, as far as this instance knows it.
type partitionServer struct {
	id       string
	clock    serverClock
	own      tier.Position           // of the last item that a call of this instance has appended there
	failures atomic.Int32            // consecutive failures of requests, for this partition
	breaker  atomic.Pointer[breaker] // of the server
}

// eraHistory is what is known of the eras of one partition.
type eraHistory struct {
	current atomic.Pointer[string] // nil or "": not known at present
	last    string                 // the era that was learned last, also if its end has been heard since
	begun   int64                  // when the last era began, on the server's clock; 0: not known
	ended   int                    // number of ends: a head that was requested before the last end may still report the era that has ended
	retired tokenRing              // eras that are over for certain: none of them returns
}

// tokenRing holds the tokens that were added last.
type tokenRing struct {
	tokens [32]string
	next   int
}

func (r *tokenRing) add(token string) {
	r.tokens[r.next%len(r.tokens)] = token
	r.next++
}

func (r *tokenRing) has(token string) bool { return slices.Contains(r.tokens[:], token) }

// legal reports whether the partition was verified less than delta ago.
func (f *follower) legal(now, delta int64) bool {
	v := f.verified.Load()
	return v != 0 && now-v < delta
}

// era returns the partition's era, "" if it is not known at present.
func (f *follower) era() string {
	if era := f.eras.current.Load(); era != nil {
		return *era
	}
	return ""
}

func (f *follower) setEra(era string) { f.eras.current.Store(&era) }

// endEra records the end of an era. The head has the next one. endEra is called before the
// entries of the era are fenced: an entry that is read between the two calls is compared
// with no era, and therefore not kept.
//
// A hint may be old. Only a head, or a call of this instance, proves that an era is over
// (retire).
func (f *follower) endEra() {
	f.eras.ended++
	f.setEra("")
}

// retire records that an era is over for certain.
func (f *follower) retire(era string) {
	if era != "" && !f.retired(era) {
		f.eras.retired.add(era)
	}
}

func (f *follower) retired(era string) bool { return era != "" && f.eras.retired.has(era) }

// advance moves the position to the next item, and further over the hints that arrived
// before it.
func (f *follower) advance(it *tier.Logged) {
	for {
		next := it.Position
		f.position.Store(&next)
		after, ok := f.early[next.Token]
		if !ok {
			return
		}
		delete(f.early, next.Token)
		it = &after
	}
}

// maxEarly bounds the hints that wait for their predecessors. Beyond it the watchdog reads
// the log.
const maxEarly = 256

// postpone keeps a hint until its predecessor has arrived.
func (f *follower) postpone(it *tier.Logged) {
	if f.early == nil || len(f.early) >= maxEarly {
		f.early = make(map[string]tier.Logged)
	}
	f.early[it.Before] = *it
}

// headQuestion is what was known of a partition when its head was requested.
type headQuestion struct {
	sent  int64         // on the engine's clock
	ended int           // number of eras that had ended
	least tier.Position // no head lies before it, unless the tier's data has gone back
}

func (f *follower) question(now int64) headQuestion {
	q := headQuestion{sent: now, ended: f.eras.ended, least: f.server.own}
	if pos := f.position.Load(); pos != nil && !pos.Precedes(q.least) {
		q.least = *pos
	}
	return q
}

// wentBack reports whether a head belongs to an earlier state than one that this instance
// has seen. The data was exchanged or restored in place, and entries that were invalidated
// since are valid there again (R21). Positions and times of two servers are not compared,
// since those of a promoted server may be earlier. The caller holds follow.
func (f *follower) wentBack(h *tier.Head, q *headQuestion) bool {
	switch {
	case f.eras.ended != q.ended: // the head may be from before that end; the next head decides
		return false
	case f.retired(h.Era):
		return true
	case h.Server != f.server.id:
		return false
	case h.Era != f.eras.last && h.Begun != 0 && f.eras.begun != 0: // entries from before a later era are dead
		return h.Begun < f.eras.begun
	}
	return h.Position.Precedes(q.least)
}
