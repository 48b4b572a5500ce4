package coherence

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/tier"
)

func TestGivenMoreDeadlinesThanAreListed_WhenTheLatestIsInDoubt_ThenNothingIsKeptBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := open(t)
		s := &shared{e: e}
		items := []Item{{Kind: Tag, Value: "t:b"}}
		for range maxDeadlines {
			e.announce(&deadline{at: e.Now() + int64(hour), items: items})
		}
		e.announce(&deadline{at: e.Now() + int64(minute), doubt: e.Now() + int64(2*minute), items: items})
		before := e.NewLoad(key, []string{"t:b"})
		s.learn(before.pos, "t:b", "g")
		require.Empty(t, s.known("t:b"), "its generation may expire unheard")
		time.Sleep(minute + time.Second)
		_, refusal := e.NewLoad(key, []string{"t:b"}).Fill(fillOf("old", nil))
		require.Equal(t, Lapsed, refusal, "the server may not be there yet")
		time.Sleep(minute)
		s.learn(before.pos, "t:b", "g")
		require.Empty(t, s.known("t:b"), "it was read before")
		_, refusal = before.Fill(fillOf("old", nil))
		require.Equal(t, Fenced, refusal)
		store(t, e, key, "new", []string{"t:b"}, nil)
		mustBe(t, e, key, "new")
	})
}

// following returns what follows one partition, and a head of it that tells of an intent.
func following(t *testing.T) (*shared, *tier.Head) {
	e := open(t)
	s := &shared{e: e, kick: make(chan struct{}, 1)}
	s.wakes.m = make(map[string]*wake)
	e.parts.Store(1)
	s.parts[0].breaker.Store(new(breaker))
	e.shared = s
	t.Cleanup(func() { e.shared = nil })
	s.parts[0].clock = serverClock{known: true}
	now := e.Now() / int64(time.Millisecond)
	h := &tier.Head{
		Position: tier.Position{ID: "1-1", Token: "at"}, Era: "era", Confirmed: "new", Server: "new",
		Partitions: 1, Protocol: tier.Protocol, Now: now, Until: now + time.Hour.Milliseconds(),
	}
	return s, h
}

func TestGivenAnotherServer_WhenItsEraCannotBeLearnedYet_ThenNothingIsKeptUntilItsDeadlines(t *testing.T) {
	s, h := following(t)
	f := &s.parts[0]
	s.serve(0, "old")
	f.position.Store(&h.Position)
	f.endEra() // since the head was asked for
	require.True(t, s.settled(0, h, &asked{at: s.e.Now()}))
	require.True(t, s.doubtful(1, s.e.Now()))
}

func TestGivenAHeadThatIsAdopted_WhenItTellsOfIntents_ThenTheyAreHeededBeforeTheFence(t *testing.T) {
	s, h := following(t)
	s.follow.Lock()
	s.e.journal.mu.Lock() // the fence waits
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.adopt(0, h, &asked{at: s.e.Now()})
	}()
	heeded := func() bool { return s.doubtful(1, s.e.Now()) }
	for until := time.Now().Add(5 * time.Second); !heeded() && time.Now().Before(until); {
		time.Sleep(time.Millisecond)
	}
	first := heeded()
	s.e.journal.mu.Unlock()
	<-done
	s.follow.Unlock()
	require.True(t, first, "what is read after the fence would be kept")
}
