package main

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
)

func main() {
	only := flag.String("only", "", "rows whose framework or middleware contains this, with the steps of each difference")
	flag.Parse()
	if err := table(*only); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// table prints a row for each neighbour: the status of the second request, runs of
// the handler without and with Larder, and what differs.
func table(only string) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', 0)
	defer func() { _ = w.Flush() }()
	fmt.Fprintln(w, "framework\tmiddleware\tplace\tsecond request\truns without, with\tdifferences")
	for _, r := range rows() {
		if only != "" && !strings.Contains(strings.ToLower(r.framework+" "+r.middleware), strings.ToLower(only)) {
			continue
		}
		f, err := compare(r.build)
		if err != nil {
			return fmt.Errorf("%s, %s %s: %w", r.framework, r.middleware, r.place, err)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d, %d\t%s\n", r.framework, r.middleware, r.place,
			strings.TrimPrefix(f.cached, "Larder; "), f.without, f.with, told(f.differences, only != ""))
	}
	return nil
}

func told(differences map[string][]string, steps bool) string {
	var out []string
	for _, d := range slices.Sorted(maps.Keys(differences)) {
		if steps {
			d += " (" + strings.Join(differences[d], ", ") + ")"
		}
		out = append(out, d)
	}
	return strings.Join(out, "; ")
}
