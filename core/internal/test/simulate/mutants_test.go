package simulate_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/test/mutate"
)

// engineRules are the rules that the engine and write-behind hold, by their numbers in
// the protocol, with the texts that they stand in. Those of the tier are in
// broken_test.go.
func engineRules() []mutate.Rule {
	const (
		engine = "core/internal/coherence/"
		local  = "core/internal/local/"
		behind = "core/internal/writebehind/"
	)
	rule := func(name string, edits ...mutate.Edit) mutate.Rule { return mutate.Rule{Name: name, Edits: edits} }
	return []mutate.Rule{
		// An instance continues although its part of the layout has lapsed.
		rule("R2", mutate.Never(engine+"agreement.go", `s.local.Monotonic()-s.agreement.renewed.Load() > int64(agreeLapse)`)),
		// Hits of partitions that have not been verified.
		rule("R4", mutate.Always(engine+"partitions.go", `now < ps.legalUntil.Load()`)),
		// A value read is kept although an item came in between.
		rule("R5", mutate.Never(local+"load.go", `c.concern(l.pos, l.key, l.tags) != 0`),
			mutate.Never(local+"generation.go", `c.concern(pos, "", []string{tag}) != 0 || era.dead.Load() || !c.intents.mayKeep(c.Now(), c.Now())`)),
		// Generations of a found entry are not compared.
		rule("R6", mutate.After(engine+"admit.go", `func (f *fetch) generationsAgree(ctx context.Context, ses tier.Session, en *tier.Entry) bool {`, `if true { return true }`)),
		// Eras of a found entry are not compared.
		rule("R6-Era", mutate.After(engine+"partitions.go", `func (ps *partitions) inEras(eras []tier.PartitionEra) bool {`, `if true { return true }`)),
		// Flights are joined although the log has not been read for long.
		rule("R7", mutate.Replace(local+"flight.go", `fenced || f.began < oldest`, `fenced`), mutate.Replace(local+"turn.go", `|| f.began < w.oldest {`, `{`)),
		// A reader that joins a load late gets an entry renewed when it was legal.
		rule("R7-Old", mutate.Never(engine+"partitions.go", `v != 0 && lapse <= now`)),
		// A load is as old as it began, whatever it has joined.
		rule("R7-Nested", mutate.Never(local+"turn.go", `began != 0 && (t.oldest == 0 || began < t.oldest)`)),
		// A load from before a suspension is joined after it.
		rule("R7-Suspended", mutate.Replace(engine+"partitions.go", "if ps.suspension.found.Load() {\n\t\treturn math.MaxInt64", "if false {\n\t\treturn math.MaxInt64")),
		// An entry stored under an open intent outlives its deadline.
		rule("R9", mutate.Never(engine+"store.go", `h.lease.Open > 0`), mutate.Replace(engine+"admit.go", `Adopt(admitted, size, en.Provisional)`, `Adopt(admitted, size, false)`)),
		// Late tags are not compared with the log.
		rule("R10", mutate.Replace(engine+"store.go", `case !c.Joined || c.Token == ""`, "case true:\n\t\tcase !c.Joined || c.Token == \"\""),
			mutate.Never(engine+"store.go", `t.Fenced(tags)`)),
		// Late tags of a write are compared since its load, which is registered after it has begun.
		rule("R10-Write", mutate.Never(engine+"store.go", `!h.registered`)),
		// A load with a lease reads a value whose invalidation is pending here.
		rule("R10-Known", mutate.After(engine+"acquire.go", `func (f *fetch) catchUp(ctx context.Context, ses tier.Session, l *tier.Lease) bool {`, `if true { return true }`)),
		// A writer that lapsed is forgotten.
		rule("R10-Lapsed", mutate.Never(engine+"store.go", `h.s.lapsedSince(c.Lapsed, h.sent)`)),
		// The end of a lease wakes no waiting reader.
		rule("R12", mutate.Replace(engine+"waiters.go", `if k := w.byKey[key]; k != nil {`, `if k := w.byKey[key]; k != nil && false {`)),
		// This process is not fenced after its own invalidation.
		rule("R14", mutate.Replace(engine+"change.go", "\t\ts.local.FenceLoads(items)\n\t} else {\n\t\ts.local.Fence(items)\n\t}\n", "\t}\n")),
		// A sweep has no second item.
		rule("R15", mutate.Replace(engine+"sweep.go", `if swept.Everything != nil {`, `if swept.Everything == nil { return nil } else {`)),
		// An invalidation of all ends the era of each partition separately.
		rule("R15-All", mutate.Replace(engine+"change.go", `plan.allTwice = n > 1`, `plan.allTwice = false`),
			mutate.Replace(engine+"follow.go", "case tier.All:\n\t\tfor p := range s.local.Partitions() {\n", "case tier.All:\n\t\tfor p := p; p >= 0; p = -1 {\n"),
			mutate.Replace(engine+"follow.go", "s.endEras()\n\t\ts.requestRound()", "f.endEra()\n\t\ts.requestRound()"),
			mutate.Replace(engine+"follow.go", "case tier.All:\n\t\t\ts.endEras()", "case tier.All:\n\t\t\tf.endEra()")),
		// Entries with a pending invalidation are answered.
		rule("R16", mutate.After(engine+"pending.go", `func (q *pending) blocks(c *local.Cache, key string, tags []string) bool {`, `if true { return false }`)),
		// The position moves over items that were never seen.
		rule("R18", mutate.Always(engine+"follow.go", `it.Before == pos.Token`)),
		// The era of a head is learned although one has ended since it was asked for.
		rule("R18-Era", mutate.Replace(engine+"follow.go", `if f.eras.ended != q.ended {`, `if false {`)),
		// Verified is the time after the answer.
		rule("R19", mutate.After(engine+"watchdog.go", `took := time.Since(began)`, `for p := range questions { questions[p].sent = s.local.Now() }`)),
		// A log that does not join is applied.
		rule("R20", mutate.Never(engine+"follow.go", `!since.Joined || !reached || len(items) > 0 && items[0].Before != from.Token`)),
		// Another era is adopted without aging.
		rule("R21", mutate.Replace(engine+"follow.go", "s.age(p)\n\t\tf.setEra(h.Era)", `f.setEra(h.Era)`), mutate.Never(engine+"watchdog.go", `f.era() != ""`)),
		// A promotion or a restart makes no new era.
		rule("R21-Server", mutate.Replace(engine+"watchdog.go", `case h.Confirmed != h.Server:`, `case h.Confirmed != h.Server && false:`)),
		// A machine that was suspended answers at once.
		rule("R22", mutate.Always(engine+"clocks.go", `d <= ps.tolerance() && d >= -ps.tolerance()`)),
		// The tolerated suspension is not part of MaxStaleness.
		rule("R22-Tolerance", mutate.Replace(engine+"clocks.go", `return ps.delta - ps.tolerance()`, `return ps.delta`)),
		// The clocks are always compared with the skew at the start of the process.
		rule("R22-Skew", mutate.Always(engine+"clocks.go", `!sp.known || sp.found.Load() || !s.verifiedSince(s.everything(), sp.sent)`)),
		// A watchdog that rests trusts its last round.
		rule("R19-Rest", mutate.Replace(engine+"engine.go", `if !e.shared.Legal(en.Partitions(), now) {`, `if !e.shared.rest.resting.Load() && !e.shared.Legal(en.Partitions(), now) {`)),
		// It rests while a load runs.
		rule("R19-Turns", mutate.Replace(engine+"rest.go", `r.demanded.Swap(false) || r.turns.Load() > 0`, `r.demanded.Swap(false)`)),
		// Write-behind takes a partition that was not asked for one that does not answer.
		rule("R19-Answers", mutate.Never(engine+"queue.go", `e.shared.rest.resting.Load()`)),
		// KeepWarm does not wait for a proof.
		rule("R19-Warm", mutate.Replace("core/internal/warmup/keep.go", "e.Awaken(ctx)\n", "")),
		// A rest does not depend on MaxStaleness.
		rule("R22-Rest", mutate.Replace(engine+"rest.go", `min(restEvery, restShare*delta)`, `restEvery`)),
		// InvalidateEverywhere does not wait.
		rule("R23", mutate.After(engine+"change.go", `d += d/500 + time.Millisecond // the rates of two clocks differ a little`, `d = 0`)),
		// Write stores its value although another write overlaps.
		rule("R25", mutate.Replace(local+"intent.go", `&& !c.intents.others(in)`, `&& !c.intents.others(in) || true`),
			mutate.Replace(engine+"write.go", `if !in.wasAlone(ctx, t, op.logged, key, tags) {`, `if !in.wasAlone(ctx, t, op.logged, key, tags) && false {`)),
		// A value that a lagging replica may have answered is stored.
		rule("R26", mutate.Never(engine+"store.go", `f.ReplicaLag > 0`)),
		// A reader with the lease loads although a change is queued.
		rule("R27-Queued", mutate.After(engine+"acquire.go", `case l.Token != "" && len(l.Generations) == len(t.Tags()):`, `l.Queued = nil`),
			mutate.After(engine+"acquire.go", `case l.Token != "":`, `l.Queued = nil`)),
		// A reader without the lease waits for it although a change is queued.
		rule("R27-Busy", mutate.Never(engine+"acquire.go", `l.Queued != nil && f.query.Queue`),
			mutate.Replace(engine+"acquire.go", "case l.Token != \"\":\n", "case l.Token == \"\":\n\t\t\tl.Queued = nil\n\t\tcase l.Token != \"\":\n")),
		// The tag of a change's key is not invalidated.
		rule("R27-Announce", mutate.Replace(behind+"committer.go", `naming.Tag(ch.key)}`, `naming.Tag(ch.key)[:0]}`)),
		// Tags are invalidated after a change has been settled.
		rule("R27-Tag", mutate.Replace(behind+"round.go", "\tw.invalidateTags(outcomes)\n", ""), mutate.Replace(behind+"round.go", `w.account(outcomes)`, "w.invalidateTags(outcomes)\n\tw.account(outcomes)")),
		// A change is settled although its tag could not be invalidated.
		rule("R27-Told", mutate.After(behind+"round.go", `failed, err := w.Engine.InvalidateApplied(ctx, items)`, `err = nil`)),
		// A queued change counts from the reply, not from the question.
		rule("R27-Asked", mutate.Replace(engine+"fetch.go", `t.restart(found.Queued == nil)`, `t.restart(true)`)),
		// A superseded change of this process is still read.
		rule("R27-Own", mutate.Never(engine+"ownchange.go", `o.supersededBy(item, now)`)),
		// An item that arrives before the reply to a change does not supersede it.
		rule("R27-Own-Noted", mutate.Replace(engine+"ownchange.go", `o.superseded = o.superseded || o.supersededBy(it, now)`, `_ = it`)),
		// This process's own invalidations do not supersede its changes.
		rule("R27-Own-Drop", mutate.Replace(engine+"ownchange.go", `if o.superseded = true; o.element != nil {`, `if o.superseded = true; o.element != nil && false {`)),
		// An apply continues after its worker has lost the queue.
		rule("R27-Keep", mutate.Replace(behind+"lease.go", `workerLease-leaseMargin)), cancel)`, `workerLease-leaseMargin)), func() {})`),
			mutate.Replace(behind+"lease.go", "case lost:\n\t\t\t\tcancel()", `case lost:`)),
		// A batch is not compared with the items that this process has heard of.
		rule("R30", mutate.Never(engine+"together.go", `t.Fenced(f.Fill.Tags)`)),
	}
}

// hunt says how a test notices that a rule is missing.
type hunt struct {
	profile  string // of histories that are likely to notice; "": all
	scenario string // the scripted test that notices; "": none is needed
	chance   bool   // histories need not notice
	queues   bool   // all histories have queues
	beside   string // a rule of the engine that keeps the same promise, and is taken out as well
}

// hunts has those rules that need more than histories of all kinds.
var hunts = map[string]hunt{
	"R2":               {scenario: "AnInstanceWithALapsedLayoutAnswersNothingOld", chance: true},
	"R4":               {profile: "slow"},
	"R5":               {profile: "slow"},
	"R6":               {profile: "lossy"},
	"R6-Era":           {profile: "migrations"},
	"R7":               {profile: "slow", scenario: "ALongLoadOfADeafInstanceIsNotJoined", chance: true},
	"R7-Old":           {scenario: "ALoadOfALegalCopyIsNotJoinedOnceTheCopyIsNot", chance: true},
	"R7-Nested":        {scenario: "ALoadThatContainsAnOldOneIsNotJoined", chance: true},
	"R7-Suspended":     {scenario: "ALoadFromBeforeASuspensionIsNotJoined", chance: true},
	"R9":               {scenario: "ADeadlineRemovesLoadsDuringACommittedWriter", chance: true},
	"R10":              {profile: "slow", scenario: "ALateTagIsComparedThoughItsLogWasTrimmed"},
	"R10-Write":        {scenario: "APutIsNotStoredIfItsTagIsInvalidatedMeanwhile", chance: true},
	"R10-Known":        {scenario: "AValueMadeOfAnotherIsNotKeptBeforeItsInvalidationIsHeard", chance: true},
	"R10-Lapsed":       {profile: "crashes", scenario: "ALoadIsNotStoredIfItsLateTagHasALapsedWriter", chance: true},
	"R12":              {scenario: "AColdKeyIsLoadedOnceByAllInstances", chance: true},
	"R14":              {profile: "slow"},
	"R15":              {profile: "slow"},
	"R15-All":          {scenario: "AValueMadeOfManyIsNotKeptWhenOnePartitionHasHeardAll", chance: true},
	"R16":              {profile: "full"},
	"R18":              {profile: "lossy"},
	"R18-Era":          {scenario: "ALateHeadOfAnEndedEraIsNotAdopted", chance: true},
	"R19":              {scenario: "ALateHeadProvesNothingPastItsReading", chance: true},
	"R20":              {profile: "evictions"},
	"R21":              {scenario: "AnInstanceBehindTheLogDropsItsCopiesInANewEra", chance: true},
	"R21-Server":       {profile: "failovers"},
	"R22":              {scenario: "ASuspendedMachineAnswersNoCopyWhenItResumes", chance: true},
	"R22-Tolerance":    {scenario: "ABriefSuspensionIsPartOfMaxStaleness", chance: true},
	"R22-Skew":         {scenario: "ASlewedWallClockAgesNothing", chance: true},
	"R19-Rest":         {scenario: "NothingOldIsAnsweredAfterARest", chance: true},
	"R19-Turns":        {scenario: "ALongLoadKeepsItsStaleFallback", chance: true},
	"R19-Answers":      {scenario: "APartitionThatAnsweredBeforeARestCountsAsAnswering", chance: true},
	"R19-Warm":         {scenario: "HotIdsAreKeptWarmInARest", chance: true},
	"R22-Rest":         {scenario: "ASlewedWallClockAgesNothingInARest", chance: true},
	"R23":              {profile: "lossy"},
	"R25":              {},
	"R26":              {scenario: "ALoadWithinTheReplicaLagIsNotStored", chance: true},
	"R27-Queued":       {profile: "queues"},
	"R27-Busy":         {scenario: "AReaderOfAQueuedChangeDoesNotWaitForALease", chance: true},
	"R27-Asked":        {scenario: "AChangeReadBeforeTheNextIsNotJoined", chance: true},
	"R27-Announce":     {profile: "calm", queues: true},
	"R27-Tag":          {scenario: "AWorkerThatDiesAfterSettlingLeavesNoOldPage", chance: true},
	"R27-Told":         {scenario: "AChangeStaysQueuedUntilItsTagIsInvalidated", chance: true},
	"R27-Keep":         {scenario: "AnApplyEndsBeforeAnotherWorkerHasItsLease", chance: true},
	"R27-Own":          {scenario: "ASupersededOwnChangeIsNotRead", chance: true},
	"R27-Own-Noted":    {scenario: "AnOwnChangeIsNotKeptWhenALaterOneWasHeardFirst", chance: true},
	"R27-Own-Drop":     {scenario: "ASupersededOwnChangeIsNotRead", chance: true},
	"R30":              {scenario: "AWarmedValueIsNotStoredIfItIsInvalidatedMeanwhile", chance: true},
	"tier-R30":         {profile: "slow", scenario: "AWarmedValueIsNotStoredIfItIsInvalidatedMeanwhile", chance: true},
	"tier-R3":          {profile: "lossy"},
	"tier-R8":          {profile: "crashes", scenario: "ADeadlineRemovesLoadsDuringACommittedWriter", chance: true},
	"tier-R8-After":    {profile: "slow"},
	"tier-R11":         {profile: "slow"},
	"tier-R13":         {profile: "lossy"},
	"tier-R15":         {profile: "lossy"},
	"tier-R17":         {profile: "migrations"},
	"tier-R21":         {profile: "failovers"},
	"tier-R24-Begin":   {profile: "crashes", scenario: "ADeadlineRemovesLoadsDuringACommittedWriter", chance: true},
	"tier-R24-End":     {profile: "lossy"},
	"tier-R24-Cap":     {profile: "crashes", scenario: "ADeadlineRemovesCopiesFromBeforeTheWriter"},
	"tier-R24-Told":    {scenario: "ADeadlineRemovesCopiesFromBeforeTheWriter", chance: true},
	"tier-R24-Until":   {scenario: "ADeadlineRemovesTheCopyOfANewInstance", chance: true},
	"tier-R24-Lift":    {scenario: "ADeadlineStaysWhenAnotherWriterIsRefused", chance: true},
	"tier-R27-Queued":  {profile: "calm", queues: true},
	"tier-R27-Version": {profile: "queues"},
	"tier-R27-Lease":   {profile: "queues"},
	"tier-R27-Order":   {scenario: "AnIdQueuedOnceIsAppliedBesideBusyIds", chance: true},
	"tier-R27-Within":  {profile: "slow", queues: true, scenario: "AChangeExecutedAfterItsCallerLeftHasNoEffect"},
	// The holder of the lease has read the log, and counts the lag from there.
	"tier-R26": {scenario: "ALoadWithinTheReplicaLagIsNotStored", chance: true, beside: "R10-Known"},
}

// The bounds of a hunt.
const (
	huntOperations = 8_000_000
	huntTime       = 3 * time.Minute
)

func TestTextsOfTheProtocolsRulesAreInTheSource(t *testing.T) {
	m, names := source(t), brokenRules()
	for _, rule := range engineRules() {
		require.NotContains(t, names, rule.Name, "twice")
		names = append(names, rule.Name)
		assert.NoError(t, m.Check(rule))
	}
	text := scenarios(t)
	for name, h := range hunts {
		assert.Contains(t, names, name, "a hunt for no rule")
		assert.True(t, strings.Contains(text, "\nfunc TestScenario"+h.scenario), "no such scenario, of the hunt for %s", name)
		if h.beside != "" {
			assert.NotEmpty(t, edits(h.beside), "no such rule, beside %s: %s", name, h.beside)
		}
	}
}

// A rule is not tested if no history and no scenario fails without it.
func TestRuleOfTheProtocolTakenOutIsMissed(t *testing.T) {
	if testing.Short() {
		t.Skip("it runs the histories many times")
	}
	m := source(t)
	var none mutate.Rule
	whole := buildWithout(t, m, none)
	rules := engineRules()
	for _, name := range brokenRules() {
		rules = append(rules, mutate.Rule{Name: name})
	}
	if os.Getenv("LARDER_RULES") == "all" { // make simulate: it takes many minutes
		out, passed := runRule(t, whole, "", "^TestScenario", hunt{})
		require.True(t, passed, "with all rules: %s", out)
	} else if os.Getenv("LARDER_RULE") == "" {
		few := []string{"R6", "R14", "R21", "R27-Queued", "tier-R11", "tier-R24-End", "tier-R27-Version"}
		rules = slices.DeleteFunc(rules, func(r mutate.Rule) bool { return !slices.Contains(few, r.Name) })
	}
	if names := os.Getenv("LARDER_RULE"); names != "" {
		chosen := strings.Split(names, ",")
		rules = slices.DeleteFunc(rules, func(r mutate.Rule) bool { return !slices.Contains(chosen, r.Name) })
		require.Len(t, rules, len(chosen), "LARDER_RULE names a rule that does not exist: %s", names)
	}
	for _, rule := range rules {
		t.Run(rule.Name, func(t *testing.T) {
			binary, edits := whole, slices.Concat(rule.Edits, edits(hunts[rule.Name].beside))
			if len(edits) > 0 {
				binary = buildWithout(t, m, mutate.Rule{Name: rule.Name, Edits: edits})
			}
			begun := time.Now()
			found := missed(t, binary, rule.Name)
			t.Logf("RULE %s is missed in %v %s", rule.Name, time.Since(begun).Round(time.Millisecond), strings.Join(found, " and "))
		})
	}
}

// edits take a rule of the engine out.
func edits(name string) []mutate.Edit {
	for _, rule := range engineRules() {
		if rule.Name == name {
			return rule.Edits
		}
	}
	return nil
}

// missed demands that the scenario of a rule and the histories fail without it, as far as
// its hunt wants that, and returns how they did.
func missed(t *testing.T, binary, rule string) (found []string) {
	t.Helper()
	h := hunts[rule]
	if h.scenario != "" {
		out, passed := runRule(t, binary, rule, "^TestScenario"+h.scenario, h)
		require.NotContains(t, out, "no tests to run")
		mustMiss(t, rule, out, passed)
		found = append(found, "by its scenario")
	}
	if !h.chance {
		out, passed := runRule(t, binary, rule, "^TestSimulation", h)
		mustMiss(t, rule, out, passed)
		m := regexp.MustCompile(`after (\d+) histories, (\d+) operations: (.*)`).FindStringSubmatch(out)
		require.NotNil(t, m, "%s", out)
		found = append(found, fmt.Sprintf("after %s histories, %s operations (%s): %.200s", m[1], m[2], h.profile, m[3]))
	}
	return found
}

// scenarios returns the text of this package's tests.
func scenarios(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob("*_test.go")
	require.NoError(t, err)
	var text strings.Builder
	for _, file := range files {
		raw, err := os.ReadFile(file)
		require.NoError(t, err)
		text.Write(raw)
	}
	return text.String()
}

func source(t *testing.T) *mutate.Module {
	t.Helper()
	m, err := mutate.Open("../../../..")
	require.NoError(t, err)
	return m
}

func buildWithout(t *testing.T, m *mutate.Module, rule mutate.Rule) (binary string) {
	t.Helper()
	binary = filepath.Join(t.TempDir(), "simulate.test")
	require.NoError(t, m.Build(t.Context(), rule, "./core/internal/test/simulate", binary))
	return binary
}

func runRule(t *testing.T, binary, rule, tests string, h hunt) (out string, passed bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), huntTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "-test.run="+tests)
	cmd.Env = append(os.Environ(), "LARDER_SEED=", "LARDER_HISTORY=10000", fmt.Sprint("LARDER_OPERATIONS=", huntOperations), "LARDER_PROFILE="+h.profile)
	if h.queues {
		cmd.Env = append(cmd.Env, "LARDER_QUEUES=1")
	}
	if strings.HasPrefix(rule, "tier-") {
		cmd.Env = append(cmd.Env, "LARDER_BROKEN="+rule)
	}
	var buf bytes.Buffer
	cmd.Stdout, cmd.Stderr = &buf, &buf
	err := cmd.Run()
	if ctx.Err() != nil {
		t.Fatalf("nobody missed %s within %v", rule, huntTime)
	}
	return buf.String(), err == nil
}

// mustMiss demands that tests failed, and for the right reason.
func mustMiss(t *testing.T, rule, out string, passed bool) {
	t.Helper()
	require.False(t, passed, "nobody missed rule %s:\n%s", rule, out)
	require.Regexp(t, "(STALE|SLOW|LOADS|ORDER|LOST): ", out, "it failed for another reason")
	for _, other := range []string{"panic:", "fatal error:", "DATA RACE", "deadlock", "goleak"} {
		require.NotContains(t, out, other)
	}
}
