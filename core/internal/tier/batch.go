package tier

import (
	"context"
	"sync"
	"time"
)

// Batch lets calls to a tier go out together that several goroutines make at the
// same time, each for itself: what they would send waits until everybody who is in
// the batch has something to send, or has left, and is then sent at once. It
// changes when a call is sent, never whether or what. A tier that has no use for it
// ignores it.
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
	sent    chan struct{} // closed when it has been
	taken   bool          // it is on its way
}

// NewBatch returns a batch of so many members. Each has to Leave.
func NewBatch(members int) *Batch { return &Batch{members: members} }

type batchKey struct{}

// WithBatch returns a context whose calls belong to a member of the batch.
func WithBatch(ctx context.Context, b *Batch) context.Context {
	return context.WithValue(ctx, batchKey{}, b)
}

// BatchOf returns the batch that calls with a context belong to, nil: none.
func BatchOf(ctx context.Context) *Batch {
	b, _ := ctx.Value(batchKey{}).(*Batch)
	return b
}

// Leave says that a member sends nothing any more.
func (b *Batch) Leave() {
	b.mu.Lock()
	b.members--
	due, ctx := b.due()
	b.mu.Unlock()
	if due != nil {
		b.flush(ctx, due)
	}
}

// Send sends content together with that of the others, by send, which the tier
// gives: the same for all. It returns when that has happened, or ctx's error if it
// ended before: then it was not sent.
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
	<-p.sent // bounded by the context that it was sent with
	return nil
}

// batchWait is how long what is there waits for the others at most, maxBatch how much
// goes out at once: those who wait are counting.
const (
	batchWait = 2 * time.Millisecond
	maxBatch  = 128
)

// flushLate sends what is there although somebody has nothing to send yet.
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

// due takes what waits, if nobody is left who has nothing to send, or there is
// enough. The caller holds the lock.
func (b *Batch) due() ([]*parcel, context.Context) {
	if len(b.waiting) == 0 || len(b.waiting) < min(b.members, maxBatch) {
		return nil, nil
	}
	return b.take()
}

// take takes what waits, and the context that ends last. The caller holds the lock.
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
	if deadline, ok := ctx.Deadline(); ok { // one member's going is not the others'
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(context.WithoutCancel(ctx), deadline)
		defer cancel()
	}
	all[0].send(ctx, contents)
}
