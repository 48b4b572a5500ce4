package main

import (
	"fmt"
	"html"
	"strings"
)

// svg returns a bar chart of the time of a hit of 1 KiB.
func (r report) svg() string {
	const (
		barHeight, gap, left, width = 16, 5, 220, 760
		head                        = 26
	)
	longest, height := 1.0, 10
	for _, t := range r.http {
		height += head + len(t.rows)*(barHeight+gap)
		for _, row := range t.rows {
			if row.name != "victorspringer/http-cache" { // its bar is cut, or the others would be dots
				longest = max(longest, row.cells[0].ns)
			}
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", width, height)
	y := 0
	for _, t := range r.http {
		y += head
		fmt.Fprintf(&b, `<text x="10" y="%d" font-weight="bold">%s</text>`+"\n", y-7, html.EscapeString(t.name))
		for _, row := range t.rows {
			ns, cut := row.cells[0].ns, ""
			if ns > longest {
				cut = " (cut)"
			}
			length := min(ns, longest) / longest * (width - left - 100)
			fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`, left-8, y+barHeight-4, html.EscapeString(row.name))
			fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`, left, y, length, barHeight, row.colour())
			fmt.Fprintf(&b, `<text x="%.1f" y="%d">%.0f ns%s</text>`+"\n", left+length+6, y+barHeight-4, ns, cut)
			y += barHeight + gap
		}
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// colour returns the colour of a contender's bar.
func (c contender) colour() string {
	switch c.name {
	case ours:
		return "#1f6f43"
	case same, bare:
		return "#b8b8b8"
	}
	return "#c98b3c"
}
