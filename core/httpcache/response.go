package httpcache

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/larderhq/larder/core/httpcache/internal/field"
)

// response is a stored response. It is immutable but for the rendered fields of
// its last hit.
type response struct {
	status int
	fields []Field
	body   []byte

	etag         string
	lastModified time.Time
	encoding     []string // its Content-Encoding
	born         int64    // when its load began, on the engine's clock
	initialAge   int64    // the Age it came with, in seconds

	forAuthorized bool // may be answered to requests with Authorization
	forCookies    bool // may be answered to requests with any Cookie

	key  string   // the key it is stored under
	vary []string // what it varied on: names, sorted

	last atomic.Pointer[rendered]
}

// uncacheable stands under the key of what was found to be so: nobody queues for
// it for a while.
type uncacheable struct{}

// rememberUncacheable is how long that is.
const rememberUncacheable = 30 * time.Second

// hopByHop are the fields that concern one connection (RFC 9110 section 7.6.1,
// RFC 9111 section 3.1).
var hopByHop = map[string]bool{ //nolint:gochecknoglobals // a constant
	"Connection": true, "Keep-Alive": true, "Proxy-Connection": true, "Te": true,
	"Transfer-Encoding": true, "Upgrade": true, "Proxy-Authenticate": true,
	"Proxy-Authentication-Info": true, "Proxy-Authorization": true,
}

// newResponse makes a stored response of what was captured, and returns what it
// adds to the handler's fields, for the answer under way as well.
func newResponse(c *Capture, d decision, etag bool) (r *response, add []Field) {
	r = &response{
		status:        c.Status,
		body:          c.Body,
		initialAge:    d.age,
		encoding:      slices.Clone(c.Header.Values("Content-Encoding")),
		etag:          first(c.Header.Values("Etag")),
		forAuthorized: d.forAuthorized,
		forCookies:    d.forCookies,
	}
	nominated := map[string]bool{}
	for _, line := range c.Header.Values("Connection") {
		for name := range strings.SplitSeq(line, ",") {
			nominated[http.CanonicalHeaderKey(strings.Trim(name, " \t"))] = true
		}
	}
	for _, f := range c.Header.Own() {
		if !hopByHop[f.Name] && !nominated[f.Name] && f.Name != "Age" {
			r.fields = append(r.fields, f)
		}
	}
	if t, ok := field.ParseDate(first(c.Header.Values("Last-Modified"))); ok {
		r.lastModified = t
	}
	if r.status == http.StatusOK && etag && r.etag == "" && len(c.Header.Values("Last-Modified")) == 0 {
		sum := sha256.Sum256(r.body)
		r.etag = `"` + base64.RawURLEncoding.EncodeToString(sum[:18]) + `"`
		add = append(add, Field{Name: "Etag", Values: []string{r.etag}})
	}
	if len(c.Header.Values("Cache-Control")) == 0 && len(c.Header.Values("Expires")) == 0 {
		// Without a word from the handler a browser would keep by its own guess
		// what no invalidation can reach.
		add = append(add, Field{Name: "Cache-Control", Values: []string{"no-cache"}, Mode: Absent})
	}
	r.fields = append(r.fields, add...)
	return r, add
}

// size estimates the memory that the response takes.
func (r *response) size() int {
	n := len(r.body) + 200
	for _, f := range r.fields {
		n += len(f.Name) + 48
		for _, v := range f.Values {
			n += len(v) + 16
		}
	}
	return n
}

// accepts reports whether the request takes the response's encoding.
func (r *response) accepts(ex Exchange) bool {
	return len(r.encoding) == 0 || field.AcceptsEncodings(ex.Values("Accept-Encoding"), r.encoding)
}

// bodyless are the fields that a 304 leaves out: they speak of content that is
// not sent (RFC 9110 section 15.4.5).
var bodyless = map[string]bool{ //nolint:gochecknoglobals // a constant
	"Content-Type": true, "Content-Length": true, "Content-Encoding": true, "Content-Language": true, "Content-Range": true,
}

// answer plans the answer to a request from the stored response.
func (r *response) answer(ex Exchange, method string, extra []Field) Answer {
	a := Answer{Status: r.status, Fields: r.fields, Extra: extra, Body: r.body}
	if r.status == http.StatusOK && r.notModified(ex) {
		a.Status, a.NoBody, a.Body = http.StatusNotModified, true, nil
		a.Fields = make([]Field, 0, len(r.fields))
		for _, f := range r.fields {
			if !bodyless[f.Name] {
				a.Fields = append(a.Fields, f)
			}
		}
		return a
	}
	if r.status == http.StatusNoContent {
		a.NoBody = true
	}
	if method == http.MethodHead {
		a.NoBody = true
		if !hasField(r.fields, "Content-Length") {
			a.Extra = append(extra[:len(extra):len(extra)],
				Field{Name: "Content-Length", Values: []string{strconv.Itoa(len(r.body))}})
		}
	}
	return a
}

func hasField(fields []Field, name string) bool {
	for _, f := range fields {
		if f.Name == name {
			return true
		}
	}
	return false
}

// notModified reports whether the client has this very response (RFC 9110
// sections 13.1.2, 13.1.3 and 13.2.2: If-None-Match wins over If-Modified-Since).
func (r *response) notModified(ex Exchange) bool {
	if tags := ex.Values("If-None-Match"); len(tags) > 0 {
		return field.MatchWeak(tags, r.etag)
	}
	since := ex.Values("If-Modified-Since")
	if len(since) != 1 || r.lastModified.IsZero() {
		return false
	}
	t, ok := field.ParseDate(since[0])
	return ok && !r.lastModified.After(t)
}

func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}
