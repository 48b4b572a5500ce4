package coherence

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/larderhq/larder/core/internal/tier"
)

var (
	errMoved       = errors.New("larder: the servers of the shared tier changed during the scan")
	errScanTimeout = errors.New("larder: more entries than can be scanned in half of the available time")
)

// Swept is what a Sweep has done in the tier.
type Swept struct {
	tier.Scanned
	Everything error // the reason for which everything was invalidated instead; nil: it was not
}

// Sweep is Invalidate with scans that last for as long as ctx, and that leave half of each
// server's time to other calls. If ctx ends first, everything is invalidated instead. All
// other steps wait for the tier for the given time. One Sweep runs at a time: if ctx ends
// while another runs, this one does nothing and returns the error of ctx.
func (e *Engine) Sweep(ctx context.Context, items []tier.Item, wait time.Duration) (Swept, error) {
	if err := ctx.Err(); err != nil {
		return Swept{}, fmt.Errorf("larder: sweep: %w", err)
	}
	s := e.shared
	if s == nil {
		e.Fence(items)
		return Swept{}, nil
	}
	select {
	case s.sweeping <- struct{}{}:
		defer func() { <-s.sweeping }()
	case <-ctx.Done():
		return Swept{}, fmt.Errorf("larder: sweep: another one runs: %w", ctx.Err())
	}
	op := &operation{stepWait: wait}
	err := s.invalidate(ctx, items, op)
	return op.swept, err
}

// sweep executes patterns: an item of each pattern in every partition, a scan to its end, and the
// items again. The second items end the copies of entries that an instance has read before the
// scan reached them (R15).
func (s *shared) sweep(ctx context.Context, ses tier.Session, patterns []tier.Item, op *operation) error {
	if err := s.everyPartition(ctx, ses, patterns, op); err != nil {
		return err
	}
	swept, err := s.scan(ctx, ses, patterns, op)
	if op != nil {
		op.swept = swept
	}
	if err != nil {
		return err
	}
	if swept.Everything != nil {
		patterns = []tier.Item{{Kind: tier.All}}
		if err := s.everyPartition(ctx, ses, patterns, op); err != nil {
			return err
		}
	}
	return s.everyPartition(ctx, ses, patterns, op)
}

// scan removes the entries that match. If it cannot scan to the end, Swept.Everything has the
// reason for which everything must be invalidated.
func (s *shared) scan(ctx context.Context, ses tier.Session, patterns []tier.Item, op *operation) (swept Swept, err error) {
	scan := tier.Scan{Globs: make([]string, len(patterns)), Rest: op.isSweep()}
	for i, it := range patterns {
		scan.Globs[i] = it.Value
	}
	limited, cancel := ctx, context.CancelFunc(func() {})
	if deadline, ok := ctx.Deadline(); ok && !op.isSweep() {
		limited, cancel = context.WithTimeout(ctx, time.Until(deadline)/2)
	}
	defer cancel()
	swept.Scanned, err = ses.Scan(limited, scan)
	switch {
	case err == nil && !swept.Sure:
		swept.Everything = errMoved
	case err == nil:
	case tier.IsPermanent(err): // no later scan would find the entries either
		swept.Everything = err
	case op.isSweep() && ctx.Err() != nil:
		swept.Everything = ctx.Err()
	case ctx.Err() == nil && limited.Err() != nil:
		swept.Everything = errScanTimeout
	default:
		return swept, err
	}
	return swept, nil
}
