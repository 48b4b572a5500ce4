//go:build mutation

package adaptertest_test

import (
	"bufio"
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/adaptertest"
	"github.com/larderhq/larder/core/internal/test/mutate"
)

// mutation takes one rule out of the source.
type mutation struct {
	mutate.Rule
	cases []string // that must fail; more may
}

// TestTable checks that the table fits the source: each text is in it, and each case exists.
func TestTable(t *testing.T) {
	m, err := mutate.Open("../..")
	require.NoError(t, err)
	known, rules := map[string]bool{}, map[string]bool{}
	for _, name := range adaptertest.CaseNames() {
		known[name] = true
	}
	for _, mut := range mutations() {
		assert.False(t, rules[mut.Name], "twice: %s", mut.Name)
		rules[mut.Name] = true
		assert.NoError(t, m.Check(mut.Rule))
		for _, name := range mut.cases {
			assert.True(t, known[name], "%s: no such case: %s", mut.Name, name)
		}
	}
	for name := range unnoticed() {
		assert.True(t, known[name], "unnoticed: no such case: %s", name)
	}
}

// TestMutations runs the suite of net/http with each mutation of the table. By default, a
// mutation is tried on the cases that its row names. With LARDER_CASES=all the whole suite
// runs for each mutation, and each case has to fail with at least one of them.
func TestMutations(t *testing.T) {
	m := copyModule(t)
	whole := os.Getenv("LARDER_CASES") == "all"
	base := m.run(t, mutate.Rule{}, nil)
	require.Empty(t, base.buildError)
	passing := base.with("PASS")
	for name := range base.with("FAIL") {
		t.Logf("fails without any mutation, and is left out: %s", name)
	}
	t.Logf("%d cases pass without a mutation", len(passing))

	var mu sync.Mutex
	killers := map[string][]string{} // mutations that each case has noticed
	ran := 0
	t.Run("take out", func(t *testing.T) {
		for _, mut := range mutations() {
			t.Run(mut.Name, func(t *testing.T) {
				t.Parallel()
				var cases []string
				if !whole {
					cases = mut.cases
				}
				r := m.run(t, mut.Rule, cases)
				require.Empty(t, r.buildError, "the mutated source does not build")
				failed := r.with("FAIL")
				for _, name := range mut.cases {
					name = rewrite(name)
					if base.verdicts[name] == "FAIL" {
						continue
					}
					require.True(t, passing[name], "no such case: %s", name)
					if !failed[name] {
						t.Errorf("still passes: %s", name)
					}
				}
				mu.Lock()
				defer mu.Unlock()
				ran++
				for name := range failed {
					if passing[name] {
						killers[name] = append(killers[name], mut.Name)
					}
				}
				t.Logf("%d cases fail", len(failed))
			})
		}
	})
	if !whole || ran < len(mutations()) {
		return
	}
	excused := map[string]bool{}
	for name := range unnoticed() {
		excused[rewrite(name)] = true
	}
	var none []string
	for name := range passing {
		if killers[name] == nil && !excused[name] {
			none = append(none, name)
		}
		if killers[name] != nil && excused[name] {
			t.Logf("is excused, but has failed: %s, by %q", name, killers[name])
		}
	}
	slices.Sort(none)
	t.Logf("%d mutations; %d of %d cases have failed by at least one; %d are excused", ran, len(killers), len(passing), len(excused))
	for _, name := range none {
		t.Errorf("passes whatever is taken out: %s", name)
	}
}

// rewrite returns a name as testing prints it.
func rewrite(name string) string { return strings.ReplaceAll(name, " ", "_") }

// module is a copy of the source, which does not change meanwhile.
type module struct {
	*mutate.Module
	dir string
}

func copyModule(t *testing.T) module {
	t.Helper()
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		switch {
		case d.IsDir() && rel != "." && (strings.HasPrefix(d.Name(), ".") || rel == "examples"):
			return filepath.SkipDir
		case d.IsDir():
			return os.MkdirAll(filepath.Join(dir, rel), 0o755)
		case filepath.Ext(rel) == ".go" || filepath.Ext(rel) == ".lua" || rel == "go.mod" || rel == "go.sum":
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, rel), text, 0o600)
		}
		return nil
	}))
	m, err := mutate.Open(dir)
	require.NoError(t, err)
	return module{m, dir}
}

// results are the verdicts on the cases.
type results struct {
	verdicts   map[string]string
	buildError string
}

func (r results) with(verdict string) map[string]bool {
	names := map[string]bool{}
	for name, v := range r.verdicts {
		if v == verdict {
			names[name] = true
		}
	}
	return names
}

// run builds the suite without a rule, and runs the given cases, or all if there are none.
// A case that ends the process has failed; the others are run without it.
func (m module) run(t *testing.T, rule mutate.Rule, cases []string) results {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "suite.test")
	if err := m.Build(t.Context(), rule, "./nethttp", binary); err != nil {
		return results{buildError: err.Error()}
	}
	r := results{verdicts: map[string]string{}}
	for deaths := 0; deaths < 30; deaths++ {
		args := []string{"-test.run=^TestAdapter$" + oneOf(cases), "-test.v", "-test.timeout=5m"}
		if len(r.verdicts) > 0 {
			args = append(args, "-test.skip=^TestAdapter$"+oneOf(slices.Collect(maps.Keys(r.verdicts))))
		}
		cmd := exec.Command(binary, args...)
		cmd.Dir = filepath.Join(m.dir, "nethttp")
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		if ended := r.read(out); ended {
			break
		}
	}
	return r
}

// oneOf returns the second level of a pattern of test names: exactly the cases, or any if
// there are none.
func oneOf(cases []string) string {
	if len(cases) == 0 {
		return ""
	}
	quoted := make([]string, len(cases))
	for i, name := range cases {
		quoted[i] = regexp.QuoteMeta(rewrite(name))
	}
	return "/^(" + strings.Join(quoted, "|") + ")$"
}

// line matches the verdict on a case in a verbose run.
var line = regexp.MustCompile(`^\s*(?:=== (RUN) +|--- (PASS|FAIL|SKIP): )TestAdapter/(\S+)`)

// read reads the output of one run, and reports whether it came to its end.
func (r results) read(out []byte) (ended bool) {
	running := ""
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "--- PASS: TestAdapter ") || strings.HasPrefix(lines.Text(), "--- FAIL: TestAdapter ") {
			ended = true
		}
		m := line.FindStringSubmatch(lines.Text())
		switch {
		case m == nil:
		case m[1] == "RUN":
			running = m[3]
		default:
			r.verdicts[m[3]] = m[2]
			if m[3] == running {
				running = ""
			}
		}
	}
	if bytes.Contains(out, []byte("\npanic: ")) || bytes.Contains(out, []byte("\nfatal error: ")) {
		ended = false
	}
	if running != "" {
		r.verdicts[running] = "FAIL"
		return false
	}
	return ended || !bytes.Contains(out, []byte("=== RUN"))
}
