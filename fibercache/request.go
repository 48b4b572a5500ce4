package fibercache

import (
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"unicode/utf8"

	"github.com/gofiber/fiber/v2"
	view "github.com/gofiber/fiber/v2/utils"
	"github.com/valyala/fasthttp"

	"github.com/larderhq/larder/core/httpcache"
)

// Line implements httpcache.Exchange. The handler sees the scheme and the host that Fiber
// takes from a proxy's fields; the target that came over the wire is then the original.
func (x *exchange) Line() httpcache.Line {
	c, h, uri := x.c, &x.c.Request().Header, x.c.Request().URI()
	length := h.ContentLength()
	l := httpcache.Line{
		Method: c.Method(), Scheme: "http", Host: view.UnsafeString(uri.Host()),
		Path: view.UnsafeString(uri.PathOriginal()), Query: view.UnsafeString(uri.QueryString()),
		HasBody: length > 0 || length == -1, // chunked
	}
	if c.Context().IsTLS() {
		l.Scheme = "https"
	}
	target, wire, host, believed := view.UnsafeString(h.RequestURI()), l.Scheme, view.UnsafeString(h.Host()), l.Scheme
	if _, query, found := strings.Cut(target, "?"); found && query == "" {
		l.BareQuery = l.Query == ""
	}
	fields := x.Fields()
	l.Lacks = ^fields
	scheme, name := false, false
	if fields.Forwarding() {
		scheme, name = forwarded(h)
	}
	if wire == "http" && scheme {
		if believed = c.Protocol(); believed == "https" {
			l.Scheme = believed
		}
	}
	if name {
		l.Host = c.Hostname()
	}
	if believed != wire || !strings.EqualFold(l.Host, host) {
		l.Original = x.origin(believed, wire, host, target)
	} else if !l.HasTarget(target) {
		l.Original = target
	}
	if x.writes || l.Method != fiber.MethodGet && l.Method != fiber.MethodHead {
		l = l.Clone() // a handler that writes may change its request
	}
	return l
}

// forwarded reports whether the request has fields by which Fiber takes a scheme, or a
// host, for the client's. Fiber believes empty ones, too.
func forwarded(h *fasthttp.RequestHeader) (scheme, host bool) {
	for _, key := range h.PeekKeys() {
		switch string(key) {
		case fiber.HeaderXForwardedProto, fiber.HeaderXForwardedProtocol, fiber.HeaderXForwardedSsl, fiber.HeaderXUrlScheme:
			scheme = true
		case fiber.HeaderXForwardedHost:
			host = true
		}
	}
	return scheme, host
}

// origin returns what came over the wire as one URL, where that is not what Fiber
// believes. A scheme that is none stands before it.
func (x *exchange) origin(believed, wire, host, target string) string {
	b := x.target[:0]
	if believed != "http" && believed != "https" {
		b = append(append(b, believed...), ' ')
	}
	if strings.HasPrefix(target, "/") {
		b = append(append(append(append(b, wire...), "://"...), host...), target...)
	} else {
		b = append(append(append(b, target...), ' '), host...)
	}
	x.target = b
	return view.UnsafeString(b)
}

// namesAsTheyCome reports whether the app leaves the names of fields as they are.
func (x *exchange) namesAsTheyCome() bool {
	if x.c == nil {
		return x.asTheyCome
	}
	return x.c.App().Server().DisableHeaderNamesNormalizing
}

// Values implements httpcache.Exchange.
func (x *exchange) Values(name string) []string {
	h := &x.request
	if !x.snapshotTaken {
		h = &x.c.Request().Header
	}
	x.values = x.values[:0]
	if x.namesAsTheyCome() {
		h.VisitAll(func(key, value []byte) {
			if strings.EqualFold(view.UnsafeString(key), name) {
				x.values = append(x.values, view.UnsafeString(value))
			}
		})
		return x.values
	}
	for _, value := range h.PeekAll(name) {
		// fasthttp tells of these, which it keeps apart, also when there are none.
		if len(value) > 0 || name != fiber.HeaderCookie && name != fiber.HeaderContentLength && name != fiber.HeaderTrailer {
			x.values = append(x.values, view.UnsafeString(value))
		}
	}
	return x.values
}

// Content implements httpcache.ContentReader. fasthttp has read all content, unless the app
// streams it; then it is read here where its length is known to be within the limit.
func (x *exchange) Content(limit int) ([]byte, bool) {
	req := x.c.Request()
	if length := req.Header.ContentLength(); length > limit || length < 0 && req.IsBodyStream() {
		return nil, false
	}
	body := req.Body()
	return body, len(body) <= limit
}

// Fields implements httpcache.FieldReporter. fasthttp's VisitAll would parse the
// cookies, and show them from then on in another way than they came.
func (x *exchange) Fields() (set httpcache.FieldSet) {
	h := &x.request
	if !x.snapshotTaken {
		h = &x.c.Request().Header
	}
	raw := x.namesAsTheyCome()
	set.Add(fiber.HeaderCookie) // which PeekKeys leaves out once they are parsed
	for _, key := range h.PeekKeys() {
		name := view.UnsafeString(key)
		if raw {
			if !ascii(name) {
				return httpcache.AllFields // Values folds letters that are no ASCII to some that are
			}
			name = http.CanonicalHeaderKey(name)
		}
		set.Add(name)
	}
	return set
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// HasClientCertificate implements httpcache.FieldReporter.
func (x *exchange) HasClientCertificate() bool {
	state := x.c.Context().TLSConnectionState()
	return state != nil && len(state.PeerCertificates) > 0
}

// SnapshotFields implements httpcache.FieldSnapshotter.
func (x *exchange) SnapshotFields() {
	x.c.Request().Header.CopyTo(&x.request)
	x.snapshotTaken = true
}

// ask shows the handler other conditions than the request's own, and returns what
// undoes that. The header as it was stays untouched meanwhile: middleware outside
// may hold views of it.
func (x *exchange) ask(conditions []httpcache.Field) (undo func()) {
	h := &x.c.Request().Header
	place := reflect.ValueOf(h).Elem()
	was := reflect.New(place.Type()).Elem()
	was.Set(place)
	place.SetZero()
	x.request.CopyTo(h)
	httpcache.DropConditions(func(name string) { drop(h, name) })
	for _, f := range conditions {
		h.Set(f.Name, f.Values[0])
	}
	return func() { place.Set(was) }
}

// Param implements httpcache.Exchange.
func (x *exchange) Param(name string) (string, bool) {
	v := x.c.Params(name)
	if v == "" && name == "*" {
		v = x.c.Params("+")
	}
	if !x.c.App().Config().UnescapePath {
		if decoded, err := url.PathUnescape(v); err == nil {
			v = decoded
		}
	}
	return strings.Clone(v), v != ""
}
