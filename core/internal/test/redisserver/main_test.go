package redisserver_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/larderhq/larder/core/internal/test/redisserver"
)

// orphan, if set in the environment, makes the test binary start servers, say their addresses, and wait to be killed.
const orphan = "REDISTEST_ORPHAN"

func TestMain(m *testing.M) {
	if os.Getenv(orphan) != "" {
		leaveOrphans()
		return
	}
	goleak.VerifyTestMain(m)
}

func leaveOrphans() {
	ctx, cancel := within(20 * time.Second)
	defer cancel()
	for _, frozen := range []bool{false, true} {
		s, err := redisserver.Start(ctx, redisserver.Options{})
		if err == nil && frozen {
			err = s.Stop()
		}
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(s.Addr(), s.Dir())
	}
	<-ctx.Done()
}

func within(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}

// deadline is that of a whole test.
func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := within(30 * time.Second)
	t.Cleanup(cancel)
	return ctx
}

// do asks a server, which must answer without an error.
func do(t *testing.T, s *redisserver.Server, args ...string) any {
	t.Helper()
	reply, err := s.Do(deadline(t), args...)
	require.NoError(t, err)
	return reply
}

// ask asks a server and returns its error, if it replies one within a while.
func ask(s *redisserver.Server, args ...string) (any, error) {
	ctx, cancel := within(100 * time.Millisecond)
	defer cancel()
	return s.Do(ctx, args...)
}
