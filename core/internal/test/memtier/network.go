package memtier

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Faults are the faults of the network. Without faults calls are executed at once, and hints are
// delivered in order. Probabilities are from 0 to 1.
type Faults struct {
	// Request and Reply are the delays of the two directions. A caller whose context ends during
	// one gets an error, and the request is executed all the same.
	Request, Reply Delay
	// Slow is the probability that a direction takes SlowBy longer.
	Slow   float64
	SlowBy Delay

	RequestLost float64 // not executed
	ReplyLost   float64 // executed
	// Resent is the probability that the client library resends a lost request instead of
	// returning an error. The step may then be executed twice.
	Resent float64
	// Silent is the probability that the caller gets no error for a loss until its context ends.
	Silent float64

	HintLost, HintTwice float64
	HintDelay           Delay
	HintReordered       float64 // it does not wait for those published before it
	HintCut             float64 // the subscriber that should get it is cut
}

// Delay is a duration drawn evenly from Min to Max.
type Delay struct{ Min, Max time.Duration }

var (
	errConn     = errors.New("memtier: connection lost")
	errDown     = errors.New("memtier: connection refused")
	errFull     = errors.New("memtier: OOM command not allowed when used memory > 'maxmemory'")
	errTryAgain = errors.New("memtier: TRYAGAIN multiple keys request during rehashing of slot")
	errClosed   = errors.New("memtier: the session is closed")
	errStopped  = errors.New("memtier: the server is closed")
)

// maxResent bounds how often a library resends one request.
const maxResent = 3

// draw returns a duration. The caller holds mu.
func (s *Server) draw(d Delay) time.Duration {
	if d.Max <= d.Min {
		return d.Min
	}
	return d.Min + time.Duration(s.rng.Int64N(int64(d.Max-d.Min)+1))
}

// chance returns true with a probability. The caller holds mu.
func (s *Server) chance(p float64) bool { return p > 0 && s.rng.Float64() < p }

// way returns the delay of one direction. The caller holds mu.
func (s *Server) way(d Delay) time.Duration {
	t := s.draw(d)
	if s.chance(s.faults.Slow) {
		t += s.draw(s.faults.SlowBy)
	}
	return t
}

// attempt is the planned course of a request.
type attempt struct {
	request, reply         time.Duration
	requestLost, replyLost bool
	resent, silent         bool
	conn                   chan struct{}
}

// perfect reports whether the request is executed without delay or loss.
func (a *attempt) perfect() bool {
	return a.request == 0 && a.reply == 0 && !a.requestLost && !a.replyLost
}

// plan draws an attempt. The caller holds mu.
func (s *Server) plan(partition int) attempt {
	f := &s.faults
	return attempt{
		request: s.way(f.Request), reply: s.way(f.Reply),
		requestLost: s.chance(f.RequestLost), replyLost: s.chance(f.ReplyLost),
		resent: s.chance(f.Resent), silent: s.chance(f.Silent),
		conn: s.shards[partition].conn,
	}
}

// call is a pending request.
type call[T any] struct {
	session   *session
	partition int
	nonce     string
	op        func(*step) (T, error)
	left      chan struct{} // closed when the caller does not wait any more
}

type reply[T any] struct {
	value T
	err   error
}

// do sends a request to the server of a partition. op is executed there as one step, possibly
// twice, and possibly after do has returned. It must therefore not use memory of the caller.
func do[T any](ctx context.Context, c *session, partition int, op func(*step) (T, error)) (T, error) {
	var zero T
	if err := c.ready(ctx); err != nil {
		return zero, err
	}
	s := c.server
	r := &call[T]{session: c, partition: partition, nonce: c.nonce(), op: op, left: make(chan struct{})}
	s.mu.Lock()
	first := s.plan(partition)
	if sh := &s.shards[partition]; first.perfect() && sh.thawed == nil && !sh.down {
		defer s.mu.Unlock()
		return r.execute()
	}
	s.mu.Unlock()

	out := make(chan reply[T], 1)
	go r.send(first, out)
	select {
	case got := <-out:
		return got.value, got.err
	case <-ctx.Done():
		close(r.left)
		s.mu.Lock()
		s.stats.Abandoned++
		s.mu.Unlock()
		return zero, fmt.Errorf("memtier: no reply: %w", context.Cause(ctx))
	case <-c.closed:
		close(r.left)
		return zero, errClosed
	case <-s.stop:
		close(r.left)
		return zero, errStopped
	case <-c.tier.killed:
		close(r.left)
		return zero, c.ready(ctx)
	}
}

// execute executes the step. The caller holds mu.
func (r *call[T]) execute() (T, error) {
	s := r.session.server
	sh := &s.shards[r.partition]
	s.stats.Executed++
	st := &step{
		space:  s.space(where{r.session.layout.Namespace, r.partition}),
		server: s, session: r.session, shard: sh, partition: r.partition,
		now:   time.Now().Add(sh.skew).UnixMilli(),
		nonce: r.nonce,
	}
	defer st.tidy(st.now, s.history)
	return r.op(st)
}

// send sends a request, and resends it as the client library does.
func (r *call[T]) send(a attempt, out chan<- reply[T]) {
	s := r.session.server
	for resent := 0; ; resent++ {
		got, lost := r.once(a)
		if !lost {
			out <- got
			return
		}
		if !a.resent || resent == maxResent {
			if !a.silent {
				out <- got
			}
			return
		}
		s.mu.Lock()
		s.stats.Resent++
		a = s.plan(r.partition)
		s.mu.Unlock()
	}
}

// once makes one attempt. lost: no reply arrived.
func (r *call[T]) once(a attempt) (got reply[T], lost bool) {
	s := r.session.server
	if err := s.sleep(a.request, a.conn); err != nil {
		return reply[T]{err: err}, true
	}
	if a.requestLost {
		s.mu.Lock()
		s.stats.LostRequests++
		s.mu.Unlock()
		return reply[T]{err: errConn}, true
	}
	if err := s.admit(r.partition, a.conn); err != nil {
		return reply[T]{err: err}, true
	}
	// mu is held.
	select {
	case <-r.session.tier.killed:
		if s.chance(0.5) { // what was in flight may have been sent or not
			s.mu.Unlock()
			return reply[T]{err: errConn}, true
		}
	default:
	}
	select {
	case <-r.left:
		s.stats.ExecutedLate++
	default:
	}
	got.value, got.err = r.execute()
	if a.replyLost {
		s.stats.LostReplies++
	}
	s.mu.Unlock()
	if err := s.sleep(a.reply, a.conn); err != nil {
		return reply[T]{err: err}, true
	}
	if a.replyLost {
		return reply[T]{err: errConn}, true
	}
	return got, false
}

// admit waits until the server of a partition accepts a request of the connection. Without an
// error it returns with mu held.
func (s *Server) admit(partition int, conn chan struct{}) error {
	for {
		s.mu.Lock()
		sh := &s.shards[partition]
		switch {
		case sh.down:
			s.mu.Unlock()
			return errDown
		case sh.conn != conn:
			s.mu.Unlock()
			return errConn
		case sh.thawed == nil:
			return nil
		}
		thawed := sh.thawed
		s.mu.Unlock()
		select {
		case <-thawed:
		case <-conn:
		case <-s.stop:
			return errStopped
		}
	}
}

// sleep waits, unless the connection breaks.
func (s *Server) sleep(d time.Duration, conn chan struct{}) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-conn:
		return errConn
	case <-s.stop:
		return errStopped
	}
}

// all returns every partition.
func (c *session) all() []int {
	all := make([]int, c.partitions())
	for i := range all {
		all[i] = i
	}
	return all
}

// each calls fn for every partition, at the same time where the network is not
// perfect, and returns the first error.
func (c *session) each(partitions []int, fn func(partition int) error) error {
	s := c.server
	s.mu.Lock()
	perfect := s.faults == Faults{}
	for p := range s.shards {
		perfect = perfect && s.shards[p].thawed == nil // a suspended partition would delay the others
	}
	s.mu.Unlock()
	if perfect || len(partitions) == 1 {
		var first error
		for _, p := range partitions {
			if err := fn(p); err != nil && first == nil {
				first = err
			}
		}
		return first
	}
	errs := make(chan error, len(partitions))
	var wg sync.WaitGroup
	for _, p := range partitions {
		wg.Add(1)
		go func() {
			defer wg.Done()
			errs <- fn(p)
		}()
	}
	wg.Wait()
	close(errs)
	var first error
	for err := range errs {
		if first == nil {
			first = err
		}
	}
	return first
}
