//go:build !mutants

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

	"github.com/stretchr/testify/require"
)

// hunt is how a rule that is taken out is to be missed.
type hunt struct {
	profile  string // of histories that are likely to miss it; "": all
	scenario string // the scripted test that does; "": none is needed
	chance   bool   // histories are not expected to
	queues   bool   // of histories that all have queues
}

// hunts has those rules that need more than histories of all kinds.
var hunts = map[string]hunt{
	"R2":               {scenario: "GivenAnInstanceThatCannotRenewItsLayout", chance: true},
	"R4":               {profile: "slow"},
	"R5":               {profile: "slow"},
	"R6":               {profile: "lossy"},
	"R6-Era":           {profile: "migrations"},
	"R7":               {profile: "slow", scenario: "GivenALoadOfAnInstanceThatHearsNothing", chance: true},
	"R7-Old":           {scenario: "GivenALoadThatReadsWhatIsLegalYet", chance: true},
	"R9":               {scenario: "GivenAWriterThatDiesAfterItsCommit", chance: true},
	"R10":              {profile: "slow"},
	"R10-Known":        {scenario: "GivenAValueMadeOfAnother", chance: true},
	"R10-Lapsed":       {profile: "crashes", scenario: "GivenAWriterThatDies_WhenALoadNamesItsTagLate", chance: true},
	"R12":              {scenario: "GivenAColdKey", chance: true},
	"R14":              {profile: "slow"},
	"R15":              {profile: "slow"},
	"R15-All":          {scenario: "GivenAValueMadeOfMany", chance: true},
	"R16":              {profile: "full"},
	"R18":              {profile: "lossy"},
	"R18-Era":          {scenario: "GivenAHeadThatComesLate_WhenItsEraHasEnded", chance: true},
	"R19":              {scenario: "GivenAHeadThatComesLate_WhenInvalidatedAfter", chance: true},
	"R20":              {profile: "evictions"},
	"R21":              {scenario: "GivenAnInstanceBehindTheLog", chance: true},
	"R21-Server":       {profile: "failovers"},
	"R22":              {scenario: "GivenASuspendedMachine", chance: true},
	"R23":              {profile: "lossy"},
	"R25":              {},
	"R26":              {scenario: "GivenALaggingReplica_WhenLoadedSoon", chance: true},
	"R27-Queued":       {profile: "queues"},
	"R27-Busy":         {scenario: "GivenAQueuedChange_WhenSomebodyHasTheLease", chance: true},
	"R27-Announce":     {profile: "calm", queues: true},
	"R27-Tag":          {scenario: "GivenAWorkerThatDies_WhenItHasSettled", chance: true},
	"R27-Told":         {scenario: "GivenATierThatDoesNotTakeATag", chance: true},
	"R27-Keep":         {scenario: "GivenAnApplyThatOutlivesItsLease", chance: true},
	"tier-R3":          {profile: "lossy"},
	"tier-R8":          {profile: "crashes", scenario: "GivenAWriterThatDiesAfterItsCommit", chance: true},
	"tier-R8-After":    {profile: "slow"},
	"tier-R11":         {profile: "slow"},
	"tier-R13":         {profile: "lossy"},
	"tier-R15":         {profile: "lossy"},
	"tier-R17":         {profile: "migrations"},
	"tier-R21":         {profile: "failovers"},
	"tier-R24-Begin":   {profile: "crashes", scenario: "GivenAWriterThatDiesAfterItsCommit", chance: true},
	"tier-R24-End":     {profile: "lossy"},
	"tier-R24-Cap":     {profile: "crashes", scenario: "GivenAWriterThatDies_WhenItsDeadlineIsOver"},
	"tier-R24-Told":    {scenario: "GivenAWriterThatDies_WhenItsDeadlineIsOver", chance: true},
	"tier-R24-Until":   {scenario: "GivenAWriterThatDies_WhenAnInstanceThatHasJustBegun", chance: true},
	"tier-R24-Lift":    {scenario: "GivenAWriterThatDies_WhenAnotherOneIsRefused", chance: true},
	"tier-R27-Queued":  {profile: "calm", queues: true},
	"tier-R27-Version": {profile: "queues"},
	"tier-R27-Lease":   {profile: "queues"},
	"tier-R27-Order":   {scenario: "GivenIdsThatChangeAllTheTime", chance: true},
	"tier-R27-Within":  {profile: "slow", queues: true, scenario: "GivenAChangeThatIsExecutedLate"},
	"tier-R26":         {scenario: "GivenALaggingReplica_WhenLoadedSoon", chance: true},
}

// The most that a hunt costs.
const (
	huntOperations = 8_000_000
	huntTime       = 3 * time.Minute
)

// A rule that no history and no scenario misses when it is gone is not tested.
func TestGivenARuleOfTheProtocolTakenOut_WhenHistoriesAndScriptsRun_ThenTheyMissIt(t *testing.T) {
	if testing.Short() {
		t.Skip("it runs the histories many times")
	}
	source, err := os.ReadFile("../engine/rules_on.go")
	require.NoError(t, err)
	rules := brokenRules()
	for _, m := range regexp.MustCompile(`= mutant\("(.*)"\)`).FindAllStringSubmatch(string(source), -1) {
		rules = append(rules, m[1])
	}
	behind, err := os.ReadFile("../../wbrules_on.go")
	require.NoError(t, err)
	for _, m := range regexp.MustCompile(`= mutant\("(.*)"\)`).FindAllStringSubmatch(string(behind), -1) {
		rules = append(rules, m[1])
	}
	all := os.Getenv("LARDER_RULES") == "all" // make simulate: it takes many minutes
	if !all {
		rules = []string{"R6", "R14", "R21", "tier-R11", "tier-R24-End", "R27-Queued", "tier-R27-Version"}
	}
	binary := build(t)
	if all {
		out, passed := runRule(t, binary, "", "^TestScenario", hunt{})
		require.True(t, passed, "without a mutant: %s", out)
	}
	for _, rule := range rules {
		if one := os.Getenv("LARDER_RULE"); one != "" && !slices.Contains(strings.Split(one, ","), rule) {
			continue
		}
		t.Run(rule, func(t *testing.T) {
			h := hunts[rule]
			var found []string
			if h.scenario != "" {
				out, passed := runRule(t, binary, rule, "^TestScenario_"+h.scenario, h)
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
			t.Logf("RULE %s is missed %s", rule, strings.Join(found, " and "))
		})
	}
}

func build(t *testing.T) (binary string) {
	t.Helper()
	binary = filepath.Join(t.TempDir(), "simulate.test")
	out, err := exec.CommandContext(t.Context(), "go", "test", "-c", "-tags", "mutants", "-o", binary, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
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
	} else {
		cmd.Env = append(cmd.Env, "LARDER_MUTANT="+rule)
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
