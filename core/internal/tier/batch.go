package tier

import (
	"context"
	"sync"
	"time"
)

// Batch pipelines the calls that several goroutines (its members) make concurrently. A call
// waits until every member has a call to send or has left; then all are sent in one step.
// A batch changes the time at which a call is sent, and nothing else. A tier may ignore it.
type Batch struct {
	mu      sync.Mutex
	members int
	waiting []*parcel
	late    *time.Timer
}

type parcel struct {
	content any
	send    func(ctx context.Context, all []any)
	ctx     context.Context
	sent    chan struct{} // closed once it has been sent
	taken   bool          // it is being sent
}

// NewBatch returns a batch with a number of members. Each of them must call Leave.
func NewBatch(members int) *Batch { return &Batch{members: members} }

type batchKey struct{}

// WithBatch returns a context for the calls of a member of the batch.
func WithBatch(ctx context.Context, b *Batch) context.Context {
	return context.WithValue(ctx, batchKey{}, b)
}

// BatchOf returns the batch of a context, nil if there is none.
func BatchOf(ctx context.Context) *Batch {
	b, _ := ctx.Value(batchKey{}).(*Batch)
	return b
}

// Leave removes a member, which sends nothing more.
func (b *Batch) Leave() {
	b.mu.Lock()
	b.members--
	due, ctx := b.due()
	b.mu.Unlock()
	if due != nil {
		b.flush(ctx, due)
	}
}

// Send passes content, together with that of the other members, to send, which is the same
// function in all calls. It returns after send has returned. If ctx ends before content is
// taken, Send returns ctx's error, and content is not sent.
func (b *Batch) Send(ctx context.Context, content any, send func(ctx context.Context, all []any)) error {
	p := &parcel{content: content, send: send, ctx: ctx, sent: make(chan struct{})}
	b.mu.Lock()
	b.waiting = append(b.waiting, p)
	due, with := b.due()
	if due == nil && b.late == nil {
		b.late = time.AfterFunc(batchWait, b.flushLate)
	}
	b.mu.Unlock()
	if due != nil {
		b.flush(with, due)
	}
	select {
	case <-p.sent:
		return nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	taken := p.taken
	if !taken {
		for i, other := range b.waiting {
			if other == p {
				b.waiting = append(b.waiting[:i], b.waiting[i+1:]...)
				break
			}
		}
	}
	b.mu.Unlock()
	if !taken {
		return ctx.Err()
	}
	<-p.sent // bounded by the context of send
	return nil
}

// batchWait is the longest time for which a call waits for those of other members. maxBatch
// is the number of waiting calls at which a batch is sent in any case.
const (
	batchWait = 2 * time.Millisecond
	maxBatch  = 128
)

// flushLate sends the waiting calls although some members have none yet.
func (b *Batch) flushLate() {
	b.mu.Lock()
	b.late = nil
	var all []*parcel
	var with context.Context
	if len(b.waiting) > 0 {
		all, with = b.take()
	}
	b.mu.Unlock()
	if all != nil {
		b.flush(with, all)
	}
}

// due takes the waiting calls if every member has one, or if there are maxBatch of them. The
// caller holds the lock.
func (b *Batch) due() ([]*parcel, context.Context) {
	if len(b.waiting) == 0 || len(b.waiting) < min(b.members, maxBatch) {
		return nil, nil
	}
	return b.take()
}

// take takes the waiting calls, and the context that ends last. The caller holds the lock.
func (b *Batch) take() ([]*parcel, context.Context) {
	if b.late != nil {
		b.late.Stop()
		b.late = nil
	}
	all := b.waiting
	b.waiting = nil
	with := all[0].ctx
	latest, _ := with.Deadline()
	for _, p := range all {
		p.taken = true
		if d, ok := p.ctx.Deadline(); ok && d.After(latest) {
			latest, with = d, p.ctx
		}
	}
	return all, with
}

func (b *Batch) flush(ctx context.Context, all []*parcel) {
	contents := make([]any, len(all))
	for i, p := range all {
		contents[i] = p.content
	}
	defer func() {
		for _, p := range all {
			close(p.sent)
		}
	}()
	if deadline, ok := ctx.Deadline(); ok { // one member's cancellation does not cancel the others' calls
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(context.WithoutCancel(ctx), deadline)
		defer cancel()
	}
	all[0].send(ctx, contents)
}
