package main

import (
	"fmt"
	"os"
	"strings"
)

// markdown returns the table, with a row for each situation and a column for each cache.
func markdown(columns []column) string {
	var b strings.Builder
	b.WriteString("| situation |")
	for _, c := range columns {
		fmt.Fprintf(&b, " %s %s |", c.front.name, c.version)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(columns)) + "\n")
	for i, s := range situations {
		b.WriteString("| " + s.name + " |")
		for _, c := range columns {
			b.WriteString(" " + c.cells[i] + " |")
		}
		b.WriteString("\n")
	}
	return b.String()
}

// replaceTable puts the table between two marks of a Markdown file.
func replaceTable(file, table string) error {
	const begin, end = "<!-- table -->\n", "<!-- end of table -->"
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	head, rest, ok := strings.Cut(string(raw), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no marks for the table: %q and %q", file, strings.TrimSpace(begin), end)
	}
	return os.WriteFile(file, []byte(head+begin+table+end+tail), 0o644)
}
