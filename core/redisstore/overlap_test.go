package redisstore

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/tier"
)

func TestFieldsOfOverlappingIntentsStayBounded(t *testing.T) {
	t.Parallel()
	_, client := single(t)
	s := open(t, client, tier.Layout{Namespace: "larder", Version: "v", Partitions: 1, MaxStaleness: time.Second})
	ctx := within(t, 5*time.Minute)
	change := func(mode tier.IntentMode, id string, items ...tier.Item) {
		_, err := s.Change(ctx, tier.Change{Items: items, Intent: id, Mode: mode, Lasts: 10 * time.Second, Remain: time.Minute})
		require.NoError(t, err)
	}
	item := tier.Item{Kind: tier.Key, Value: "k"}
	last := ""
	for i := range 10_000 {
		id := fmt.Sprint("w", i)
		if i%4 == 0 {
			change(tier.NoIntent, "", item)
			fill(t, s, "k", "v")
		}
		change(tier.Begin, id, item)
		if last != "" {
			change(tier.Abandon, last, item)
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
