package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// section is a table of PEERS.md with its text.
type section struct {
	title, text string
	head        []string
	lines       [][]string
}

// add appends a line of cells.
func (s *section) add(cells ...string) { s.lines = append(s.lines, cells) }

func (s *section) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n### %s\n\n%s\n", s.title, s.text)
	if len(s.lines) == 0 {
		return b.String()
	}
	fmt.Fprintf(&b, "\n| %s |\n|---|%s\n", strings.Join(s.head, " | "), strings.Repeat("---:|", len(s.head)-1))
	for _, line := range s.lines {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(line, " | "))
	}
	return b.String()
}

// group is a part of the measurement that -only can choose.
type group struct {
	name, title string
	limit       time.Duration
	run         func(ctx context.Context, cfg config) ([]section, error)
}

// The groups hits and values come before these, and are part of every run without -only.
const (
	hitsGroup   = "hits"
	valuesGroup = "values"
)

func groups() []group {
	return []group{
		{"sockets", "Requests over sockets", 3 * time.Minute, measureSockets},
		{"redis", "Over one Redis", 3 * time.Minute, measureRedis},
		{"purge", "Invalidation by tag", 3 * time.Minute, measurePurge},
		{"stampede", "Stampedes", time.Minute, measureStampede},
		{"memory", "Memory", 4 * time.Minute, measureMemory},
		{"growth", "Growth with instances", 2 * time.Minute, measureGrowth},
	}
}

// groupNames returns the names that -only allows.
func groupNames() []string {
	names := []string{hitsGroup, valuesGroup}
	for _, g := range groups() {
		names = append(names, g.name)
	}
	return names
}

// errMissing is the error of a group whose program is not installed.
var errMissing = errors.New("is missing")

// measureGroups runs the chosen groups. A group that fails leaves its error in the report, and
// the others run.
func measureGroups(cfg config) (sections string, err error) {
	var b strings.Builder
	for _, g := range groups() {
		if !slices.Contains(cfg.only, g.name) {
			continue
		}
		start := time.Now()
		list, e := g.measure(cfg)
		fmt.Fprintf(&b, "\n## %s\n", g.title)
		for _, s := range list {
			b.WriteString(s.markdown())
		}
		if e != nil {
			fmt.Fprintf(&b, "\nNot measured: %v.\n", e)
			err = errors.Join(err, fmt.Errorf("%s: %w", g.name, e))
		}
		fmt.Fprintf(&b, "\nThe tables of `-only %s` took %.0f s.\n", g.name, time.Since(start).Seconds())
	}
	return b.String(), err
}

func (g group) measure(cfg config) ([]section, error) {
	ctx, cancel := context.WithTimeout(context.Background(), g.limit)
	defer cancel()
	return g.run(ctx, cfg)
}

// size returns a number of entries or operations, or a hundredth of it with -quick.
func (c config) size(n int) int {
	if c.quick {
		return max(1, n/100)
	}
	return n
}

// Formats of cells.
func whole(v float64) string { return fmt.Sprintf("%.0f", v) }
func tenth(v float64) string { return fmt.Sprintf("%.1f", v) }
func exact(n int) string     { return fmt.Sprint(n) }

func duration(d time.Duration) string { return d.Round(time.Microsecond).String() }
