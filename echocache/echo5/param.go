package echo5

import (
	"net/url"
	"strings"

	"github.com/labstack/echo/v5"
)

// Param implements httpcache.Exchange. Where a path's escaping says more than the decoded
// path, it depends on the router's configuration, which cannot be seen from here, whether
// values are decoded: the route with its values put in tells, since that is the path that
// the router has matched.
func (x *exchange) Param(name string) (string, bool) {
	values := x.echo.PathValues()
	v, ok := values.Get(name)
	raw, path := x.url.RawPath, x.url.Path
	if !ok || raw == "" && !strings.Contains(path, "%") { // in which nothing could be decoded again
		return v, ok
	}
	same := func(s string) string { return s }
	switch route := x.echo.Path(); {
	case raw != "" && filled(route, values, same) == raw:
		v, err := url.PathUnescape(v)
		return v, err == nil
	case filled(route, values, same) == path, filled(route, values, unescaped) == path:
		return v, true
	default:
		return "", false // decoded twice, or of another path
	}
}

func unescaped(s string) string {
	if u, err := url.PathUnescape(s); err == nil {
		return u
	}
	return s
}

// filled returns the path of a route with the values of its parameters, in their order.
// static makes what is between parameters.
func filled(route string, values echo.PathValues, static func(string) string) string {
	var b strings.Builder
	for _, v := range values {
		marker := ":" + v.Name
		if v.Name == "*" {
			marker = "*"
		}
		text, rest, found := strings.Cut(route, marker)
		if !found {
			return "" // not a route of Echo's own
		}
		b.WriteString(static(strings.ReplaceAll(text, `\:`, ":")))
		b.WriteString(v.Value)
		if route = rest; marker == "*" {
			return b.String()
		}
	}
	b.WriteString(static(strings.ReplaceAll(route, `\:`, ":")))
	return b.String()
}
