package main

import (
	"cmp"
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

Larder and other caches, measured in one process and one run by

` + "```sh\nmake bench-peers    # go -C examples/benchmarks run . -peers -write .\n```" + `

` + "`" + `-only` + "`" + ` chooses groups of tables, and ` + "`" + `-quick` + "`" + ` shows in a minute whether all run. The tables of sockets need ` + "`" + `wrk` + "`" + `, and those of
Redis ` + "`" + `redis-server` + "`" + `; the program starts and ends the servers itself.

## Hits in process

Rounds run all contenders of a table in turn; the numbers are medians over the rounds. The ratios are those of one
round, and can be compared between machines; the nanoseconds cannot. Times on one processor are CPU times of the
process, garbage collection included; times on two are wall times of the best round. A hit is one call of the framework's handler, with
a response writer that discards the body. A section below measures over sockets.

![Time of a hit of 1 KiB](peers.svg)

` + tables
}

func (r report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Machine: %s, %d processors, %s/%s, %s.\n", processor(), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version())
	if len(r.http) > 0 {
		r.responses(&b)
	}
	if len(r.data) > 0 {
		r.values(&b)
	}
	b.WriteString(r.ahead())
	b.WriteString(r.settings())
	return b.String()
}

func (r report) responses(b *strings.Builder) {
	b.WriteString("\n## Responses\n\n`bare` writes the status, the six fields and the body that the cached handlers write; `same` writes the fields\n" +
		"and the body of Larder's hit. `×` is the ratio to `same`, and in a framework without an adapter to `bare`.\n" +
		"The last but one column counts the runs of a handler of 100 ms for 1,000 concurrent requests for a page that is not cached.\n")
	for _, t := range r.http {
		fmt.Fprintf(b, "\n### %s\n\n| | 1 KiB, ns | × | 16 KiB, × | 256 KiB, × | 1 KiB on two processors, × | allocations | runs for 1,000 cold requests | answers, against the handler's |\n"+
			"|---|---:|---:|---:|---:|---:|---:|---:|---|\n", t.name)
		for _, row := range t.rows {
			c := row.cells
			fmt.Fprintf(b, "| %s | %.0f | %.2f | %.2f | %.2f | %.2f | %.0f | %d | %s |\n",
				row.title(), c[0].ns, c[0].ratio, c[1].ratio, c[2].ratio, c[3].ratio, row.allocs, row.herd, row.answers())
		}
	}
}

func (r report) values(b *strings.Builder) {
	b.WriteString("\n## Values\n\nA hit of one key. `×` is the ratio to Larder's `Map.Get`.\n")
	for _, t := range r.data {
		fmt.Fprintf(b, "\n### A hit of %s\n\n| | ns | × | on two processors, × | allocations | differences |\n|---|---:|---:|---:|---:|---|\n", t.name)
		for _, row := range t.rows {
			c := row.cells
			fmt.Fprintf(b, "| %s | %.0f | %.2f | %.2f | %.0f | %s |\n", row.title(), c[0].ns, c[0].ratio, c[1].ratio, row.allocs, row.differs)
		}
	}
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

// reasons returns why a peer's hit is faster, where it is.
func reasons() map[string]string {
	return map[string]string{
		"go-chi/stampede":     "its key is the path alone, and it writes the fields of the first response as they were, without Age, Date or a check of the request's Cache-Control and conditions",
		"gin-contrib/cache":   "its key is the URI alone; it sends neither Age nor Cache-Status, and does not look at the request's fields",
		"chenyahui/gin-cache": "its key is the URI alone; it sends neither Age nor Cache-Status, and does not look at the request's fields",
		"Fiber v2's own":      "its key is the path alone; one lock serialises its hits, so that it falls behind on two processors",
		"otter":               "a hit hands out the stored value; Larder's gives each caller a copy, and checks tags and generations",
		"sturdyc":             "a hit hands out the stored value; Larder's gives each caller a copy, and checks tags and generations",
		"eko/gocache":         "a hit hands out the stored value; Larder's gives each caller a copy, and checks tags and generations",
	}
}

// ahead lists the cells in which a peer is faster than Larder.
func (r report) ahead() string {
	var b strings.Builder
	for _, t := range slices.Concat(r.http, r.data) {
		if t.rows[0].name != ours {
			continue
		}
		columns := []string{"1 KiB", "16 KiB", "256 KiB", "1 KiB on two processors"}
		if len(t.rows[0].cells) == 2 {
			columns = []string{"one processor", "two processors"}
		}
		for _, row := range t.rows {
			var where []string
			for i, c := range row.cells {
				if mine := t.rows[0].cells[i].ratio; row.module != "" && c.ratio < mine {
					where = append(where, fmt.Sprintf("%s (%.2f of Larder's time)", columns[i], c.ratio/mine))
				}
			}
			if where != nil {
				fmt.Fprintf(&b, "- %s, %s: %s. Reason: %s.\n", t.name, row.name, strings.Join(where, ", "), cmp.Or(reasons()[row.name], "not known"))
			}
		}
	}
	if b.Len() == 0 {
		return ""
	}
	return "\n## Hits in which a peer is ahead\n\n" + b.String()
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
