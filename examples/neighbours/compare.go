package main

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// pages is the script that every row runs: what browsers and other clients ask of
// a page, in turn.
var pages = []step{
	{name: "first", method: "GET", path: "/p/1", fields: []string{"Accept-Encoding", "gzip"}},
	{name: "again", method: "GET", path: "/p/1", fields: []string{"Accept-Encoding", "gzip"}},
	{name: "plain", method: "GET", path: "/p/1"},
	{name: "plain again", method: "GET", path: "/p/1"},
	{name: "gzip again", method: "GET", path: "/p/1", fields: []string{"Accept-Encoding", "gzip"}},
	{name: "validated", method: "GET", path: "/p/1", fields: []string{"Accept-Encoding", "gzip"}, validate: true},
	{name: "range", method: "GET", path: "/p/1", fields: []string{"Range", "bytes=100-1299"}},
	{name: "range, gzip", method: "GET", path: "/p/1", fields: []string{"Range", "bytes=100-1299", "Accept-Encoding", "gzip"}},
	{name: "head", method: "HEAD", path: "/p/1"},
	{name: "origin a", method: "GET", path: "/p/1", fields: []string{"Origin", originA}},
	{name: "origin b", method: "GET", path: "/p/1", fields: []string{"Origin", originB}},
	{name: "foreign origin", method: "GET", path: "/p/1", fields: []string{"Origin", "https://foreign.example"}},
	{name: "origin a again", method: "GET", path: "/p/1", fields: []string{"Origin", originA}},
	{name: "no origin", method: "GET", path: "/p/1"},
	{name: "a cookie", method: "GET", path: "/p/1", fields: []string{"Cookie", "theme=dark"}},
	{name: "no such page", method: "GET", path: "/p/2"},
	{name: "no such page again", method: "GET", path: "/p/2"},
	{name: "visitor a", method: "GET", path: "/p/1?v", visitor: "a"},
	{name: "visitor b", method: "GET", path: "/p/1?v", visitor: "b"},
	{name: "visitor a again", method: "GET", path: "/p/1?v", visitor: "a"},
	{name: "visitor b again", method: "GET", path: "/p/1?v", visitor: "b"},
	{name: "update", method: "PUT", path: "/p/1", fields: []string{"Sec-Fetch-Site", "same-origin"}},
	{name: "after it", method: "GET", path: "/p/1"},
	{name: "after it, gzip", method: "GET", path: "/p/1", fields: []string{"Accept-Encoding", "gzip"}},
	{name: "after it, origin a", method: "GET", path: "/p/1", fields: []string{"Origin", originA}},
}

const (
	originA = "https://a.example"
	originB = "https://b.example"
)

// found is the result of one row's comparison.
type found struct {
	cached      string              // the Cache-Status of the second request
	without     int                 // runs of the handler without Larder
	with        int                 // and with it
	differences map[string][]string // what differs, and at which steps
}

// compare runs the script against the row's site without Larder and with it.
func compare(b build) (found, error) {
	f := found{differences: map[string][]string{}}
	bare, err := start(b, false)
	if err != nil {
		return f, err
	}
	defer bare.stop()
	larder, err := start(b, true)
	if err != nil {
		return f, err
	}
	defer larder.stop()

	plain, cached := newClient(bare), newClient(larder)
	defer plain.close()
	defer cached.close()
	var want, got []answer
	for _, st := range pages {
		want = append(want, plain.ask(st))
		got = append(got, cached.ask(st))
	}
	f.cached = got[1].fields.Get("Cache-Status")
	f.without, f.with = bare.shop.count(), larder.shop.count()

	c := comparison{varying: volatile(want), bare: history{}, with: history{}}
	for i, st := range pages {
		for _, d := range c.differences(st, want[i], got[i]) {
			f.differences[d] = append(f.differences[d], st.name)
		}
	}
	return f, nil
}

// volatile returns what differs between equal requests to the site without Larder:
// fields such as request ids, cookies and counters, and content that is one
// visitor's own (under the name "content").
func volatile(want []answer) map[string]bool {
	v := map[string]bool{"Date": true}
	for i, a := range want {
		for j := range i {
			if !sameRequest(i, j) {
				continue
			}
			if a.content != want[j].content {
				v["content"] = true
			}
			for name, values := range a.fields {
				if other, ok := want[j].fields[name]; ok && !slices.Equal(values, other) {
					v[name] = true
				}
			}
		}
	}
	if v["content"] {
		v["Content-Length"] = true
	}
	return v
}

// sameRequest reports whether two steps send the same request on the same side of the
// update. The visitor does not count.
func sameRequest(i, j int) bool {
	update := slices.IndexFunc(pages, func(st step) bool { return st.method == http.MethodPut })
	a, b := pages[i], pages[j]
	return a.method == b.method && a.path == b.path && slices.Equal(a.fields, b.fields) && !a.validate && !b.validate &&
		(i < update) == (j < update)
}

// history maps a volatile value to the first visitor that received it.
type history map[string]string

// others reports whether another visitor received the value before. A request without
// cookies counts as a visitor of its own.
func (h history) others(st step, value string) bool {
	visitor := st.visitor
	if visitor == "" {
		visitor = st.name
	}
	first, ok := h[value]
	if !ok {
		h[value] = visitor
	}
	return ok && first != visitor
}

// comparison holds the answers of two sites so far.
type comparison struct {
	varying    map[string]bool
	bare, with history
}

// differences lists the differences between the answers to one step, except for the changes
// that Larder means to make.
func (c *comparison) differences(st step, want, got answer) []string {
	if want.err != got.err {
		return []string{"broken: " + got.err + " (without Larder: " + want.err + ")"}
	}
	var out []string
	if m := meant(st, want, &got); m != "" {
		out = append(out, m)
	}
	if want.status != got.status {
		out = append(out, fmt.Sprintf("status %d -> %d", want.status, got.status))
	}
	out = append(out, c.content(st, want, got)...)
	for _, name := range names(want.fields, got.fields) {
		out = append(out, c.field(st, name, want.fields.Values(name), got.fields.Values(name))...)
	}
	return out
}

func (c *comparison) content(st step, want, got answer) []string {
	if !c.varying["content"] || st.method != http.MethodGet {
		if want.content != got.content {
			return []string{"content"}
		}
		return nil
	}
	before := c.bare.others(st, want.content)
	if c.with.others(st, got.content) && !before {
		return []string{"content of another visitor"}
	}
	return nil
}

// field compares the values of one field. A volatile field must be present in both answers,
// with a value that no other visitor has received.
func (c *comparison) field(st step, name string, was, is []string) []string {
	switch {
	case name == "Date" || !c.varying[name] && sameField(name, was, is):
		return nil
	case len(is) == 0:
		return []string{name + " lost"}
	case len(was) == 0:
		return []string{name + " added"}
	case !c.varying[name]:
		return []string{name + " changed"}
	case name == "Content-Length":
		return nil
	}
	before := c.bare.others(st, name+strings.Join(was, ","))
	if c.with.others(st, name+strings.Join(is, ",")) && !before {
		return []string{name + " of another visitor"}
	}
	return nil
}

func names(a, b http.Header) []string {
	var out []string
	for name := range a {
		out = append(out, name)
	}
	for name := range b {
		if _, ok := a[name]; !ok {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// sameField compares the values of a field; the order of names in Vary says nothing.
func sameField(name string, a, b []string) bool {
	if name != "Vary" {
		return slices.Equal(a, b)
	}
	return slices.Equal(members(a), members(b))
}

func members(values []string) []string {
	var out []string
	for _, v := range values {
		for m := range strings.SplitSeq(v, ",") {
			out = append(out, strings.ToLower(strings.TrimSpace(m)))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
