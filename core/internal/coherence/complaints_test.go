package coherence

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAFailureIsToldOnceForEachKindUntilARoundSucceeds(t *testing.T) {
	var c complaints
	require.False(t, c.succeeded(), "nothing has failed")
	for range 3 {
		for _, kind := range []string{"", "NOAUTH"} {
			first := !c.outage[kind]
			require.Equal(t, first, c.failed(kind, 1), kind)
		}
	}
	require.True(t, c.succeeded())
	require.False(t, c.succeeded())
	require.True(t, c.failed("NOAUTH", 2), "it is another outage")
}

func TestARefusedCallIsToldOnceAndAgainWhenItHasNotOccurredForLong(t *testing.T) {
	var c complaints
	now := int64(1)
	require.True(t, c.refusal("OOM", now))
	require.True(t, c.refusal("NOPERM", now), "another kind")
	for range 100 { // it goes on for hours
		now += int64(refusalForgotten) - 1
		require.False(t, c.refusal("OOM", now))
	}
	now += int64(refusalForgotten) + 1
	require.True(t, c.refusal("OOM", now))
}

func TestARoundThatFailsAsACallJustDidIsToldOnce(t *testing.T) {
	var c complaints
	require.True(t, c.refusal("READONLY", 1))
	require.False(t, c.failed("READONLY", 2))
	require.True(t, c.failed("", 2), "another kind")
	require.True(t, c.succeeded())
	require.True(t, c.failed("READONLY", int64(time.Minute)), "the line of the call is old")
}
