package redisserver

import (
	"context"
	"time"
)

// TB is the part of [testing.TB] that the helpers for tests need. Programs that use this package need not link package testing.
type TB interface {
	Helper()
	Cleanup(func())
	Failed() bool
	Fatal(args ...any)
	Logf(format string, args ...any)
	Context() context.Context
}

// startWithin is how long the helpers for tests wait for what they start.
const startWithin = 30 * time.Second

// Single starts a server for a test, with more arguments as in [Options], and closes it when the test ends. If the test
// fails, it logs the end of the server's log. Without a redis-server the test fails with [ErrMissing]: it is not
// skipped, since a test that is skipped proves nothing.
func Single(t TB, args ...string) *Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startWithin)
	defer cancel()
	s, err := Start(ctx, Options{Args: args})
	if err != nil {
		t.Fatal(err)
	}
	closeAfter(t, s, s)
	return s
}

// closeAfter closes what was started when the test ends.
func closeAfter(t TB, c interface{ Close() error }, servers ...*Server) {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			for _, s := range servers {
				t.Logf("log of %s:\n%s", s.Addr(), s.Log())
			}
		}
		if err := c.Close(); err != nil {
			t.Logf("close: %v", err)
		}
	})
}

// ThreeByThree starts a cluster of three masters with a replica each, as [Single] starts a server.
func ThreeByThree(t TB) *Cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startWithin)
	defer cancel()
	c, err := StartCluster(ctx, 3, 1, Options{})
	if err != nil {
		t.Fatal(err)
	}
	closeAfter(t, c, c.nodes...)
	return c
}

// WithSentinel starts a master, a replica, and their sentinels, as [Single] starts a server.
func WithSentinel(t TB) *Sentinel {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startWithin)
	defer cancel()
	s, err := StartSentinel(ctx, Options{})
	if err != nil {
		t.Fatal(err)
	}
	closeAfter(t, s, append(s.Nodes(), s.sentinels...)...)
	return s
}
