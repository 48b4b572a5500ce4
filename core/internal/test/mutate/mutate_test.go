package mutate_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/test/mutate"
)

func module(t *testing.T) *mutate.Module {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module example.test\n\ngo 1.25\n",
		"a.go":   "package a\n\nfunc over(n int) bool { return n > 9 }\n\nfunc under(n int) bool { return n < 3 }\n\nfunc twice(n int) int { return n + n }\n",
		"a_test.go": `package a

import "testing"

func TestLimits(t *testing.T) {
	if !over(10) || over(9) || !under(2) || under(3) {
		t.Error("LIMIT: wrong")
	}
}
`,
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	m, err := mutate.Open(dir)
	require.NoError(t, err)
	return m
}

func TestRuleIsMissingInTheBinaryAndLeftInTheSource(t *testing.T) {
	for _, c := range []struct {
		rule   string
		edits  []mutate.Edit
		passes bool
	}{
		{"none", nil, true},
		{"never", []mutate.Edit{mutate.Never("a.go", "n > 9")}, false},
		{"always", []mutate.Edit{mutate.Always("a.go", "n > 9")}, false},
		{"inserted", []mutate.Edit{mutate.After("a.go", "func under(n int) bool {", "n++;")}, false},
		{"two edits that cancel out", []mutate.Edit{mutate.Replace("a.go", "n > 9", "n >= 10"), mutate.Replace("a.go", "n < 3", "n <= 2")}, true},
	} {
		t.Run(c.rule, func(t *testing.T) {
			// given
			m, binary := module(t), filepath.Join(t.TempDir(), "a.test")

			// when
			require.NoError(t, m.Build(t.Context(), mutate.Rule{Name: c.rule, Edits: c.edits}, ".", binary))
			out, err := exec.CommandContext(t.Context(), binary).CombinedOutput()

			// then
			require.Equal(t, c.passes, err == nil, "%s", out)
			if !c.passes {
				require.Contains(t, string(out), "LIMIT: wrong")
			}
			require.NoError(t, m.Check(mutate.Rule{Edits: []mutate.Edit{mutate.Replace("a.go", "n > 9", ""), mutate.Replace("a.go", "n < 3", "")}}), "the source has changed")
		})
	}
}

func TestTextThatIsNotThereExactlyOnceIsRefusedByItsRule(t *testing.T) {
	for _, c := range []struct{ name, file, text, says string }{
		{"missing", "a.go", "n > 10", `rule "r": a.go holds this text 0 times`},
		{"twice", "a.go", "bool", `rule "r": a.go holds this text 2 times`},
		{"no such file", "b.go", "n", `rule "r": open `},
	} {
		t.Run(c.name, func(t *testing.T) {
			// given
			m := module(t)
			r := mutate.Rule{Name: "r", Edits: []mutate.Edit{mutate.Replace(c.file, c.text, "m")}}

			// when
			checked, built := m.Check(r), m.Build(t.Context(), r, ".", filepath.Join(t.TempDir(), "a.test"))

			// then
			require.ErrorContains(t, checked, c.says)
			require.ErrorContains(t, built, c.says)
		})
	}
}

func TestSourceThatDoesNotBuildIsAnErrorOfItsRule(t *testing.T) {
	// given
	m := module(t)

	// when
	err := m.Build(t.Context(), mutate.Rule{Name: "r", Edits: []mutate.Edit{mutate.Replace("a.go", "n > 9", "m > 9")}}, ".", filepath.Join(t.TempDir(), "a.test"))

	// then
	require.ErrorContains(t, err, `without rule "r"`)
	require.ErrorContains(t, err, "undefined: m")
}

func TestDirectoryWithoutAModuleIsRefused(t *testing.T) {
	_, err := mutate.Open(t.TempDir())
	require.ErrorIs(t, err, os.ErrNotExist)
}
