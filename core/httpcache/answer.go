package httpcache

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/larderhq/larder/core/httpcache/internal/field"
)

// answer plans the answer to a request from the stored response: whole, or that
// its preconditions do not hold, or that the client has it already (RFC 9110 section
// 13), or the ranges it asks for (section 14). The cache stands in for the origin: a
// request that it answers comes to no other place that could look at If-Match and
// If-Unmodified-Since. Where middleware in front may encode the content, the cache cuts
// no range: that middleware would encode the part, and no client could combine it with the
// rest of an encoded whole. lacks are fields that the request is known not to
// have.
func (r *response) answer(ex Exchange, lacks FieldSet, method string, extra []Field) Answer {
	a, etag, recoded := r.inFull(ex, extra)
	switch { // in the order of RFC 9110 section 13.2.2
	case lacks.has(conditionName) && r.part == nil: // as most hits
		a.distinct = r.distinct
	case r.status/100 == 2 && r.preconditionFailed(ex, etag):
		return refusal(a, http.StatusPreconditionFailed)
	case r.status == http.StatusOK && r.notModified(ex, etag):
		return notModified(a)
	case r.part != nil:
		return r.partOf(a, ex)
	case r.status == http.StatusOK && method == http.MethodGet:
		if spec := rangeOf(ex); spec != "" && !r.rangeless && !recoded {
			return r.ranges(a, ex, spec, etag)
		}
	}
	if r.status == http.StatusNoContent {
		a.NoBody = true
	}
	if method == http.MethodHead {
		a.NoBody = true
		if r.status != http.StatusNoContent && !hasField(a.Fields, "Content-Length") {
			a.Extra = append(extra[:len(extra):len(extra)], contentLength(len(a.Body)))
		}
	}
	return a
}

// inFull plans the whole of the stored response, in the coding that suits the request.
// recoded says that middleware in front may encode that content.
func (r *response) inFull(ex Exchange, extra []Field) (a Answer, etag string, recoded bool) {
	a = Answer{Status: int(r.status), Fields: r.sent, Extra: extra, Body: r.body, ErrorMessage: r.failure, length: r.length}
	etag = r.etag
	out := outsideOf(ex)
	if e := r.chosen(ex, out); e != nil {
		a.Fields, a.Body, etag = e.fields, e.body, e.etag
		a.length = e.length
		return a, etag, false
	}
	if !out.encodesContent(r.header()) {
		return a, etag, false
	}
	any := r.forAnyCoding()
	a.Fields = any.fields
	return a, any.etag, true
}

func contentLength(n int) Field {
	return Field{Name: "Content-Length", Values: []string{strconv.Itoa(n)}}
}

// The fields that a 304 leaves out, since they describe content that is not sent (RFC
// 9110 section 15.4.5), and those that a 412 and a 416 leave out besides: a cache that keeps
// one of these must not take it for the response.
var (
	ofContent = map[string]bool{ //nolint:gochecknoglobals // a constant
		"Content-Type": true, "Content-Length": true, "Content-Encoding": true, "Content-Language": true, "Content-Range": true,
		"Accept-Ranges": true,
	}
	ofResponse = map[string]bool{ //nolint:gochecknoglobals // a constant
		"Etag": true, "Last-Modified": true, "Date": true, "Age": true, "Cache-Control": true, "Expires": true, "Pragma": true,
		"Surrogate-Control": true, "Content-Md5": true, "Content-Digest": true, "Repr-Digest": true, "Content-Disposition": true,
	}
)

func notModified(a Answer) Answer {
	a.Status, a.NoBody, a.Body = http.StatusNotModified, true, nil
	a.Fields = without(a.Fields, func(name string) bool { return ofContent[name] })
	return a
}

// refusal answers that the response is not what the request insists on. It is an
// answer of the cache's own making: without the lifetime and the validators of the
// response (RFC 9213 section 3 for those of targeted caches).
func refusal(a Answer, status int, also ...Field) Answer {
	gone := func(name string) bool {
		return ofContent[name] && name != "Accept-Ranges" || ofResponse[name] || strings.HasSuffix(name, "-Cache-Control")
	}
	a.Status, a.NoBody, a.Body = status, true, nil
	a.Fields = append(without(a.Fields, gone), neverKept...)
	a.Extra = append(append(without(a.Extra, gone), also...), contentLength(0))
	return a
}

func without(fields []Field, gone func(name string) bool) []Field {
	rest := make([]Field, 0, len(fields)+len(neverKept))
	for _, f := range fields {
		if !gone(f.Name) {
			rest = append(rest, f)
		}
	}
	return rest
}

// preconditionFailed reports whether the request wants another response than this one
// (RFC 9110 sections 13.1.1 and 13.1.4: If-Match wins over If-Unmodified-Since, which
// says nothing of a response without Last-Modified).
func (r *response) preconditionFailed(ex Exchange, etag string) bool {
	if tags := ex.Values("If-Match"); len(tags) > 0 {
		return !field.MatchStrong(tags, etag)
	}
	since := ex.Values("If-Unmodified-Since")
	if len(since) != 1 || r.lastModified.IsZero() {
		return false
	}
	t, ok := field.ParseDate(since[0])
	return ok && !field.UnmodifiedSince(t, r.lastModified, r.date)
}

// notModified reports whether the client has this very response (RFC 9110
// sections 13.1.2, 13.1.3 and 13.2.2: If-None-Match wins over If-Modified-Since).
// A response without Last-Modified is as old as its Date (RFC 9111 section 4.3.2),
// which is a validator of no response that was made in the same second.
func (r *response) notModified(ex Exchange, etag string) bool {
	if tags := ex.Values("If-None-Match"); len(tags) > 0 {
		return field.MatchWeak(tags, etag)
	}
	changed := r.lastModified
	if changed.IsZero() {
		changed = r.date
	}
	if changed.IsZero() {
		return false
	}
	since := ex.Values("If-Modified-Since")
	if len(since) != 1 {
		return false
	}
	t, ok := field.ParseDate(since[0])
	return ok && field.UnmodifiedSince(t, changed, r.date)
}

// ranges answers a range request (RFC 9110 section 14.2). It ignores a Range field that is
// malformed: then the answer is the whole content.
func (r *response) ranges(a Answer, ex Exchange, spec, etag string) Answer {
	condition := ex.Values("If-Range")
	if !field.IfRangeHolds(condition, etag, r.lastModified, r.date) || len(condition) > 0 && etag == "" && len(r.encodings().encoded) > 0 {
		return a // a date does not tell one encoding from another
	}
	size := int64(len(a.Body))
	spans, ok := field.ParseRange([]string{spec}, size)
	extra := a.Extra[:len(a.Extra):len(a.Extra)]
	switch {
	case !ok:
		return a
	case len(spans) == 0:
		return refusal(a, http.StatusRequestedRangeNotSatisfiable,
			Field{Name: "Content-Range", Values: []string{"bytes */" + strconv.FormatInt(size, 10)}})
	case len(spans) == 1:
		a.Body = a.Body[spans[0].First : spans[0].Last+1]
		a.Extra = append(extra, contentRange(spans[0], size), contentLength(len(a.Body)))
	default:
		var kind string
		a.Body, kind = byteRanges(a.Body, spans, first(storedHeader(a.Fields).Values("Content-Type")))
		a.Extra = append(extra, Field{Name: "Content-Type", Values: []string{kind}}, contentLength(len(a.Body)))
	}
	a.Status = http.StatusPartialContent
	return a
}

// rangeOf returns the Range of a request that has exactly one.
func rangeOf(ex Exchange) string {
	if values := ex.Values("Range"); len(values) == 1 {
		return values[0]
	}
	return ""
}

func contentRange(s field.Span, size int64) Field {
	whole := "*"
	if size >= 0 {
		whole = strconv.FormatInt(size, 10)
	}
	return Field{Name: "Content-Range", Values: []string{
		"bytes " + strconv.FormatInt(s.First, 10) + "-" + strconv.FormatInt(s.Last, 10) + "/" + whole,
	}}
}

// covers reports whether a stored part answers a request: the one it was made
// for, and those for bytes that it has, unless middleware in front may encode them.
func (r *response) covers(ex Exchange) bool {
	spec := rangeOf(ex)
	if spec == "" || len(ex.Values("If-Range")) > 0 {
		return false
	}
	if spec == r.part.asked {
		return true
	}
	_, ok := r.within(spec)
	return ok && !outsideOf(ex).encodesContent(r.header())
}

// within returns what a range request gets of the whole, if what it wants lies
// within what the stored part says it is. Of a part that is shorter than it says,
// that may be less.
func (r *response) within(spec string) (field.Span, bool) {
	if r.part.whole < 0 {
		return field.Span{}, false
	}
	spans, ok := field.ParseRange([]string{spec}, r.part.whole)
	if !ok || len(spans) != 1 {
		return field.Span{}, false
	}
	s, has := spans[0], r.part.First+int64(len(r.body))
	ok = s.First >= r.part.First && s.Last <= r.part.Last && s.First < has
	s.Last = min(s.Last, has-1)
	return s, ok
}

// partOf answers a range request that a stored part covers.
func (r *response) partOf(a Answer, ex Exchange) Answer {
	spec := rangeOf(ex)
	if spec == r.part.asked {
		return a
	}
	if s, ok := r.within(spec); ok {
		a.Body = a.Body[s.First-r.part.First : s.Last+1-r.part.First]
		a.Extra = append(a.Extra[:len(a.Extra):len(a.Extra)], contentRange(s, r.part.whole), contentLength(len(a.Body)))
	}
	return a
}
