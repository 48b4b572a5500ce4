package coherence

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/tier"
)

// The versions of one server order the changes of a key. A promoted server with a slower clock
// may give a later call a smaller version.
func TestALaterCallIsTheLaterOwnChange(t *testing.T) {
	reply := func(version int64) tier.Enqueued { return tier.Enqueued{Version: version} }
	newChanges := func() (cs *ownChanges, put func(payload string) *ownChange) {
		cs = newOwnChanges(1 << 20)
		return cs, func(payload string) *ownChange {
			q := &tier.Enqueue{Queue: "q", Changes: []tier.QueueChange{{Key: "k", Tag: "t", Payload: []byte(payload)}}}
			return cs.register(q, nil, 0)[0]
		}
	}
	kept := func(cs *ownChanges) string {
		o, ok := cs.get("k", 0)
		require.True(t, ok)
		return string(o.record.Payload)
	}

	t.Run("the second call begins after the reply to the first", func(t *testing.T) {
		cs, put := newChanges()
		cs.keep(put("first"), reply(10), 0)
		cs.keep(put("second"), reply(5), 0)
		require.Equal(t, "second", kept(cs), "STALE: not the later change")
	})
	t.Run("the calls overlap, and the greater version is replied last", func(t *testing.T) {
		cs, put := newChanges()
		a, b := put("first"), put("second")
		cs.keep(b, reply(10), 0)
		cs.keep(a, reply(11), 0)
		require.Equal(t, "first", kept(cs), "STALE: not the later change")
	})
	t.Run("the calls overlap, and the smaller version is replied last", func(t *testing.T) {
		cs, put := newChanges()
		a, b := put("first"), put("second")
		cs.keep(b, reply(10), 0)
		cs.keep(a, reply(9), 0)
		require.Equal(t, "second", kept(cs), "STALE: not the later change")
	})
}
