package fast

import (
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/valyala/fasthttp"

	"github.com/larderhq/larder/core/httpcache"
)

// Line implements httpcache.Exchange. The handler sees the scheme and the host that Fiber
// takes from a proxy's fields; the target that came over the wire is then the original.
func (x *Exchange) Line() httpcache.Line {
	h, uri := &x.ctx.Request.Header, x.ctx.Request.URI()
	length := h.ContentLength()
	l := httpcache.Line{
		Method: x.Request.Method(), Scheme: "http", Host: str(uri.Host()),
		Path: str(uri.PathOriginal()), Query: str(uri.QueryString()),
		HasBody: length > 0 || length == -1, // chunked
	}
	if x.ctx.IsTLS() {
		l.Scheme = "https"
	}
	target, wire, host, believed := str(h.RequestURI()), l.Scheme, str(h.Host()), l.Scheme
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
		if believed = x.Request.Scheme(); believed == "https" {
			l.Scheme = believed
		}
	}
	if name {
		l.Host = x.Request.Host()
	}
	if believed != wire || !strings.EqualFold(l.Host, host) {
		l.Original = x.origin(believed, wire, host, target)
	} else if !l.HasTarget(target) {
		l.Original = target
	}
	if x.writes || l.Method != http.MethodGet && l.Method != http.MethodHead {
		l = l.Clone() // a handler that writes may change its request
	}
	return l
}

// The fields by which Fiber takes a scheme, or a host, for the client's.
//
//nolint:gochecknoglobals // constants
var (
	schemeFields = []string{"X-Forwarded-Proto", "X-Forwarded-Protocol", "X-Forwarded-Ssl", "X-Url-Scheme"}
	hostFields   = []string{"X-Forwarded-Host"}
)

// forwarded reports whether the request has fields by which Fiber takes a scheme, or a
// host, for the client's. Fiber v2 believes empty ones, too, and v3 those in any spelling.
func forwarded(h *fasthttp.RequestHeader) (scheme, host bool) {
	for _, key := range h.PeekKeys() {
		scheme = scheme || isOneOf(str(key), schemeFields)
		host = host || isOneOf(str(key), hostFields)
	}
	return scheme, host
}

func isOneOf(name string, names []string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, name) })
}

// origin returns what came over the wire as one URL, where that is not what Fiber
// believes. A scheme that is none stands before it.
func (x *Exchange) origin(believed, wire, host, target string) string {
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
	return str(b)
}

// namesAsTheyCome reports whether the app leaves the names of fields as they are.
func (x *Exchange) namesAsTheyCome() bool {
	if x.ctx == nil {
		return x.asTheyCome
	}
	return x.Request.Server().DisableHeaderNamesNormalizing
}

// Values implements httpcache.Exchange.
func (x *Exchange) Values(name string) []string {
	h := &x.request
	if !x.snapshotTaken {
		h = &x.ctx.Request.Header
	}
	x.values = x.values[:0]
	if x.namesAsTheyCome() {
		h.VisitAll(func(key, value []byte) {
			if strings.EqualFold(str(key), name) {
				x.values = append(x.values, str(value))
			}
		})
		return x.values
	}
	for _, value := range h.PeekAll(name) {
		// fasthttp tells of these, which it keeps apart, also when there are none.
		if len(value) > 0 || name != fasthttp.HeaderCookie && name != fasthttp.HeaderContentLength && name != fasthttp.HeaderTrailer {
			x.values = append(x.values, str(value))
		}
	}
	return x.values
}

// Content implements httpcache.ContentReader. fasthttp has read all content, unless the app
// streams it; then it is read here where its length is known to be within the limit.
func (x *Exchange) Content(limit int) ([]byte, bool) {
	req := &x.ctx.Request
	if length := req.Header.ContentLength(); length > limit || length < 0 && req.IsBodyStream() {
		return nil, false
	}
	body := req.Body()
	x.contentRead = len(body) <= limit
	return body, x.contentRead
}

// Fields implements httpcache.FieldReporter. fasthttp's VisitAll would parse the
// cookies, and show them from then on in another way than they came.
func (x *Exchange) Fields() (set httpcache.FieldSet) {
	h := &x.request
	if !x.snapshotTaken {
		h = &x.ctx.Request.Header
	}
	raw := x.namesAsTheyCome()
	set.Add(fasthttp.HeaderCookie) // which PeekKeys leaves out once they are parsed
	for _, key := range h.PeekKeys() {
		name := str(key)
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
func (x *Exchange) HasClientCertificate() bool {
	state := x.ctx.TLSConnectionState()
	return state != nil && len(state.PeerCertificates) > 0
}

// SnapshotFields implements httpcache.FieldSnapshotter.
func (x *Exchange) SnapshotFields() {
	x.ctx.Request.Header.CopyTo(&x.request)
	x.snapshotTaken = true
}

// ask shows the handler other conditions than the request's own, and returns what
// undoes that. The header as it was stays untouched meanwhile: middleware outside
// may hold views of it.
func (x *Exchange) ask(conditions []httpcache.Field) (undo func()) {
	h := &x.ctx.Request.Header
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
func (x *Exchange) Param(name string) (string, bool) {
	v, decoded := x.Request.Param(name)
	if !decoded {
		if plain, err := url.PathUnescape(v); err == nil {
			v = plain
		}
	}
	return strings.Clone(v), v != ""
}
