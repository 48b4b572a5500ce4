package histories_test

import (
	"cmp"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/test/mutate"
)

const histories = "./core/internal/test/histories"

// mutant is a rule of one process, with the tests that fail when it is taken out. They
// fail because an old value is answered, and for no other reason.
//
// The histories notice a loss that chance finds often. A rule whose loss chance finds too
// seldom, or only where a writer dies, has a test of one interleaving.
type mutant struct {
	mutate.Rule
	history  bool   // the histories find it
	directed string // the tests that find it
	word     string // the word of a failure's message; "": STALE
	in       string // the package of these tests; "": local
}

// tests returns the package of the tests that find it.
func (m mutant) tests() string { return cmp.Or(m.in, "./core/internal/local") }

// mutants returns the rules that hold also in one process. The rules of the protocol over
// the shared tier are in core/internal/test/simulate.
func mutants() []mutant {
	const (
		gone   = "AnInvalidationRemovesAStoredEntry"
		engine = "core/internal/coherence/"
		local  = "core/internal/local/"
	)
	rule := func(name string, edits ...mutate.Edit) mutate.Rule { return mutate.Rule{Name: name, Edits: edits} }
	return []mutant{
		// A fill does not read the log.
		{rule("fill-check", mutate.Never(local+"load.go", `c.concern(l.pos, key, tags) != 0`)),
			true, "AnInvalidationFencesALoadUnderWay", "", ""},
		// A flight is joined without reading the log. This alone answers no old value, since the
		// log is read again for each waiting reader at the end; but readers wait for a load whose
		// value they cannot share.
		{rule("join-check", mutate.Never(local+"flight.go", `c.concern(f.seen, f.key, f.tags) != 0`)),
			false, "AReaderAfterAnInvalidationDoesNotJoinAnOlderLoad|ARefreshAfterAnInvalidationRunsBesideAnOlderLoad", "DOOMED", ""},
		// Readers that joined after an item share a value loaded before it.
		{rule("waiter-check", mutate.After(local+"turn.go", `func (t *Turn) fencedAt(late []string) uint64 {`, `if true { return 0 }`)),
			true, "ALateTagMakesAReaderThatJoinedAfterItsInvalidationReload", "", ""},
		// A tag's generation survives its invalidation.
		{rule("stamp-kill", mutate.Replace(local+"cache.go", `c.generations.kill(it.Value)`, ``)), true, gone, "", ""},
		// An entry that holds no generation of its own key's tag survives that tag's invalidation.
		{rule("own-tag", mutate.Replace(local+"cache.go", `c.dropOwn(it.Value)`, ``)), false, "AnEntryIsGoneAtOnceWhenTheTagOfItsKeyIsInvalidated", "", ""},
		// The era survives an invalidation of all.
		{rule("era", mutate.Replace(local+"cache.go", "case All:\n\t\t\tfor p := range c.Partitions() {", "case All:\n\t\t\tfor p := range 0 {"),
			mutate.Replace(local+"cache.go", `c.tier.clear()`, ``)), true, gone, "", ""},
		// An entry survives the invalidation of its key.
		{rule("remove", mutate.Replace(local+"cache.go", `c.tier.drop(it.Value)`, ``)), true, gone, "", ""},
		// Entries survive the invalidation of a pattern.
		{rule("sweep", mutate.Replace(local+"cache.go", `c.sweeps.add(head+uint64(i), it.Value, now)`, `_, _ = head, i`)), true, gone, "", ""},
		// A writer's end invalidates nothing.
		{rule("end", mutate.Replace(local+"intent.go", `in.c.apply(in.c.Now(), items)`, `items = nil`)),
			true, "ALoadDuringAWriteIsAnsweredUntilTheWriterEnds", "", ""},
		// A load that is older than the log is stored and shared.
		{rule("trim", mutate.Never(local+"log.go", `from < j.tail()`)), false, "ALoadOlderThanTheLogIsNeitherStoredNorSharedWithLaterReaders", "", ""},
		// A writer's deadline invalidates nothing.
		{rule("lapse", mutate.Always(local+"intent.go", `now < c.intents.next.Load()`), mutate.Always(local+"intent.go", `now < t.next.Load()`)),
			false, "ALoadDuringAWriteIsNotAnsweredPastTheDeadline|ALoadThatSpansADeadlineIsNotStored|AnEntryIsGoneAtTheDeadlineOfAWriterThatDied", "", ""},
		// A value that a lagging replica may have answered is stored.
		{rule("lag", mutate.Never(local+"load.go", `c.concern(c.journal.since(l.began-int64(lag)), key, tags) != 0`)),
			false, "ALoadWithinReplicaLagIsSharedButNotStored", "", ""},
		// An entry that a leader found is shared although it has been removed.
		{rule("found-check", mutate.Never(local+"turn.go", `o.Entry != t.made`)), false, "AReaderAfterAnInvalidationDoesNotShareWhatALeaderFound", "", ""},
		// A put value is not fenced by an item directly after its own invalidation.
		{rule("renew", mutate.Replace(local+"cache.go", `l.pos = pos`, `_ = pos`)), false, "AnInvalidationAfterThatOfAPutFencesItsValue", "", ""},
		// A request during a deferred fill joins although an item concerns its late tags. The fill
		// ends at once where the item has arrived before it is sent (R10), so both are removed.
		{rule("deferred-fence", mutate.Never(local+"deferred.go", `st.t.fencedAt(late) != 0`), mutate.Never(engine+"store.go", `t.Fenced(tags)`)),
			false, "AFillWithALateTagInvalidatedDuringItsLoadIsNotJoined", "", "./core"},
		// A request during a deferred fill joins although its entry has expired.
		{rule("deferred-expiry", mutate.Never(local+"deferred.go", `st.o.Entry.State(now) < Stale`)),
			false, "ADeferredFillThatExpiresIsNotJoined", "", "./core"},
		// A response replaces a stored note.
		{rule("note-place", mutate.Replace(local+"lasting.go", `if _, lasts := old.Value.(Lasting); lasts {`, `if _, lasts := old.Value.(Lasting); lasts && false {`)),
			false, "ALastingValueIsNotReplacedByALesserOne", "LOST", ""},
		// A stored note loses the fields of the note that it replaces.
		{rule("note-join", mutate.Always(engine+"lasting.go", `value.Covers(other) && left <= d`)),
			false, "ConcurrentLearnersLoseNothing", "LOST", "./core/internal/coherence"},
		// The change that is queued beside an entry that does not decode is discarded.
		{rule("queued-refused", mutate.Replace("core/many.go", `f = p.turn.Fetch(ctx, q) // for the lease`, `_ = p.turn.Fetch(ctx, q) // for the lease`)),
			false, "AQueuedChangeIsReturnedAlthoughTheEntryDoesNotDecode", "", "./core"},
		// The value from before a queued change that does not decode is stored.
		{rule("queued-undecodable", mutate.Replace("core/load.go", `sc.SetNoStore()`, ``)),
			false, "AValueFromBeforeAnUndecodableChangeIsNotStored", "", "./core"},
		{rule("queued-undecodable-many", mutate.Replace("core/many.go", `p.unstored = true`, ``)),
			false, "AValueFromBeforeAnUndecodableChangeIsNotStored", "", "./core"},
		// Versions order all own changes, also those of two servers.
		{rule("own-later", mutate.Never(engine+"ownchange.go", `before.record.Version > reply.Version`),
			mutate.Replace(engine+"ownchange.go", `o.called < before.replied && `, `before.record.Version > reply.Version || `)),
			false, "ALaterCallIsTheLaterOwnChange", "", "./core/internal/coherence"},
		// A head that hints have reached since it was compared is adopted, which ages the partition.
		{rule("head-reached", mutate.Replace(engine+"watchdog.go", `if s.verifyAt(p, h, q) { // hints`, `if false { // hints`)),
			false, "AHeadThatHintsHaveReachedFirstAgesNothing", "AGED", "./core/internal/coherence"},
		// A copy is answered that a round has fenced since it was found.
		{rule("proven", mutate.Replace(engine+"engine.go", `state := e.StateOf(key, en, now)`, `state := en.State(0)`)),
			false, "ACopyThatIsFencedWhileItIsLookedUpIsNotAnswered", "", "./core/internal/coherence"},
		// A refresh belongs to the class that its route had.
		{rule("refresh-route", mutate.Replace("core/httpcache/serve.go", `r.route.Route == rt {`, `r.route == rt.latest.Load() {`)),
			false, "ARefreshGoesOnAfterItsClassHasChanged", "NOT REFRESHED", "./gincache"},
	}
}

func TestTextsOfTheEnginesRulesAreInTheSource(t *testing.T) {
	m := source(t)
	names := map[string]bool{}
	for _, rule := range mutants() {
		assert.False(t, names[rule.Name], "twice: %s", rule.Name)
		names[rule.Name] = true
		assert.NoError(t, m.Check(rule.Rule))
	}
}

func TestRuleOfTheEngineTakenOutIsMissed(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds the engine without each rule")
	}
	m := source(t)
	t.Run("none", func(t *testing.T) {
		t.Parallel()
		passesWhole(t, m)
	})
	for _, mutant := range mutants() {
		t.Run(mutant.Name, func(t *testing.T) {
			t.Parallel()
			out, ok := runTests(t, buildWithout(t, m, mutant.Rule, mutant.tests()), "^Test("+mutant.directed+")", "")
			mustFail(t, out, ok, cmp.Or(mutant.word, "STALE")+": ")
			t.Logf("RULE %s is missed by %s", mutant.Name, mutant.directed)
			if !mutant.history {
				return
			}
			out, ok = runTests(t, buildWithout(t, m, mutant.Rule, histories), "^TestHistory", "2000000")
			mustFail(t, out, ok, "STALE: ")
			for _, h := range regexp.MustCompile(`(?s)HISTORY (\d+) reads, 1 stale.*?STALE: (.*?)\n`).FindAllStringSubmatch(out, -1) {
				t.Logf("RULE %s is missed after %s reads: %s", mutant.Name, h[1], h[2])
			}
		})
	}
}

// passesWhole demands that the tests that must fail without a rule exist, and pass with all
// rules.
func passesWhole(t *testing.T, m *mutate.Module) {
	t.Helper()
	directed := make(map[string][]string) // by package
	for _, m := range mutants() {
		directed[m.tests()] = append(directed[m.tests()], strings.Split(m.directed, "|")...)
	}
	for pkg, names := range directed {
		tests := buildWithout(t, m, mutate.Rule{}, pkg)
		for _, name := range names {
			list, err := exec.CommandContext(t.Context(), tests, "-test.list=^Test"+name).Output()
			require.NoError(t, err)
			require.Contains(t, string(list), name, "no such test")
		}
		out, ok := runTests(t, tests, "^Test("+strings.Join(names, "|")+")", "")
		require.True(t, ok, "%s", out)
	}
	out, ok := runTests(t, buildWithout(t, m, mutate.Rule{}, histories), "^TestHistory", "60000")
	require.True(t, ok, "%s", out)
	require.Contains(t, out, "HISTORY")
}

func source(t *testing.T) *mutate.Module {
	t.Helper()
	m, err := mutate.Open("../../../..")
	require.NoError(t, err)
	return m
}

func buildWithout(t *testing.T, m *mutate.Module, rule mutate.Rule, pkg string) (binary string) {
	t.Helper()
	binary = filepath.Join(t.TempDir(), "mutant.test")
	require.NoError(t, m.Build(t.Context(), rule, pkg, binary))
	return binary
}

func runTests(t *testing.T, binary, tests, reads string) (out string, passed bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "-test.v", "-test.run="+tests)
	cmd.Env = append(os.Environ(), "LARDER_READS="+reads)
	raw, err := cmd.CombinedOutput()
	require.NoError(t, ctx.Err(), "it hangs: %s", raw)
	require.Contains(t, string(raw), "--- ", "it has run something")
	return string(raw), err == nil
}

// mustFail demands that tests failed for the reason of the word.
func mustFail(t *testing.T, out string, passed bool, word string) {
	t.Helper()
	require.False(t, passed, "nobody noticed:\n%s", out)
	require.Contains(t, out, word, "it failed for another reason")
	for _, other := range []string{"panic:", "fatal error:", "DATA RACE", "deadlock", "goleak"} {
		require.NotContains(t, out, other)
	}
}
