package coherence

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAHeadThatHintsHaveReachedFirstAgesNothing(t *testing.T) {
	s, h := following(t)
	f := &s.parts[0]
	s.servedBy(0, h.Server)
	f.eras.last = h.Era
	f.setEra(h.Era)
	q := f.question(s.local.Now())
	turn := s.local.Alone("key", nil)

	// The position has moved to the head since the head was compared with it.
	f.position.Store(&h.Position)
	err := s.catchUp(t.Context(), nil, 0, h, &q)

	require.NoError(t, err)
	require.True(t, s.Legal(1, s.local.Now()))
	require.False(t, turn.Fenced(nil), "AGED: the partition")
}

// A round that ends between the caller's question and its wait has done what is awaited.
func TestARoundThatHasEndedIsNotAwaitedAgain(t *testing.T) {
	s, _ := following(t)
	asked := 0
	require.NoError(t, s.awaitRounds(t.Context(), func() bool { asked++; return true }))
	require.Equal(t, 1, asked)
	require.Empty(t, s.watchdog.requested, "no round is needed")
}
