//go:build !mutants

package core_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A rule that no test misses when it is gone is not tested. Each mutant of package
// engine (build tag "mutants", mutants_on.go) lacks one; its tests must find old
// values answered, and nothing else.
//
// What chance may find is left to the histories; what it finds too seldom, or only
// where a writer dies, to tests of one interleaving each.
var mutants = []struct {
	name     string
	history  bool   // the histories find it
	directed string // the tests of package engine that do
}{
	{"fill-check", true, "GivenALoadUnderWay_WhenInvalidated_ThenItsValueIsNotStored"},
	// Alone it lets nobody have an old value, since those who wait are compared with
	// the log again at the end; but they wait for a load that is none of theirs.
	{"join-check", false, "GivenALoadUnderWay_WhenInvalidated_Then(WhoComesLaterDoesNotJoinIt|ARefreshBeginsBesideIt)"},
	{"waiter-check", true, "GivenAReaderWhoJoinedAfterAnInvalidation_WhenTheLoadNamesItsTagLate"},
	{"stamp-kill", true, "GivenAStoredEntry_WhenInvalidated_ThenItIsGone"},
	{"era", true, "GivenAStoredEntry_WhenInvalidated_ThenItIsGone"},
	{"remove", true, "GivenAStoredEntry_WhenInvalidated_ThenItIsGone"},
	{"sweep", true, "GivenAStoredEntry_WhenInvalidated_ThenItIsGone"},
	{"end", true, "GivenAWriterAtWork_WhenSomethingIsLoaded_ThenItIsAnsweredUntilTheWriterEnds"},
	{"trim", false, "GivenALoadOlderThanTheLog"},
	{"lapse", false, "GivenAWriterThatDies_WhenItsDeadlinePasses|GivenAStoredEntry_WhenAWriterBeginsAndDies"},
	{"lag", false, "GivenAReplicaThatLags_WhenALoadBeginsSoonAfter"},
	{"found-check", false, "GivenAnEntryFoundByALeaderDuringAnInvalidation"},
	{"renew", false, "GivenAValueBeingPut"},
}

func TestGivenARuleTakenOut_WhenItsTestsRun_ThenTheyFindOldValuesAnswered(t *testing.T) {
	source, err := os.ReadFile("internal/engine/mutants_on.go")
	require.NoError(t, err)
	var want, have []string
	for _, m := range regexp.MustCompile(`= mutant\("(.*)"\)`).FindAllStringSubmatch(string(source), -1) {
		want = append(want, m[1])
	}
	for _, m := range mutants {
		have = append(have, m.name)
	}
	require.ElementsMatch(t, want, have, "each mutant has its tests")

	histories, engine := build(t, "."), build(t, "./internal/engine")
	t.Run("none", func(t *testing.T) {
		t.Parallel()
		out, ok := runMutant(t, histories, "", "^TestHistory", "60000")
		require.True(t, ok, "%s", out)
		require.Contains(t, out, "HISTORY")
		var directed []string
		for _, m := range mutants {
			if !slices.Contains(directed, m.directed) {
				directed = append(directed, m.directed)
			}
		}
		out, ok = runMutant(t, engine, "", "^Test("+strings.Join(directed, "|")+")", "")
		require.True(t, ok, "%s", out)
	})
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			out, ok := runMutant(t, engine, m.name, "^Test("+m.directed+")", "")
			if m.name == "join-check" {
				mustFail(t, out, ok, "DOOMED: ")
			} else {
				mustFail(t, out, ok, "STALE: ")
			}
			if m.history {
				out, ok := runMutant(t, histories, m.name, "^TestHistory", "2000000")
				mustFail(t, out, ok, "STALE: ")
				for _, h := range regexp.MustCompile(`(?s)HISTORY (\d+) reads, 1 stale.*?STALE: (.*?)\n`).FindAllStringSubmatch(out, -1) {
					t.Logf("found after %s reads: %s", h[1], h[2])
				}
			}
		})
	}
}

func build(t *testing.T, pkg string) (binary string) {
	t.Helper()
	binary = filepath.Join(t.TempDir(), "mutants.test")
	out, err := exec.CommandContext(t.Context(), "go", "test", "-c", "-tags", "mutants", "-o", binary, pkg).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return binary
}

func runMutant(t *testing.T, binary, name, tests, reads string) (out string, passed bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "-test.v", "-test.run="+tests)
	cmd.Env = append(os.Environ(), "LARDER_MUTANT="+name, "LARDER_READS="+reads)
	raw, err := cmd.CombinedOutput()
	require.NoError(t, ctx.Err(), "it hangs: %s", raw)
	require.Contains(t, string(raw), "--- ", "it has run something")
	return string(raw), err == nil
}

// mustFail demands that tests failed, and for the reason that the word stands for.
func mustFail(t *testing.T, out string, passed bool, word string) {
	t.Helper()
	require.False(t, passed, "nobody noticed:\n%s", out)
	require.Contains(t, out, word, "it failed for another reason")
	for _, other := range []string{"panic:", "fatal error:", "DATA RACE", "deadlock", "goleak"} {
		require.NotContains(t, out, other)
	}
}
