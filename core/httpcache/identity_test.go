package httpcache

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
)

// request is an Exchange of which only the request counts.
type request struct {
	Exchange
	line   Line
	header http.Header
}

func (r *request) Line() Line                  { return r.line }
func (r *request) Values(name string) []string { return r.header[name] }

// said is what two requests must agree in to have one key: a slow and plain list
// of everything that counts.
func (r *request) said(class core.Class, id string) string {
	pairs := strings.Split(r.line.Query, "&")
	decoded := func(pair string) string {
		name, _, _ := strings.Cut(pair, "=")
		if d, err := url.QueryUnescape(name); err == nil {
			return d
		}
		return name
	}
	if !strings.Contains(r.line.Query, ";") && !strings.Contains(r.line.Query, "%") && !class.HTTP.QueryOrder {
		slices.SortStableFunc(pairs, func(a, b string) int { return strings.Compare(decoded(a), decoded(b)) })
	}
	cookies := map[string][]string{}
	for _, line := range r.header["Cookie"] {
		for _, pair := range strings.Split(line, ";") {
			n, v, _ := strings.Cut(pair, "=")
			if n = strings.TrimSpace(n); slices.Contains(class.HTTP.Cookies, n) {
				cookies[n] = append(cookies[n], v)
			}
		}
	}
	trim := func(lines []string) (out []string) {
		for _, l := range lines {
			parts := strings.Split(l, ",")
			if strings.Contains(l, `"`) {
				parts = []string{l}
			}
			for i := range parts {
				parts[i] = strings.Trim(parts[i], " \t")
			}
			out = append(out, strings.Join(parts, ","))
		}
		return out
	}
	return fmt.Sprintf("%q %q %q %q %v %q %q %q %q %v", r.line.Scheme, strings.ToLower(r.line.Host), r.line.Path, pairs,
		r.line.Query == "" && r.line.BareQuery, r.line.Original, id, trim(r.header["X-A"]), trim(r.header["X-B"]), cookies)
}

// Two different requests never have one key, and the same request always has the
// same. Bytes of all parts come from the fuzzer, so that it can try to make one
// part look like another.
func FuzzIdentity(f *testing.F) {
	f.Add("a", "/p", "x=1&y=2", "", "a", "b", "c=1", "u", "a", "/p", "y=2&x=1", "", "a", "b", "c=1", "u")
	f.Add("a", "/p", "", "", "\x1f=\x01", "", "c=1; d=2", "", "a", "/p", "", "", "", "\x1f=\x01", "c=1;c=2", "")
	f.Add("a/b", "/p", "", "/q", "1", "2\n3", "c", "", "a", "/b/p", "", "", "1\n2", "3", "c=", "")
	cache, err := core.New(core.Options{Classes: core.Classes{"c": {TTL: time.Hour, HTTP: core.HTTPPolicy{
		Headers: []string{"X-A", "X-B"}, Cookies: []string{"c", "d"},
	}}}})
	require.NoError(f, err)
	f.Cleanup(func() { require.NoError(f, cache.Close()) })
	route, err := NewRoute(Config{
		Cache: cache, Class: "c", Tags: []string{"t"},
		Identity: func(Exchange) (string, bool) { return "", true },
	})
	require.NoError(f, err)
	rt := route.snapshot()

	build := func(host, path, query, original, a, b, cookie string) *request {
		lines := func(s string) []string {
			if s == "" {
				return nil
			}
			return strings.Split(s, "\n")
		}
		r := &request{line: Line{Method: http.MethodGet, Scheme: "http", Host: host, Path: path, Query: query, Original: original}, header: http.Header{}}
		for name, v := range map[string]string{"X-A": a, "X-B": b, "Cookie": cookie} {
			if l := lines(v); l != nil {
				r.header[name] = l
			}
		}
		return r
	}
	f.Fuzz(func(t *testing.T, h1, p1, q1, o1, a1, b1, c1, i1, h2, p2, q2, o2, a2, b2, c2, i2 string) {
		if strings.ContainsAny(h1+h2, "/?#") || strings.ContainsAny(p1+p2, "?") {
			return // no server takes such a host, nor splits a path so
		}
		one, two := build(h1, p1, q1, o1, a1, b1, c1), build(h2, p2, q2, o2, a2, b2, c2)
		k1, why1 := rt.appendKey(nil, one, &one.line, i1)
		k2, why2 := rt.appendKey(nil, two, &two.line, i2)
		if why1 != "" || why2 != "" {
			return
		}
		again, _ := rt.appendKey(make([]byte, 0, 7), one, &one.line, i1)
		require.Equal(t, k1, again)
		if bytes.Equal(k1, k2) && one.said(rt.class, i1) != two.said(rt.class, i2) {
			t.Errorf("one key for two requests:\n%s\n%s\nkey %q", one.said(rt.class, i1), two.said(rt.class, i2), k1)
		}
	})
}

func TestVariantKeysOfDifferentValuesDiffer(t *testing.T) {
	keys := map[string]string{}
	for _, names := range [][]string{nil, {"X-A"}, {"X-B"}, {"X-A", "X-B"}} {
		for _, a := range [][]string{nil, {""}, {"1"}, {"1", "2"}, {"1,2"}, {"2", "1"}} {
			for _, b := range [][]string{nil, {""}, {"1"}} {
				r := &request{header: http.Header{"X-A": a, "X-B": b}}
				var seen []string
				for _, n := range names {
					seen = append(seen, fmt.Sprintf("%s=%q/%t", n, strings.Join(r.header[n], ","), r.header[n] == nil))
				}
				key, said := new(routeSnapshot).variantKey("http://a/p", names, r), fmt.Sprint(names, seen)
				if other, ok := keys[key]; ok {
					require.Equal(t, other, said)
				}
				keys[key] = said
			}
		}
	}
}
