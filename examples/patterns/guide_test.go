package patterns

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The guide quotes the code that the tests run, all of it and nothing else.
func TestTheGuideQuotesThisCode(t *testing.T) {
	quoted := make(map[string]bool)
	for _, block := range regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(guide(t), -1) {
		quoted[block[1]] = true
	}
	code := make(map[string]bool)
	names := make(map[string]bool)
	for _, e := range excerpts(t) {
		if names[e.name] {
			t.Errorf("two excerpts are called %q", e.name)
		}
		names[e.name], code[e.text] = true, true
		if !quoted[e.text] {
			t.Errorf("the guide lacks %q:\n%s", e.name, e.text)
		}
	}
	if len(code) == 0 {
		t.Error("no excerpts")
	}
	for block := range maps.Keys(quoted) {
		if !code[block] {
			t.Errorf("this block of the guide is no excerpt:\n%s", block)
		}
	}
}

// Every failure that the guide describes has a test, and the guide names every test
// but those of the guide itself.
func TestTheGuideNamesTheTests(t *testing.T) {
	named := regexp.MustCompile(`\bTest[A-Z]\w+`).FindAllString(guide(t), -1)
	var there []string
	for _, text := range files(t, "*_test.go") {
		for _, f := range regexp.MustCompile(`(?m)^func (Test\w+)\(t `).FindAllStringSubmatch(text, -1) {
			if !strings.HasPrefix(f[1], "TestTheGuide") {
				there = append(there, f[1])
			}
		}
	}
	if len(there) == 0 {
		t.Error("no tests")
	}
	for _, name := range there {
		if !slices.Contains(named, name) {
			t.Errorf("the guide does not name %s", name)
		}
	}
	for _, name := range named {
		if !slices.Contains(there, name) {
			t.Errorf("the guide names %s, which is not there", name)
		}
	}
}

func guide(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func files(t *testing.T, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(text))
	}
	return texts
}

type excerpt struct{ name, text string }

// excerpts are what stands between the marks, indented as in a file of its own.
func excerpts(t *testing.T) []excerpt {
	t.Helper()
	mark := regexp.MustCompile(`(?ms)^(\t*)// guide: ([^\n]+)\n(.*?)^\t*// guide: end$`)
	var all []excerpt
	for _, text := range files(t, "*.go") {
		for _, m := range mark.FindAllStringSubmatch(text, -1) {
			lines := strings.Split(strings.TrimSpace(m[3]), "\n")
			for i, line := range lines {
				lines[i] = strings.TrimPrefix(line, m[1])
			}
			all = append(all, excerpt{m[2], strings.Join(lines, "\n") + "\n"})
		}
	}
	return all
}
