package coherence

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/tier"
)

// following returns a view of the tier, and a head of its partition that reports an intent.
func following(t *testing.T) (*shared, *tier.Head) {
	s := newShared(Sharing{Layout: tier.Layout{MaxStaleness: time.Minute}}, 1<<20, time.Minute)
	cache, err := local.New(local.Settings{MaxBytes: 1 << 20, Refreshes: 4, Guard: s})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cache.Close(context.Background())) })
	s.local = cache
	s.suspension.skew.Store(s.wall() - cache.Monotonic())
	s.parts[0].server.clock = serverClock{known: true}
	now := cache.Now() / int64(time.Millisecond)
	h := &tier.Head{
		Position: tier.Position{ID: "1-1", Token: "at"}, Era: "era", Confirmed: "new", Server: "new",
		Partitions: 1, Protocol: tier.Protocol, Now: now, Until: now + time.Hour.Milliseconds(),
	}
	return s, h
}

func TestNoCopyIsKeptOfAServerWhoseEraIsNotLearnedYet(t *testing.T) {
	s, h := following(t)
	f := &s.parts[0]
	s.servedBy(0, "old")
	f.position.Store(&h.Position)
	f.endEra() // after the head was requested
	require.True(t, s.verifyUnmoved(0, h, &headQuestion{sent: s.local.Now()}))
	require.True(t, s.Doubtful(1, s.local.Now()))
}

func TestIntentsOfAnAdoptedHeadCountBeforeTheFence(t *testing.T) {
	s, h := following(t)
	s.follow.Lock()
	held, release, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go s.local.Amend("another", func(local.Lasting, int64) (local.Lasting, int64) {
		close(held)
		<-release
		return nil, 0
	})
	<-held // the fence waits for the end of the change
	go func() {
		defer close(done)
		s.adopt(0, h, &headQuestion{sent: s.local.Now()})
	}()
	doubtful := func() bool { return s.Doubtful(1, s.local.Now()) }
	for until := time.Now().Add(5 * time.Second); !doubtful() && time.Now().Before(until); {
		time.Sleep(time.Millisecond)
	}
	first := doubtful()
	close(release)
	<-done
	s.follow.Unlock()
	require.True(t, first, "an entry that is read after the fence would be kept")
}

func TestTheErrorOfADeadlineGrowsFromTheReadingOfTheClock(t *testing.T) {
	const second = int64(time.Second)
	// The clock of the server was read ten seconds ago, and is faster or slower by 0.2 %.
	c := serverClock{known: true, earliest: -1, latest: 1, at: 100 * second}
	for _, rate := range []int64{499, 501} {
		deadline := 115 * second // on the clock of the server
		reached := c.at + (deadline-c.at)*500/rate

		first, last := c.reaches(deadline / int64(time.Millisecond))

		require.LessOrEqual(t, first, reached)
		require.GreaterOrEqual(t, last+int64(time.Millisecond), reached)
	}
}
