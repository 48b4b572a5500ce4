package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// part is one of the suite's parts, with its tests.
type part struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	Tests []test `json:"tests"`
}

type test struct {
	ID        string   `json:"id"`
	Name      string   `json:"name"`
	Kind      string   `json:"kind"` // required, optimal or check
	DependsOn []string `json:"depends_on"`
}

func has(parts []part, id string) bool {
	for _, p := range parts {
		for _, t := range p.Tests {
			if t.ID == id {
				return true
			}
		}
	}
	return false
}

// result is the client's report of a test: true, or the kind of failure and a
// message.
type result struct {
	passed        bool
	kind, message string
}

// UnmarshalJSON implements json.Unmarshaler.
func (r *result) UnmarshalJSON(b []byte) error {
	if string(b) == "true" {
		r.passed = true
		return nil
	}
	var pair []string
	if err := json.Unmarshal(b, &pair); err != nil {
		return err
	}
	if len(pair) > 0 {
		r.kind = pair[0]
	}
	if len(pair) > 1 {
		r.message = pair[1]
	}
	return nil
}

func read(report []byte) (results map[string]result, err error) {
	if err := json.Unmarshal(report, &results); err != nil {
		return nil, fmt.Errorf("the client's results: %w", err)
	}
	return results, nil
}

// The kinds of tests. A check fails no cache: it records the behaviour of caches.
const (
	required = "required"
	optimal  = "optimal"
	check    = "check"
)

type count struct{ passed, all int }

func (c count) String() string {
	if c.all == 0 {
		return "-"
	}
	return fmt.Sprintf("%d/%d", c.passed, c.all)
}

type score struct {
	parts    []partScore
	failures []failure
}

type partScore struct {
	name   string
	counts map[string]*count // by kind
}

type failure struct{ kind, id, how, message string }

func newCounts() map[string]*count { return map[string]*count{required: {}, optimal: {}, check: {}} }

// judge returns the verdict of the suite's pages: a test counts only if all its dependencies
// have passed.
func judge(parts []part, results map[string]result) *score {
	tests := make(map[string]test)
	for _, p := range parts {
		for _, t := range p.Tests {
			tests[t.ID] = t
		}
	}
	s := new(score)
	for _, p := range parts {
		ps := partScore{p.Name, newCounts()}
		for _, t := range p.Tests {
			c := ps.counts[t.Kind]
			c.all++
			how := verdict(t.ID, tests, results)
			if how == "" {
				c.passed++
			} else if t.Kind != check {
				s.failures = append(s.failures, failure{t.Kind, t.ID, how, results[t.ID].message})
			}
		}
		s.parts = append(s.parts, ps)
	}
	return s
}

// verdict is empty if the test has passed, and otherwise says in which way it has not.
func verdict(id string, tests map[string]test, results map[string]result) string {
	r, ran := results[id]
	if !ran {
		return "not run"
	}
	for _, d := range tests[id].DependsOn {
		if verdict(d, tests, results) != "" {
			return "depends on " + d
		}
	}
	switch {
	case r.passed:
		return ""
	case r.kind == "Setup" && r.message == "retry":
		return "retried"
	case r.kind == "Setup":
		return "setup"
	case r.kind == "Assertion":
		return "failed"
	default:
		return r.kind // of the client's own errors
	}
}

// print writes the score, and returns how many required and optimal tests have passed.
func (s *score) print(out io.Writer, name string) (int, int) {
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%s\trequired\toptimal\tchecks\t\n", name)
	total := newCounts()
	for _, p := range s.parts {
		fmt.Fprintf(w, "%s\t%v\t%v\t%v\t\n", p.name, p.counts[required], p.counts[optimal], p.counts[check])
		for kind, c := range p.counts {
			total[kind].passed += c.passed
			total[kind].all += c.all
		}
	}
	fmt.Fprintf(w, "total\t%v\t%v\t%v\t\n", total[required], total[optimal], total[check])
	w.Flush()
	for _, kind := range []string{required, optimal} {
		fmt.Fprintf(w, "\n")
		for _, f := range s.failures {
			if f.kind == kind {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t\n", f.kind, f.id, f.how, f.message)
			}
		}
		w.Flush()
	}
	for line := range strings.Lines(table.String()) {
		fmt.Fprintln(out, strings.TrimRight(line, " \n"))
	}
	fmt.Fprintln(out)
	return total[required].passed, total[optimal].passed
}
