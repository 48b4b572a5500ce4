package local

import (
	"context"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

type valueKey struct{}

// recycled is a context as a framework has it, of one request after the other.
type recycled struct{ request string }

func (*recycled) Deadline() (at time.Time, ok bool) { return at, false }
func (*recycled) Done() <-chan struct{}             { return nil }
func (*recycled) Err() error                        { return nil }
func (r *recycled) Value(any) any                   { return r.request }

type embedding struct {
	context.Context
	more string
}

type hiding struct{ of context.Context }

func (h hiding) Deadline() (time.Time, bool) { return h.of.Deadline() }
func (h hiding) Done() <-chan struct{}       { return h.of.Done() }
func (h hiding) Err() error                  { return h.of.Err() }
func (h hiding) Value(k any) any             { return h.of.Value(k) }

func TestValuesOfAnInspectableContextLast(t *testing.T) {
	wrap := func(ctx context.Context) map[string]context.Context {
		cancelled, cancel := context.WithCancel(ctx)
		timed, stop := context.WithTimeoutCause(ctx, time.Minute, context.Canceled)
		caused, end := context.WithCancelCause(ctx)
		notified, ignore := signal.NotifyContext(ctx, syscall.SIGUSR2)
		t.Cleanup(func() { cancel(); stop(); end(nil); ignore() })
		return map[string]context.Context{
			"itself": ctx, "value": context.WithValue(ctx, valueKey{}, "v"), "cancel": cancelled, "timeout": timed, "cause": caused,
			"without": context.WithoutCancel(ctx), "signal": notified, "embedded": embedding{ctx, "x"}, "pointer": &embedding{ctx, "x"},
			"without a deadline": WithoutDeadline(ctx),
		}
	}
	for outer := range wrap(context.Background()) {
		for name, root := range map[string]context.Context{"background": context.Background(), "todo": context.TODO(), "test": t.Context()} {
			for inner, ctx := range wrap(wrap(root)[outer]) {
				require.Equal(t, ctx, lasting(ctx), "%s of %s of %s", inner, outer, name)
			}
		}
		for inner, ctx := range wrap(wrap(&recycled{"mine"})[outer]) {
			require.Equal(t, context.Background(), lasting(ctx), "%s of %s", inner, outer)
		}
		require.Equal(t, context.Background(), lasting(wrap(hiding{context.Background()})[outer]), "nobody knows what is behind it")
	}
	require.Equal(t, context.Background(), lasting((*recycled)(nil)))
}

func TestALentContextIsUnusedAfterItsCallerLeft(t *testing.T) {
	ctx := &recycled{"mine"}
	lent, end := Lend(context.WithValue(ctx, valueKey{}, "own"))
	require.Equal(t, "mine", lent.Value("request"))
	require.Equal(t, "own", lent.Value(valueKey{}))
	within, stop := context.WithCancel(lent)
	defer stop()
	require.Equal(t, within, lasting(within), "it ends with the outer call at the latest")
	end()
	ctx.request = "another"
	require.Nil(t, within.Value("request"))
	require.Nil(t, lent.Value(valueKey{}))
}
