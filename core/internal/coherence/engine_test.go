package coherence

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/tier"
)

// A copy is found while its partition is not legal. A round fences it, and then makes the partition
// legal, before the lookup asks for that.
func TestACopyThatIsFencedWhileItIsLookedUpIsNotAnswered(t *testing.T) {
	for name, item := range map[string]tier.Item{
		"key":     {Kind: tier.Key, Value: "key"},
		"tag":     {Kind: tier.Tag, Value: "t:tag"},
		"own tag": {Kind: tier.Tag, Value: "t:key"},
		"pattern": {Kind: tier.Pattern, Value: "k*"},
		"all":     {Kind: tier.All},
		"another": {Kind: tier.Key, Value: "another"},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := following(t)
			e := &Engine{Cache: s.local, shared: s}
			s.parts[0].verified.Store(s.local.Now())
			turn := s.local.Alone("key", []string{"t:tag", "t:key"})
			_, refusal := turn.Fill(local.Fill{Value: "old", Size: 3, Lifetime: local.Lifetime{Fresh: time.Hour}})
			require.Equal(t, local.Stored, refusal)

			found, state := s.local.LookupAt("key", s.local.Now())
			require.Equal(t, local.Fresh, state)
			s.local.Fence([]local.Item{item})
			en, state := e.proven("key", found, s.local.Now())

			if name == "another" {
				require.Same(t, found, en)
				require.Equal(t, local.Fresh, state)
				return
			}
			require.Nil(t, en, "STALE: the copy was fenced")
			require.Equal(t, local.Gone, state)
		})
	}
}
