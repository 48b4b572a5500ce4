package httpcache

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/httpcache/internal/field"
)

// sent is an answer as a client sees it.
type sent struct {
	status int
	header http.Header
	body   []byte
}

func sentOf(a Answer) sent {
	s := sent{status: a.Status, header: http.Header{}}
	for _, f := range slices.Concat(a.Fields, a.Extra) {
		s.header[f.Name] = f.Values
	}
	if !a.NoBody {
		s.body = a.Body
	}
	return s
}

// parts are the ranges of an answer, each with what it says of itself.
func (s sent) parts(t *testing.T) (parts []string) {
	kind, params, _ := mime.ParseMediaType(s.header.Get("Content-Type"))
	if kind != "multipart/byteranges" {
		return []string{fmt.Sprintf("%q %q", s.header.Get("Content-Range"), s.body)}
	}
	for r := multipart.NewReader(bytes.NewReader(s.body), params["boundary"]); ; {
		part, err := r.NextRawPart()
		if errors.Is(err, io.EOF) {
			return parts
		}
		require.NoError(t, err)
		body, err := io.ReadAll(part)
		require.NoError(t, err)
		parts = append(parts, fmt.Sprintf("%q %q %q", part.Header.Get("Content-Type"), part.Header.Get("Content-Range"), body))
	}
}

const entityTag = `(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"`

// tagList is the well-formed beginning of an If-None-Match.
var tagList = regexp.MustCompile(`^(?:[ \t,]*` + entityTag + `[ \t]*(?:,|$))*`)

// latin1 spells bytes as runes and back, so that a regular expression sees bytes.
func latin1(s string) string {
	runes := make([]rune, 0, len(s))
	for i := range len(s) {
		runes = append(runes, rune(s[i]))
	}
	return string(runes)
}

func bytesOf(latin1 string) string {
	b := make([]byte, 0, len(latin1))
	for _, r := range latin1 {
		b = append(b, byte(r))
	}
	return string(b)
}

// served is what http.ServeContent answers. It gets the conditions that both read
// in the same way, so that these remain apart, each tested in package field:
//
//   - Dates, tags and ranges that are malformed, which ServeContent partly takes.
//   - Lists of tags on several lines, of which ServeContent reads the first.
//   - "*" is no member of a list.
//   - If-None-Match wins over If-Modified-Since also where it is empty or holds no
//     tag at all (RFC 9110 section 13.2.2).
//   - A date has to be a strong validator, in If-Range, and in the others where it is
//     that of the last change (section 8.8.2.2).
//   - Of a field with several lines that may have one only none counts, and an
//     If-Range like that, or malformed, does not hold.
//
// And these are the cache's own:
//
//   - A response without Last-Modified is as old as its Date (RFC 9111 section
//     4.3.2), but not for If-Range and If-Unmodified-Since.
//   - A HEAD has no ranges (RFC 9110 section 14.2).
//   - A 412 and a 416 have no content and no validators, and a 304 keeps its
//     Last-Modified.
//   - ServeContent takes the beginning of 1970 for no time.
func served(r *response, q *request) sent {
	h := http.Header{}
	changed := r.lastModified
	if changed.IsZero() {
		changed = r.date
	}
	strong := !r.lastModified.IsZero() && !r.date.IsZero() && r.date.Sub(r.lastModified) >= time.Second
	for _, name := range []string{"If-Match", "If-None-Match"} {
		lines, ok := q.header[name]
		if !ok {
			continue
		}
		joined := strings.Join(lines, ",")
		if strings.Trim(joined, " \t") != "*" {
			joined = bytesOf(tagList.FindString(latin1(joined)))
			if strings.Trim(joined, " \t,") == "" {
				joined = `"another one than any in these tests"`
			}
		}
		h.Set(name, joined)
	}
	for _, name := range []string{"If-Modified-Since", "If-Unmodified-Since"} {
		lines := q.header[name]
		if len(lines) != 1 || name == "If-Unmodified-Since" && r.lastModified.IsZero() {
			continue
		}
		if at, ok := field.ParseDate(lines[0]); ok {
			if at.Equal(changed) && !strong {
				at = at.Add(-time.Second)
			}
			h.Set(name, at.Format(http.TimeFormat))
		}
	}
	spans, ok := field.ParseRange(q.header["Range"], int64(len(r.body)))
	switch {
	case !ok, q.line.Method == http.MethodHead:
	case len(spans) == 0:
		h.Set("Range", fmt.Sprintf("bytes=%d-", len(r.body)))
	default:
		var specs []string
		for _, s := range spans {
			specs = append(specs, fmt.Sprintf("%d-%d", s.First, s.Last))
		}
		h.Set("Range", "bytes="+strings.Join(specs, ","))
	}
	if lines, ok := q.header["If-Range"]; ok {
		value := strings.Trim(lines[0], " \t")
		at, isDate := field.ParseDate(value)
		switch {
		case len(lines) == 1 && isDate && strong:
			h.Set("If-Range", at.Format(http.TimeFormat))
		case len(lines) == 1 && field.Valid(value):
			h.Set("If-Range", value)
		default:
			h.Del("Range")
		}
	}
	w := httptest.NewRecorder()
	for _, f := range r.fields {
		w.Header()[f.Name] = f.Values
	}
	if !hasField(r.fields, "Content-Type") {
		w.Header()["Content-Type"] = nil // or it would look at the content
	}
	http.ServeContent(w, &http.Request{Method: q.line.Method, Header: h}, "", changed, bytes.NewReader(r.body))
	return sent{w.Code, w.Header(), w.Body.Bytes()}
}

// The store answers conditions and ranges as net/http answers them for a file.
func FuzzAnswer(f *testing.F) {
	const date = "Sun, 06 Nov 1994 08:49:37 GMT"
	for _, etag := range []string{"", `"a"`, `W/"a"`, "a"} {
		for _, modified := range []int64{0, 784111777} {
			for same := range uint16(32) {
				f.Add([]byte("0123456789"), etag, modified, int8(same%3), same%2 == 0, "", "", "bytes=2-4", "", "", "", same)
				f.Add([]byte("0123456789"), etag, modified, int8(same%3), same%2 == 0, "", "", "bytes=2-4", "", "", "", same<<7)
			}
			f.Add([]byte("0123456789"), etag, modified, int8(1), true, `"b", W/"a"`, date, "bytes=0-0,-1", `"a"`, "", "", uint16(0))
			f.Add([]byte("0123456789"), etag, modified, int8(0), true, "", date, "bytes=10-", date, "", "", uint16(0))
			f.Add([]byte("0123456789"), etag, modified, int8(1), true, "", "", "bytes=0-1,-2", "", "", "", uint16(0))
			f.Add([]byte("0123456789"), etag, modified, int8(1), true, "", "", "bytes=4-5,0-0,20-", `"a"`, "", "", uint16(64))
			f.Add([]byte(""), etag, modified, int8(-1), true, "*", "x", "bytes=0-", "x", "", "", uint16(0))
			f.Add([]byte("0123456789"), etag, modified, int8(5), true, "\n\"a\"", date+"\n"+date, "bytes=1-2\nbytes=1-2", "\"a\"\n\"a\"", "", "", uint16(64))
			f.Add([]byte("0123456789"), etag, modified, int8(1), true, "", "", "bytes=2-4", "", `"b", "a"`, "", uint16(0))
			f.Add([]byte("0123456789"), etag, modified, int8(1), true, `"a"`, "", "bytes=2-4", "", "*", date, uint16(0))
			f.Add([]byte("0123456789"), etag, modified, int8(1), true, `"a"`, "", "bytes=2-4", "", "", date, uint16(0))
			f.Add([]byte("0123456789"), etag, modified, int8(0), false, "", "", "", "", "\n\"a\"", date, uint16(0))
		}
	}
	f.Fuzz(func(t *testing.T, body []byte, etag string, modified int64, made int8, get bool, match, since, ranges, ifRange, ifMatch, unmodified string, same uint16) {
		r := &response{status: http.StatusOK, body: body}
		add := func(name, value string) { r.fields = append(r.fields, Field{Name: name, Values: []string{value}}) }
		at := time.Unix(modified%(1<<37), 0).UTC() // four digits of a year
		if modified == 0 {
			at = time.Unix(784111777, 0).UTC()
		} else {
			add("Last-Modified", at.Format(http.TimeFormat))
		}
		if made >= 0 {
			add("Date", at.Add(time.Duration(made)*time.Second).Format(http.TimeFormat))
		}
		if same&64 == 0 {
			add("Content-Type", "text/plain")
		}
		if etag != "" {
			add("Etag", etag)
		}
		r.etag, r.own = etag, int32(len(r.fields))
		r.read()
		if r.lastModified.Unix() == 0 || r.lastModified.IsZero() && r.date.Unix() == 0 {
			return
		}
		q := &request{line: Line{Method: http.MethodGet}, header: http.Header{}}
		if !get {
			q.line.Method = http.MethodHead
		}
		for bit, f := range []struct{ name, value, same string }{
			{"If-None-Match", match, etag}, {"If-Modified-Since", since, first(r.header().Values("Last-Modified"))},
			{"If-Range", ifRange, etag}, {"If-Range", ifRange, first(r.header().Values("Last-Modified"))},
			{"If-Modified-Since", since, first(r.header().Values("Date"))}, {"Range", ranges, ""}, {"", "", ""},
			{"If-Match", ifMatch, etag}, {"If-Unmodified-Since", unmodified, first(r.header().Values("Last-Modified"))},
			{"If-Unmodified-Since", unmodified, first(r.header().Values("Date"))},
		} {
			if f.value != "" {
				q.header[f.name] = strings.Split(f.value, "\n")
			}
			if f.same != "" && same&(1<<bit) != 0 {
				q.header[f.name] = []string{f.same}
			}
		}

		before := slices.Clone(r.fields)
		got, want := sentOf(r.answer(q, 0, q.line.Method, nil)), served(r, q)
		require.True(t, reflect.DeepEqual(before, r.fields) && bytes.Equal(body, r.body), "the stored response has changed")
		said := fmt.Sprintf("%s %v of %v", q.line.Method, q.header, r.fields)
		require.Equal(t, want.status, got.status, said)
		switch got.status {
		case http.StatusPreconditionFailed, http.StatusRequestedRangeNotSatisfiable:
			want.body = nil
			require.Equal(t, "0", got.header.Get("Content-Length"), said)
			require.Equal(t, "no-store", got.header.Get("Cache-Control"), said)
			for _, name := range []string{"Etag", "Last-Modified", "Date", "Content-Type"} {
				require.NotContains(t, got.header, name, said)
			}
		case http.StatusNotModified:
			require.Equal(t, etag, got.header.Get("Etag"), said)
			require.NotContains(t, got.header, "Content-Type", said)
		default:
			require.Equal(t, etag, got.header.Get("Etag"), said)
			if get && got.status == http.StatusOK && !hasField(r.fields, "Content-Length") {
				want.header.Del("Content-Length") // the sender of the content states it
			}
			if kind, _, _ := mime.ParseMediaType(want.header.Get("Content-Type")); kind != "multipart/byteranges" {
				require.Equal(t, want.header.Get("Content-Length"), got.header.Get("Content-Length"), said)
				require.Equal(t, want.header.Get("Content-Type"), got.header.Get("Content-Type"), said)
			} else {
				require.Equal(t, fmt.Sprint(len(got.body)), got.header.Get("Content-Length"), said)
				require.NotContains(t, got.header, "Content-Range", said)
			}
		}
		require.Equal(t, want.header.Get("Content-Range"), got.header.Get("Content-Range"), said)
		require.Equal(t, want.parts(t), got.parts(t), said)
	})
}
