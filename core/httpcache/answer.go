package httpcache

import (
	"net/http"
	"strconv"

	"github.com/larderhq/larder/core/httpcache/internal/field"
)

// answer plans the answer to a request from the stored response: whole, or that
// the client has it already (RFC 9110 section 13), or the ranges it asks for
// (section 14).
func (r *response) answer(ex Exchange, method string, extra []Field) Answer {
	a := Answer{Status: r.status, Fields: r.fields, Extra: extra, Body: r.body}
	etag := r.etag
	if len(r.encoded) > 0 {
		if e := r.chosen(ex); e != nil {
			a.Fields, a.Body, etag = e.fields, e.body, e.etag
		}
	}
	switch {
	case r.status == http.StatusOK && r.notModified(ex, etag):
		return notModified(a)
	case r.part != nil:
		return r.partOf(a, ex)
	case r.status == http.StatusOK && method == http.MethodGet:
		if spec := rangeOf(ex); spec != "" {
			return r.ranges(a, ex, spec, etag)
		}
	case r.status == http.StatusNoContent:
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

func contentLength(n int) Field {
	return Field{Name: "Content-Length", Values: []string{strconv.Itoa(n)}}
}

// bodyless are the fields that a 304 and a 416 leave out: they speak of content that
// is not sent (RFC 9110 section 15.4.5).
var bodyless = map[string]bool{ //nolint:gochecknoglobals // a constant
	"Content-Type": true, "Content-Length": true, "Content-Encoding": true, "Content-Language": true, "Content-Range": true,
}

func notModified(a Answer) Answer {
	a.Status, a.NoBody, a.Body = http.StatusNotModified, true, nil
	a.Fields = withoutContent(a.Fields)
	return a
}

func withoutContent(fields []Field) []Field {
	rest := make([]Field, 0, len(fields))
	for _, f := range fields {
		if !bodyless[f.Name] {
			rest = append(rest, f)
		}
	}
	return rest
}

// notModified reports whether the client has this very response (RFC 9110
// sections 13.1.2, 13.1.3 and 13.2.2: If-None-Match wins over If-Modified-Since).
// A response without Last-Modified is as old as its Date (RFC 9111 section 4.3.2).
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
	return ok && !changed.After(t)
}

// ranges answers a range request (RFC 9110 section 14.2). What it cannot make
// sense of it ignores: then the answer is the whole.
func (r *response) ranges(a Answer, ex Exchange, spec, etag string) Answer {
	condition := ex.Values("If-Range")
	if !field.IfRangeHolds(condition, etag, r.lastModified, r.date) || len(condition) > 0 && etag == "" && len(r.encoded) > 0 {
		return a // a date does not tell one encoding from another
	}
	size := int64(len(a.Body))
	spans, ok := field.ParseRange([]string{spec}, size)
	extra := a.Extra[:len(a.Extra):len(a.Extra)]
	switch {
	case !ok:
		return a
	case len(spans) == 0:
		a.Status, a.NoBody, a.Body = http.StatusRequestedRangeNotSatisfiable, true, nil
		a.Fields = withoutContent(a.Fields)
		a.Extra = append(extra, Field{Name: "Content-Range", Values: []string{"bytes */" + strconv.FormatInt(size, 10)}}, contentLength(0))
		return a
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
// for, and those for bytes that it has.
func (r *response) covers(ex Exchange) bool {
	spec := rangeOf(ex)
	if spec == "" || len(ex.Values("If-Range")) > 0 {
		return false
	}
	if spec == r.asked {
		return true
	}
	_, ok := r.within(spec)
	return ok
}

// within returns what a range request gets of the whole, if what it wants lies
// within what the stored part says it is. Of a part that is shorter than it says,
// that may be less.
func (r *response) within(spec string) (field.Span, bool) {
	if r.whole < 0 {
		return field.Span{}, false
	}
	spans, ok := field.ParseRange([]string{spec}, r.whole)
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
	if spec == r.asked {
		return a
	}
	if s, ok := r.within(spec); ok {
		a.Body = a.Body[s.First-r.part.First : s.Last+1-r.part.First]
		a.Extra = append(a.Extra[:len(a.Extra):len(a.Extra)], contentRange(s, r.whole), contentLength(len(a.Body)))
	}
	return a
}
