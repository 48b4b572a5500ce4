package coherence

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/tier"
)

// following returns what follows one partition, and a head of it that tells of an intent.
func following(t *testing.T) (*shared, *tier.Head) {
	s := newShared(Sharing{Layout: tier.Layout{MaxStaleness: time.Minute}}, 1<<20, time.Minute)
	cache, err := local.New(local.Settings{MaxBytes: 1 << 20, Refreshes: 4, Guard: s})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cache.Close(context.Background())) })
	s.local = cache
	s.skew.Store(s.wall() - cache.Monotonic())
	s.parts[0].clock = serverClock{known: true}
	now := cache.Now() / int64(time.Millisecond)
	h := &tier.Head{
		Position: tier.Position{ID: "1-1", Token: "at"}, Era: "era", Confirmed: "new", Server: "new",
		Partitions: 1, Protocol: tier.Protocol, Now: now, Until: now + time.Hour.Milliseconds(),
	}
	return s, h
}

func TestNothingIsKeptOfAServerWhoseEraIsNotLearnedYet(t *testing.T) {
	s, h := following(t)
	f := &s.parts[0]
	s.serve(0, "old")
	f.position.Store(&h.Position)
	f.endEra() // since the head was asked for
	require.True(t, s.settled(0, h, &asked{at: s.local.Now()}))
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
		s.adopt(0, h, &asked{at: s.local.Now()})
	}()
	heeded := func() bool { return s.Doubtful(1, s.local.Now()) }
	for until := time.Now().Add(5 * time.Second); !heeded() && time.Now().Before(until); {
		time.Sleep(time.Millisecond)
	}
	first := heeded()
	close(release)
	<-done
	s.follow.Unlock()
	require.True(t, first, "what is read after the fence would be kept")
}
