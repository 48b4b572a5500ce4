package redisstore

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/remote"
)

func TestGivenIntentsThatOverlap_WhenEntriesComeAndGo_ThenWhatIsKnownOfThemStaysBounded(t *testing.T) {
	_, client := single(t)
	s := open(t, client, remote.Layout{Namespace: "larder", Version: "v", Partitions: 1, MaxStaleness: time.Second})
	ctx := within(t, 5*time.Minute)
	change := func(mode remote.IntentMode, id string, items ...remote.Item) {
		_, err := s.Change(ctx, remote.Change{Items: items, Intent: id, Mode: mode, Lasts: 10 * time.Second, Remain: time.Minute})
		require.NoError(t, err)
	}
	item := remote.Item{Kind: remote.Key, Value: "k"}
	last := ""
	for i := range 10_000 {
		id := fmt.Sprint("w", i)
		if i%4 == 0 {
			change(remote.NoIntent, "", item)
			fill(t, s, "k", "v")
		}
		change(remote.Begin, id, item)
		if last != "" {
			change(remote.Abandon, last, item)
		}
		last = id
		if i%500 == 0 {
			hashes, err := client.Keys(ctx, "larder:*").Result()
			require.NoError(t, err)
			for _, name := range hashes {
				if client.Type(ctx, name).Val() == "hash" {
					require.LessOrEqual(t, client.HLen(ctx, name).Val(), int64(16), "%s after %d", name, i)
				}
			}
		}
	}
}
