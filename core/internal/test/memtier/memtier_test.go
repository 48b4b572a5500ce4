package memtier_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/larderhq/larder/core/internal/test/memtier"
	"github.com/larderhq/larder/core/internal/test/tiertest"
	"github.com/larderhq/larder/core/internal/tier"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const logItems = 64

// harness is one around a server of its own.
func harness(t *testing.T, f memtier.Faults) tiertest.Harness {
	s := memtier.New(memtier.Config{LogItems: logItems})
	s.SetFaults(f)
	t.Cleanup(s.Close)
	var clients atomic.Int64
	return tiertest.Harness{
		Open: func(t testing.TB, l tier.Layout) tier.Session {
			c, err := s.Tier(fmt.Sprint("client", clients.Add(1))).Open(t.Context(), l)
			require.NoError(t, err)
			return c
		},
		Evict: func(t testing.TB, what tiertest.Stored) {
			kind := map[tiertest.StoredKind]memtier.Kind{
				tiertest.Entry: memtier.Entry, tiertest.Lease: memtier.Lease,
				tiertest.Generation: memtier.Generation, tiertest.Intents: memtier.Intents,
				tiertest.Head: memtier.Head, tiertest.Log: memtier.Log, tiertest.Layout: memtier.Layout,
				tiertest.Queue: memtier.Queue,
			}[what.Kind]
			require.True(t, s.EvictKey(what.Layout.Namespace, what.Partition, kind, what.Name))
		},
		Restart: func(testing.TB) { s.Restart() },
		Flush:   func(testing.TB) { s.Flush() },
		Migrate: func(_ testing.TB, _ tier.Layout, partition int, begin bool) { s.Migrating(partition, begin) },

		LogItems: logItems,
	}
}

func TestSuite(t *testing.T) { tiertest.Run(t, harness(t, memtier.Faults{})) }

func TestSuiteInBubbles(t *testing.T) { inBubbles(t, memtier.Faults{}) }

// Slow and repeated messages break no promise.
func TestSuiteOnASlowNetwork(t *testing.T) {
	inBubbles(t, memtier.Faults{
		Request:   memtier.Delay{Max: time.Millisecond},
		Reply:     memtier.Delay{Max: time.Millisecond},
		HintDelay: memtier.Delay{Max: 20 * time.Millisecond},
		HintTwice: 0.3,
	})
}

func inBubbles(t *testing.T, f memtier.Faults) {
	h := tiertest.Harness{LogItems: logItems, LayoutLapse: memtier.LayoutLapse}
	hooks := harness(t, f)
	h.Open, h.Evict, h.Restart, h.Flush, h.Migrate = hooks.Open, hooks.Evict, hooks.Restart, hooks.Flush, hooks.Migrate
	h.Bubble = func(t *testing.T, run func(*testing.T, tiertest.Harness)) {
		synctest.Test(t, func(t *testing.T) {
			h := harness(t, f)
			h.LayoutLapse = memtier.LayoutLapse
			run(t, h)
		})
	}
	tiertest.Run(t, h)
}
