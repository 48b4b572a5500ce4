package coherence

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestEachKindOfFailureIsLoggedOnceUntilARoundSucceeds(t *testing.T) {
	var c failureLog
	require.False(t, c.endOutage(), "no round has failed")
	for range 3 {
		for _, kind := range []string{"", "NOAUTH"} {
			first := !c.outage[kind]
			require.Equal(t, first, c.newOutage(kind, 1), kind)
		}
	}
	require.True(t, c.endOutage())
	require.False(t, c.endOutage())
	require.True(t, c.newOutage("NOAUTH", 2), "another outage")
}

func TestARefusedCallIsLoggedOnceAndAgainAfterAPause(t *testing.T) {
	var c failureLog
	now := int64(1)
	require.True(t, c.isNew("OOM", now))
	require.True(t, c.isNew("NOPERM", now), "another kind")
	for range 100 { // for hours
		now += int64(refusalForgotten) - 1
		require.False(t, c.isNew("OOM", now))
	}
	now += int64(refusalForgotten) + 1
	require.True(t, c.isNew("OOM", now))
}

func TestARoundThatFailsLikeALoggedCallIsNotLogged(t *testing.T) {
	var c failureLog
	require.True(t, c.isNew("READONLY", 1))
	require.False(t, c.newOutage("READONLY", 2))
	require.True(t, c.newOutage("", 2), "another kind")
	require.True(t, c.endOutage())
	require.True(t, c.newOutage("READONLY", int64(time.Minute)), "the logged call was long ago")
}
