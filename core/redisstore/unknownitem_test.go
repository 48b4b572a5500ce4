package redisstore_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/test/redisserver"
	"github.com/larderhq/larder/core/internal/tier"
)

// appendItem appends an item to a partition's log, as an instance of another version
// would, and publishes it.
const appendItem = `
local before = redis.call('HGET', KEYS[1], 'ptok')
local id = redis.call('XADD', KEYS[2], '*', 'k', ARGV[1], 'v', ARGV[2], 't', ARGV[3], 'b', before)
redis.call('HSET', KEYS[1], 'pid', id, 'ptok', ARGV[3])
local message = {'L1'}
for _, v in ipairs({'i', ARGV[4], ARGV[1], ARGV[2], id, ARGV[3], before}) do
  message[#message + 1] = #v .. ':' .. v
end
redis.call('PUBLISH', ARGV[5], table.concat(message))
return id`

func TestAnInstanceStopsAtALogItemThatItDoesNotKnow(t *testing.T) {
	for name, item := range map[string]tier.Item{
		"a kind of a later version":      {Kind: 8, Value: "user:1"},
		"a kind that is none":            {Kind: 0, Value: ""},
		"a Begun item that is no intent": {Kind: tier.Begun, Value: "1:soon:w:user:1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const staleness = 500 * time.Millisecond
			// Given an instance that answers from its memory.
			server := redisserver.Single(t)
			a := newInstance(t, server.Addr(), func(o *core.Options) { o.MaxStaleness = staleness })
			const id = 1
			require.True(t, a.get(t, id, "v"))
			require.Eventually(t, func() bool { return !a.get(t, id, "v") }, 5*time.Second, 10*time.Millisecond, "a hit")

			// When the log of its partition gets an item that it does not know.
			client := redis.NewClient(&redis.Options{Addr: server.Addr()})
			defer client.Close()
			p := tier.Partition("item:1", tier.DefaultPartitions)
			at := fmt.Sprintf("larder:{%02x}:", p)
			require.NoError(t, client.Eval(t.Context(), appendItem, []string{at + "head", at + "log"},
				int(item.Kind), item.Value, "token", fmt.Sprint(p), "larder:hints").Err())

			// Then it answers nothing of the partition after MaxStaleness.
			time.Sleep(2 * staleness) // the time of Redis, which no bubble moves
			for range 20 {
				require.True(t, a.get(t, id, "v"), "a hit")
				time.Sleep(staleness / 20)
			}
		})
	}
}
