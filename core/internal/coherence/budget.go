package coherence

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/tier"
)

// budget is the rest of the time for which a request may wait for the tier.
type budget struct {
	s    *shared
	left time.Duration
	// exceeded: a question was not sent, or was cut off, for lack of time.
	exceeded bool
}

// errSpent is the error of a call that had too little time to prove anything about the tier.
var errSpent = errors.New("larder: the request has used up the time for which it may wait for the shared tier")

// use runs fn within the rest of the budget. The error is errSpent if that was too short
// for a failure to prove anything about the tier.
func (b *budget) use(ctx context.Context, fn func(context.Context) error) error {
	if b.left <= 0 || !b.s.fits(b.left) {
		b.exceeded = true
		return errSpent
	}
	had, start := b.left, time.Now()
	// The context of a load may state the deadline of its client. The load does not end
	// there, since other requests wait for it.
	ctx, cancel := context.WithTimeout(local.WithoutDeadline(ctx), b.left)
	defer cancel()
	err := fn(ctx)
	b.left -= time.Since(start)
	// A connection may notice its deadline a moment before the context does.
	if err != nil && (errors.Is(ctx.Err(), context.DeadlineExceeded) || b.left < time.Millisecond) {
		b.exceeded = true
		if had < b.s.conclusive() {
			return fmt.Errorf("%w: %w", errSpent, err)
		}
	}
	return err
}

// together asks several questions concurrently, in one round trip per server, and returns
// their errors.
func (b *budget) together(ctx context.Context, questions []func(context.Context) error) error {
	return b.use(ctx, func(ctx context.Context) error {
		leave := func() {}
		if tier.BatchOf(ctx) == nil { // otherwise they join the batch of the caller
			batch := tier.NewBatch(len(questions))
			ctx, leave = tier.WithBatch(ctx, batch), batch.Leave
		}
		errs := make([]error, len(questions))
		var all sync.WaitGroup
		for i, ask := range questions {
			all.Go(func() {
				defer leave()
				errs[i] = ask(ctx)
			})
		}
		all.Wait()
		return errors.Join(errs...)
	})
}
