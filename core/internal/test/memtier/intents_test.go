package memtier

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/tier"
)

func TestWhatOverlappingIntentsKeepStaysBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// Given entries that come and go under one key.
		server := New(Config{})
		defer server.Close()
		s, err := server.Tier("a").Open(t.Context(), tier.Layout{Namespace: "n", Version: "v", Partitions: 1})
		require.NoError(t, err)
		defer s.Close()
		require.NoError(t, s.NewEra(t.Context(), 0, "", false))
		key := tier.Item{Kind: tier.Key, Value: "k"}
		change := func(mode tier.IntentMode, id string) {
			_, err := s.Change(t.Context(), tier.Change{
				Items: []tier.Item{key}, Intent: id, Mode: mode, Lasts: 10 * time.Second, Remain: time.Minute,
			})
			require.NoError(t, err)
		}
		fill := func() {
			l, err := s.Acquire(t.Context(), "k", "", nil, time.Second)
			require.NoError(t, err)
			_, err = s.Fill(t.Context(), l, tier.Fill{Key: "k", Entry: tier.Entry{
				Payload: []byte("v"), FreshUntil: l.Now + 60_000, StaleUntil: l.Now + 60_000, KeepUntil: l.Now + 60_000,
			}})
			require.NoError(t, err)
		}

		// When intents follow each other so that one is always open.
		for i := range 200 {
			if i%4 == 0 {
				change(tier.NoIntent, "")
				fill()
			}
			change(tier.Begin, fmt.Sprint(i))
			if i > 0 {
				change(tier.Abandon, fmt.Sprint(i-1))
			}

			// Then no more is known than of the entry that is there.
			server.mu.Lock()
			in, _ := server.space(where{"n", 0}).get(intentsKey(tier.Key, "k"), 0)
			kept := len(in.data.(intents).lives)
			server.mu.Unlock()
			require.LessOrEqual(t, kept, 1, "after %d", i)
		}
	})
}
