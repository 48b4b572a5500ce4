package queue

import (
	"container/heap"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/larderhq/larder/core/internal/tier"
)

// maxDeadLetters bounds the dead letters of a queue. Beyond it the oldest are evicted.
const maxDeadLetters = 10_000

// State is the queues of one partition, with at most one record for each key. Times and
// versions are microseconds. It is not safe for concurrent use. Arguments have been validated;
// payloads are copied on their way in and out.
//
// Calls have a nonce, "" for none. A call that is executed again finds its nonce in the records
// that no other call has written since, and does not change them.
type State struct {
	records map[string]*record
	queues  map[string]*part
	last    int64 // the last version
	letter  int64 // the id of the last dead letter
}

// record is in one of the two heaps of its queue.
type record struct {
	tier.Queued // the payload is never modified
	queue       string
	by          string // nonce of the call that wrote it
	due         int64  // time of its next attempt; 0: it has not failed
	index       int    // in the heap
}

// part is one queue.
type part struct {
	order   ordered // by First
	retries ordered // by due
	worker  string
	until   int64
	letters []tier.DeadLetter // by ascending id
	letter  map[string]string // the id of each key's dead letter
}

// ordered is a heap of records.
type ordered []*record

func (o ordered) Len() int { return len(o) }

func (o ordered) Less(i, j int) bool {
	if o[i].due != o[j].due {
		return o[i].due < o[j].due
	}
	return o[i].First < o[j].First
}

func (o ordered) Swap(i, j int) {
	o[i], o[j] = o[j], o[i]
	o[i].index, o[j].index = i, j
}

func (o *ordered) Push(v any) {
	r := v.(*record) //nolint:forcetypeassert // only records are pushed
	r.index = len(*o)
	*o = append(*o, r)
}

func (o *ordered) Pop() any {
	last := len(*o) - 1
	r := (*o)[last]
	(*o)[last] = nil
	*o = (*o)[:last]
	return r
}

// NewState returns a State without records.
func NewState() *State {
	return &State{records: map[string]*record{}, queues: map[string]*part{}}
}

// Clone returns a deep copy. Only payloads are shared.
func (s *State) Clone() *State {
	c := &State{records: make(map[string]*record, len(s.records)), queues: make(map[string]*part, len(s.queues)), last: s.last, letter: s.letter}
	for name, p := range s.queues {
		q := *p
		q.order, q.retries = c.adopt(p.order), c.adopt(p.retries)
		q.letters, q.letter = slices.Clone(p.letters), maps.Clone(p.letter)
		c.queues[name] = &q
	}
	return c
}

func (s *State) adopt(of ordered) ordered {
	o := make(ordered, len(of))
	for i, r := range of {
		c := *r
		o[i] = &c
		s.records[r.Key] = &c
	}
	return o
}

// Peek returns the queued change of a key.
func (s *State) Peek(key string) (tier.Queued, bool) {
	r := s.records[key]
	if r == nil {
		return tier.Queued{}, false
	}
	return r.out(), true
}

// out returns a copy for the caller.
func (r *record) out() tier.Queued {
	q := r.Queued
	q.Payload = slices.Clone(q.Payload)
	return q
}

func (s *State) part(queue string) *part {
	p := s.queues[queue]
	if p == nil {
		queue = strings.Clone(queue)
		p = &part{letter: map[string]string{}}
		s.queues[queue] = p
	}
	return p
}

// add adds a record to its queue.
func (s *State) add(r *record) {
	s.records[r.Key] = r
	heap.Push(s.heap(r), r)
}

// remove removes a record from its queue.
func (s *State) remove(r *record) {
	delete(s.records, r.Key)
	heap.Remove(s.heap(r), r.index)
}

func (s *State) heap(r *record) *ordered {
	p := s.part(r.queue)
	if r.due != 0 {
		return &p.retries
	}
	return &p.order
}

// Enqueue implements tier.Queue. It returns the version of each change, 0 or -1 for one that
// is refused. lease reports whether a key has a lease.
func (s *State) Enqueue(e *tier.Enqueue, now int64, nonce string, lease func(key, token string) bool) []int64 {
	p := s.part(e.Queue)
	room := e.Limit - len(p.order) - len(p.retries)
	versions := make([]int64, len(e.Changes))
	for i, c := range e.Changes {
		old := s.records[c.Key]
		here := old != nil && old.queue == e.Queue
		switch {
		case here && nonce != "" && old.by == nonce:
			versions[i] = old.Version
			continue
		case c.Lease != "" && !lease(c.Key, c.Lease):
			versions[i] = -1
			continue
		case !here && room <= 0:
			continue
		}
		s.last = max(now, s.last+1)
		r := &record{
			Queued: tier.Queued{
				Key: strings.Clone(c.Key), Version: s.last, First: s.last, Payload: slices.Clone(c.Payload),
			},
			queue: strings.Clone(e.Queue), by: nonce,
		}
		if here {
			r.First = old.First
		} else {
			room--
		}
		if old != nil {
			s.remove(old)
		}
		s.add(r)
		p.supersede(r.Key)
		versions[i] = r.Version
	}
	return versions
}

// Claim implements tier.Queue.
func (s *State) Claim(c *tier.Claim, now int64) tier.Claimed {
	p := s.part(c.Queue)
	claimed := tier.Claimed{Now: now}
	if p.worker != "" && p.worker != c.Worker && p.until > now {
		claimed.Busy = span(p.until - now)
		return claimed
	}
	p.worker, p.until = strings.Clone(c.Worker), now+max(time.Millisecond, c.Lease).Microseconds()
	if c.Keep {
		return claimed
	}
	most := min(max(0, c.Max), tier.MaxClaim)
	failed, fresh := p.retries.first(most+1, now), p.order.first(most+1, now)
	claimed.More = len(failed)+len(fresh) > most
	// Records that have failed take at most half of the batch while others are due, so that
	// they do not delay the others.
	failed = failed[:min(len(failed), max((most+1)/2, most-len(fresh)))]
	for _, r := range append(failed, fresh[:min(len(fresh), most-len(failed))]...) {
		claimed.Records = append(claimed.Records, r.out())
	}
	if due := p.retries.after(now); due > 0 {
		claimed.Next = span(due - now)
	}
	return claimed
}

// first returns the first n that are due.
func (o *ordered) first(n int, now int64) (list []*record) {
	for len(list) < n && o.Len() > 0 && (*o)[0].due <= now {
		list = append(list, heap.Pop(o).(*record)) //nolint:forcetypeassert // only records are pushed
	}
	for _, r := range list {
		heap.Push(o, r)
	}
	return list
}

// after returns the earliest time after now at which a record is due, 0 if there is none.
func (o ordered) after(now int64) (due int64) {
	for _, r := range o {
		if r.due > now && (due == 0 || r.due < due) {
			due = r.due
		}
	}
	return due
}

func span(micros int64) time.Duration { return time.Duration(micros) * time.Microsecond }

// Settle implements tier.Queue.
func (s *State) Settle(st *tier.Settle, now int64, nonce string) tier.Settlement {
	p := s.part(st.Queue)
	done := tier.Settlement{
		Held:  p.worker == st.Worker && p.until > now,
		Newer: make([]bool, len(st.Records)),
	}
	for i, of := range st.Records {
		r := s.records[of.Key]
		done.Newer[i] = r != nil && r.Version != of.Version
		if done.Held && r != nil && r.queue == st.Queue {
			s.settle(p, r, of, now, nonce)
		}
	}
	if done.Held && st.Release {
		p.worker = ""
	}
	return done
}

func (s *State) settle(p *part, r *record, of tier.Settled, now int64, nonce string) {
	applied := of.Retry <= 0 && of.Dead == ""
	again := *r
	switch {
	case r.Version != of.Version:
		if !applied {
			return
		}
		// The oldest change that is not applied is the one after the settled version: the
		// record's own, or one that the record has replaced.
		again.First = min(of.Version+1, r.Version)
	case of.Dead != "":
		s.addDead(p, r, of.Dead, now)
		s.remove(r)
		return
	case applied:
		s.remove(r)
		return
	case nonce != "" && r.by == nonce:
		return
	default:
		again.Attempts++
		again.by, again.due = nonce, now+max(time.Millisecond, of.Retry).Microseconds()
	}
	s.remove(r)
	s.add(&again)
}

// addDead makes a record a dead letter.
func (s *State) addDead(p *part, r *record, reason string, now int64) {
	s.letter = max(now, s.letter+1)
	l := tier.DeadLetter{ID: strconv.FormatInt(s.letter, 10), Queued: r.Queued, Reason: strings.Clone(reason)}
	l.Attempts++
	p.letters = append(p.letters, l)
	p.letter[r.Key] = l.ID
	for len(p.letters) > maxDeadLetters {
		p.removeDead(0)
	}
}

// removeDead removes a dead letter.
func (p *part) removeDead(i int) {
	if l := p.letters[i]; p.letter[l.Key] == l.ID {
		delete(p.letter, l.Key)
	}
	p.letters = slices.Delete(p.letters, i, i+1)
}

// supersede removes the dead letter of a key.
func (p *part) supersede(key string) {
	if id, ok := p.letter[key]; ok {
		if i := p.find(id); i >= 0 {
			p.removeDead(i)
		}
	}
}

// find returns the index of a dead letter, -1 if there is none.
func (p *part) find(id string) int {
	return slices.IndexFunc(p.letters, func(l tier.DeadLetter) bool { return l.ID == id })
}

// State returns the state of a queue.
func (s *State) State(queue string, now int64) tier.QueueState {
	st := tier.QueueState{Last: s.last, Now: now}
	p := s.queues[queue]
	if p == nil {
		return st
	}
	st.Retrying, st.Dead = len(p.retries), len(p.letters)
	st.Depth = st.Retrying + len(p.order)
	if len(p.order) > 0 {
		st.First = p.order[0].First
	}
	for _, r := range p.retries {
		if st.First == 0 || r.First < st.First {
			st.First = r.First
		}
	}
	return st
}

// DeadLetters implements tier.Queue.
func (s *State) DeadLetters(queue, after string, n int) ([]tier.DeadLetter, error) {
	from := int64(0)
	if after != "" {
		var err error
		if from, err = strconv.ParseInt(after, 10, 64); err != nil {
			return nil, fmt.Errorf("no id of a dead letter: %q", after)
		}
	}
	p := s.queues[queue]
	if p == nil {
		return nil, nil
	}
	var letters []tier.DeadLetter
	for _, l := range p.letters {
		if id, _ := strconv.ParseInt(l.ID, 10, 64); id <= from {
			continue
		}
		if len(letters) >= min(n, tier.MaxClaim) {
			break
		}
		l.Payload = slices.Clone(l.Payload)
		letters = append(letters, l)
	}
	return letters, nil
}

// Replay implements tier.Queue. It also returns the key of the change that it has queued, which
// has to be invalidated, "" if it has queued none.
func (s *State) Replay(queue, id string, now int64, nonce string) (key string, ok bool) {
	p := s.part(queue)
	i := p.find(id)
	if i < 0 {
		return "", s.wrote(nonce)
	}
	l := p.letters[i]
	p.removeDead(i)
	if s.records[l.Key] != nil {
		return "", false // the queued change is newer
	}
	s.last = max(now, s.last+1)
	s.add(&record{
		Queued: tier.Queued{Key: l.Key, Version: s.last, First: s.last, Payload: l.Payload},
		queue:  strings.Clone(queue), by: nonce,
	})
	return l.Key, true
}

// Discard implements tier.Queue.
func (s *State) Discard(queue, id string) (ok bool) {
	p := s.part(queue)
	i := p.find(id)
	if i < 0 {
		return false
	}
	p.removeDead(i)
	return true
}

// wrote reports whether the call with a nonce has written a record.
func (s *State) wrote(nonce string) bool {
	for _, r := range s.records {
		if nonce != "" && r.by == nonce {
			return true
		}
	}
	return false
}
