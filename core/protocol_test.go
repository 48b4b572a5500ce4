package core_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every file, function, test and mutant that PROTOCOL.md cites is in the sources of core.
func TestProtocolCitesWhatExists(t *testing.T) {
	text, err := os.ReadFile("PROTOCOL.md")
	require.NoError(t, err)
	protocol := string(text)
	s := readSources(t, ".")

	for _, file := range regexp.MustCompile(`[\w/-]+\.(?:go|lua)\b`).FindAllString(protocol, -1) {
		if !s.hasFile(strings.TrimPrefix(file, "core/")) {
			t.Errorf("PROTOCOL.md cites the file %s, which does not exist", file)
		}
	}
	for _, name := range regexp.MustCompile("`(Test\\w+)(?:…)?`").FindAllStringSubmatch(protocol, -1) {
		if !strings.Contains(s.tests, "func "+name[1]) {
			t.Errorf("PROTOCOL.md cites the test %s, which does not exist", name[1])
		}
	}
	for _, p := range strings.Split(protocol, "\n\n") {
		switch {
		case strings.HasPrefix(p, "*Code.*"):
			checkCitedFunctions(t, s, p)
		case strings.HasPrefix(p, "*Tests.*"):
			checkCitedMutants(t, s, p)
			checkCitedCases(t, s, p)
		}
	}
}

// checkCitedFunctions checks the names in parentheses behind a file's name.
func checkCitedFunctions(t *testing.T, s *sources, code string) {
	t.Helper()
	for _, list := range regexp.MustCompile("\\.(?:go|lua)`? \\(([^)]*)\\)").FindAllStringSubmatch(code, -1) {
		for _, name := range regexp.MustCompile("`(?:\\w+\\.)?(\\w+)`").FindAllStringSubmatch(list[1], -1) {
			if !s.declared[name[1]] {
				t.Errorf("PROTOCOL.md cites the function %s, which does not exist: %s", name[1], strings.Join(strings.Fields(code), " "))
			}
		}
	}
}

// checkCitedMutants checks the rules that tests take out: `R4`, `tier-R11`, or `-Cap` after `tier-R24-Begin`.
func checkCitedMutants(t *testing.T, s *sources, tests string) {
	t.Helper()
	rule := ""
	for _, m := range regexp.MustCompile("`((?:tier-)?R\\d+)?(-\\w+)?`").FindAllStringSubmatch(tests, -1) {
		if m[1] != "" {
			rule = m[1]
		}
		if name := rule + m[2]; !strings.Contains(s.tests, `"`+name+`"`) {
			t.Errorf("PROTOCOL.md cites the mutant %s, which no table has", name)
		}
	}
}

// checkCitedCases checks the cases of the suites for tiers and adapters, in quotation marks.
func checkCitedCases(t *testing.T, s *sources, tests string) {
	t.Helper()
	for _, name := range regexp.MustCompile(`"([^"]+)"`).FindAllStringSubmatch(tests, -1) {
		words := strings.Trim(strings.Join(strings.Fields(name[1]), " "), "… ")
		if !strings.Contains(s.suites, words) {
			t.Errorf("PROTOCOL.md cites the case %q, which no suite has", words)
		}
	}
}

// sources is the text of all Go and Lua files below a folder.
type sources struct {
	files    []string
	declared map[string]bool // functions and types
	tests    string          // of package tests
	suites   string          // of the suites that other packages run
}

var declaration = regexp.MustCompile(`(?m)^(?:func (?:\([^)]*\) )?|type |(?:local )?function )(\w+)`)

func readSources(t *testing.T, root string) *sources {
	t.Helper()
	s := sources{declared: make(map[string]bool)}
	var code, tests, suites strings.Builder
	require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".go" && filepath.Ext(path) != ".lua" {
			return err
		}
		text, err := os.ReadFile(path)
		path = filepath.ToSlash(path)
		s.files = append(s.files, "/"+path)
		to := &code
		switch {
		case strings.HasSuffix(path, "_test.go"):
			to = &tests
		case strings.Contains(path, "tiertest/"), strings.Contains(path, "adaptertest/"):
			to = &suites
		}
		to.Write(text)
		return err
	}))
	for _, d := range declaration.FindAllStringSubmatch(code.String(), -1) {
		s.declared[d[1]] = true
	}
	s.tests, s.suites = tests.String(), suites.String()
	return &s
}

// hasFile reports whether a file has a path that ends with the path cited.
func (s *sources) hasFile(cited string) bool {
	for _, f := range s.files {
		if strings.HasSuffix(f, "/"+cited) {
			return true
		}
	}
	return false
}
