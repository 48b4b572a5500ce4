package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
)

// report has the results of a run.
type report struct{ http, data []table }

// page returns PEERS.md with the tables.
func page(tables string) string {
	return `# Larder beside other caches

Hits in process of Larder and of other caches, measured in one process and one run by

` + "```sh\nmake bench-peers    # go -C examples/benchmarks run . -peers -write .\n```" + `

Rounds run all contenders of a table in turn; the numbers are medians over the rounds. The ratios are those of one
round, and can be compared between machines; the nanoseconds cannot. Times on one processor are CPU times of the
process, garbage collection included; times on two are wall times of the best round. A hit is one call of the framework's handler, with
a response writer that discards the body: the time of sockets comes on top of all of them alike.

![Time of a hit of 1 KiB](peers.svg)

` + tables
}

func (r report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Machine: %s, %d processors, %s/%s, %s.\n", processor(), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version())
	b.WriteString("\n## Responses\n\n`bare` writes the status, the six fields and the body that the cached handlers write; `same` writes the fields\n" +
		"and the body of Larder's hit. `×` is the ratio to `same`, and in a framework without an adapter to `bare`.\n" +
		"The last but one column counts the runs of a handler of 100 ms for 1,000 concurrent requests for a page that is not cached.\n")
	for _, t := range r.http {
		fmt.Fprintf(&b, "\n### %s\n\n| | 1 KiB, ns | × | 16 KiB, × | 256 KiB, × | 1 KiB on two processors, × | allocations | runs for 1,000 cold requests | answers, against the handler's |\n"+
			"|---|---:|---:|---:|---:|---:|---:|---:|---|\n", t.name)
		for _, row := range t.rows {
			c := row.cells
			fmt.Fprintf(&b, "| %s | %.0f | %.2f | %.2f | %.2f | %.2f | %.0f | %d | %s |\n",
				row.title(), c[0].ns, c[0].ratio, c[1].ratio, c[2].ratio, c[3].ratio, row.allocs, row.herd, row.answers())
		}
	}
	b.WriteString("\n## Values\n\nA hit of one key. `×` is the ratio to Larder's `Map.Get`.\n")
	for _, t := range r.data {
		fmt.Fprintf(&b, "\n### A hit of %s\n\n| | ns | × | on two processors, × | allocations | differences |\n|---|---:|---:|---:|---:|---|\n", t.name)
		for _, row := range t.rows {
			c := row.cells
			fmt.Fprintf(&b, "| %s | %.0f | %.2f | %.2f | %.0f | %s |\n", row.title(), c[0].ns, c[0].ratio, c[1].ratio, row.allocs, row.differs)
		}
	}
	b.WriteString(r.settings())
	return b.String()
}

// title returns a contender's name with the version of its module.
func (c contender) title() string {
	switch {
	case c.name == ours:
		return "**Larder**"
	case c.module == "":
		return "`" + c.name + "`"
	}
	return c.name + " " + version(c.module)
}

func (c contender) answers() string {
	if c.differs == "" && c.module != "" {
		return "the same"
	}
	return c.differs
}

// settings lists the settings that differ from a README.
func (r report) settings() string {
	var list []string
	for _, t := range slices.Concat(r.http, r.data) {
		for _, row := range t.rows {
			if line := "- " + row.name + ": " + row.setting + ".\n"; row.setting != "" && !slices.Contains(list, line) {
				list = append(list, line)
			}
		}
	}
	if list == nil {
		return ""
	}
	return "\n## Settings\n\nEach cache is set up as its README says, with a lifetime of an hour. Beyond that:\n\n" + strings.Join(list, "")
}

// version returns the version of a module in this program.
func version(module string) string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == module {
				if i := strings.LastIndexByte(m.Version, '-'); strings.Count(m.Version, "-") == 2 {
					return m.Version[i+1:] // a commit without a tag
				}
				return m.Version
			}
		}
	}
	return ""
}

// processor returns the model of the processors, where the system states it.
func processor() string {
	text, _ := os.ReadFile("/proc/cpuinfo") // Linux only
	for line := range strings.Lines(string(text)) {
		if name, model, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(model)
		}
	}
	return "unknown processor"
}
