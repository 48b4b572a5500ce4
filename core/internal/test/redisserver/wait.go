package redisserver

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// pollEvery is how often a condition is looked at.
	pollEvery = 10 * time.Millisecond

	// patience is for one question of a poll. A server that does not answer within it is asked again, or left out.
	patience = 500 * time.Millisecond
)

// wait looks at a condition until it holds, which is when it returns no error, or until it returns a final error. If
// the context ends first, the error says what was missing last.
func wait(ctx context.Context, what string, condition func(context.Context) error) error {
	for {
		err := condition(ctx)
		if err == nil {
			return nil
		}
		if f := (*finalError)(nil); errors.As(err, &f) {
			return f.error
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w (last: %w)", what, ctx.Err(), err)
		case <-time.After(pollEvery):
		}
	}
}

// finalError is of a condition that will not mend itself.
type finalError struct{ error }

func (f *finalError) Unwrap() error { return f.error }

// askSoon asks a server, which must answer within the time for one question.
func askSoon(ctx context.Context, s *Server, args ...string) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return s.Do(ctx, args...)
}
