package main

import (
	"flag"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table of README.md")

// TestNeighboursDifferOnlyAsListed runs every row. An unlisted difference fails the test, and
// so does a listed difference that no longer occurs.
func TestNeighboursDifferOnlyAsListed(t *testing.T) {
	for _, r := range rows() {
		t.Run(r.name(), func(t *testing.T) {
			t.Parallel()
			f, err := compare(r.build)
			if err != nil {
				t.Fatal(err)
			}
			for d, steps := range f.differences {
				if r.differ[d] == "" {
					t.Errorf("differs, and no reason is listed: %s (%s)", d, strings.Join(steps, ", "))
				}
			}
			for d := range r.differ {
				if f.differences[d] == nil {
					t.Errorf("listed, but does not differ: %s", d)
				}
			}
			if want := r.second(); !strings.HasPrefix(f.cached, want) {
				t.Errorf("the second request: %q, want %q", f.cached, want)
			}
		})
	}
}

// TestReadmeListsEveryRow compares the table of README.md with the rows.
func TestReadmeListsEveryRow(t *testing.T) {
	const begin, end = "<!-- table -->\n", "<!-- end of table -->"
	raw, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(raw), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatal("README.md has no place for the table")
	}
	want := head + begin + markdown() + end + tail
	if want == string(raw) {
		return
	}
	if !*update {
		t.Fatal("the table of README.md is not that of the rows; write it with: go test -run Readme -update")
	}
	if err := os.WriteFile("README.md", []byte(want), 0o600); err != nil {
		t.Fatal(err)
	}
}

// markdown is the table of README.md: what each row lists.
func markdown() string {
	var b strings.Builder
	b.WriteString("| framework | middleware | place | second request | differences that are left, and why |\n|---|---|---|---|---|\n")
	for _, r := range rows() {
		var left []string
		for _, d := range slices.Sorted(maps.Keys(r.differ)) {
			left = append(left, d+": "+r.differ[d])
		}
		second := "hit"
		if r.uncached != "" {
			second = "`detail=" + r.uncached + "`"
		}
		b.WriteString("| " + strings.Join([]string{r.framework, r.middleware, string(r.place), second, strings.Join(left, "; ")}, " | ") + " |\n")
	}
	return b.String()
}
