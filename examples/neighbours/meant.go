package main

import "net/http"

// meant removes the intended changes of Larder from an answer. The comparison covers the
// rest:
//
//   - Age and Cache-Status are added;
//   - an ETag, Accept-Ranges and Content-Length are added where there were none;
//   - Cache-Control: no-cache is added where the handler said nothing of caching;
//   - a conditional request is answered 304 where the app alone knew no validator;
//   - a range is answered 206, of the plain content or of the encoded one that is
//     stored, where the app alone knew no ranges.
//
// It returns a difference where such a change is not consistent in itself.
func meant(st step, want answer, got *answer) string {
	f := got.fields
	f.Del("Age")
	f.Del("Cache-Status")
	for _, name := range []string{"Etag", "Accept-Ranges", "Content-Length"} {
		if want.fields.Get(name) == "" {
			f.Del(name)
		}
	}
	if len(want.fields["Cache-Control"]) == 0 && f.Get("Cache-Control") == "no-cache" {
		f.Del("Cache-Control")
	}
	if !want.encoded && f.Get("Content-Length") == "" {
		want.fields.Del("Content-Length") // of a body that a HEAD or a chunked answer does not tell
	}
	switch {
	case want.status == http.StatusOK && got.status == http.StatusNotModified && st.validate:
		return notModified(want, got)
	case want.status == http.StatusOK && got.status == http.StatusPartialContent && st.method == http.MethodGet:
		return partial(want, got)
	}
	return ""
}

// notModified fills in the fields that a 304 omits (RFC 9110, section 15.4.5).
func notModified(want answer, got *answer) string {
	got.status, got.content = want.status, want.content
	for _, name := range []string{"Content-Type", "Content-Length", "Content-Encoding", "Transfer-Encoding"} {
		if v := want.fields.Values(name); len(v) > 0 {
			got.fields[name] = v
		} else if name != "Content-Encoding" {
			got.fields.Del(name)
		}
	}
	return ""
}

// partial checks a range of 1,200 bytes from the hundredth on against the whole.
func partial(want answer, got *answer) string {
	switch {
	case got.part:
	case got.encoded:
		return "206 whose bytes do not decode"
	case got.content != want.content[100:1300]:
		return "206 with other bytes"
	default:
		want.fields.Del("Content-Encoding") // a part of the plain content, where the app alone encoded
	}
	got.status, got.content = want.status, want.content
	got.fields.Del("Content-Range")
	got.fields.Del("Content-Length")
	want.fields.Del("Content-Length")
	return ""
}
