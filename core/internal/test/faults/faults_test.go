package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The run takes a few seconds and has some of the faults.
func TestShortRunKeepsThePromises(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a quarter of a minute")
	}
	var out bytes.Buffer
	err := conduct(t.Context(), config{
		mode: modeFaults, untimed: true, duration: 10 * time.Second, seed: 1, readers: 16, writers: 6, ids: 400, verbose: true, out: &out,
		faults: []string{
			"cut subscribers", "killed and restarted empty", "killed and restarted from an old snapshot", "network to a process cut",
			"process killed in a write", "flush by a stranger",
		},
	})
	t.Log("\n" + out.String())
	require.NoError(t, err)
}

// The handler of a cold key runs once for many concurrent requests, and twice if the process that runs it dies.
func TestHerdRunsTheHandlerOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes several seconds")
	}
	var out bytes.Buffer
	err := conduct(t.Context(), config{
		mode: modeHerd, untimed: true, duration: time.Minute, readers: 1, writers: 1, ids: 100, requests: 400, out: &out,
	})
	t.Log("\n" + out.String())
	require.NoError(t, err)
}

// Given a route whose rows share a tag, when writes that name the tag are refused, then reads stay hits.
func TestRefusedWritesLeaveTheHitRatio(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a quarter of a minute")
	}
	var out bytes.Buffer
	err := conduct(t.Context(), config{mode: modeRefused, untimed: true, duration: time.Minute, readers: 1, writers: 1, ids: 100, out: &out})
	t.Log("\n" + out.String())
	require.NoError(t, err)
}
