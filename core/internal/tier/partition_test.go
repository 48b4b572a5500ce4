package tier_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/tier"
)

func TestATagLiesWhereTheKeyOfItsNameDoes(t *testing.T) {
	for _, key := range []string{"user:42", "user:43", "t:42", "t:t:42", "t:", "", "https://shop.example/x"} {
		for _, n := range []int{1, 2, 16, 64} {
			p := tier.Partition(key, n)
			require.Less(t, p, n)
			require.Equal(t, p, tier.Partition(tier.TagPrefix+key, n), "%q of %d", key, n)
		}
	}
	// The first four digits of the SHA-1 of user:42, and of p:/items, of another kind.
	require.Equal(t, 0xadf1%64, tier.Partition("t:user:42", 64))
	require.Equal(t, 0xb63b%64, tier.Partition("p:/items", 64))
}
