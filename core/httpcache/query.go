package httpcache

import (
	"bytes"
	"crypto/sha256"
	"io"
	"net/http"
)

// QUERY (RFC 10008) is a GET that has its question in the content. Its responses are
// cached as those of GET are (section 2.7): under the URL, so that what invalidates that
// covers them, with the content and what describes it in their identity. Nothing is made
// equal that is not the same byte for byte: only the handler knows what means the same.

// queryContentFields describe the content of a QUERY. Together with it they are the question.
var queryContentFields = []string{ //nolint:gochecknoglobals // a constant
	"Content-Type", "Content-Encoding", "Content-Language", "Content-Location",
}

// appendQueryContent appends the question of a QUERY to a key. Its content is read, up to the
// class's MaxEntryBytes: beyond, it is left to the handler, as is a request that does not say
// what its content is, which is to be refused.
func (rt *routeSnapshot) appendQueryContent(dst []byte, ex Exchange) (key []byte, reason string) {
	if len(ex.Values("Content-Type")) == 0 {
		return dst, "no-content-type"
	}
	asker, ok := ex.(ContentReader)
	if !ok {
		return dst, "request-has-content"
	}
	content, ok := asker.Content(rt.class.MaxEntryBytes)
	if !ok {
		return dst, "content-too-large"
	}
	sum := sha256.Sum256(content)
	dst = append(append(dst, partEnd, partQueryContent), sum[:]...)
	for _, name := range queryContentFields {
		dst = appendRequestField(dst, ex, name)
	}
	if len(dst) > maxKey {
		return dst, "key-too-long"
	}
	return dst, ""
}

// queryContent is the content of a QUERY that has been read, for the handler to read again.
type queryContent struct {
	*bytes.Reader
	content []byte
	body    io.Closer
}

// Close implements io.Closer.
func (q *queryContent) Close() error { return q.body.Close() }

// again returns the content for a copy of the request.
func (q *queryContent) again() *queryContent {
	return &queryContent{bytes.NewReader(q.content), q.content, io.NopCloser(nil)}
}

// rest is content of which the beginning has been read.
type rest struct {
	io.Reader
	io.Closer
}

// failingReader is the error that the content has come to.
type failingReader struct{ err error }

// Read implements io.Reader.
func (f failingReader) Read([]byte) (int, error) { return 0, f.err }

// Content implements ContentReader.
func (x *StdExchange) Content(limit int) (content []byte, ok bool) {
	r := x.Request
	switch q, asked := r.Body.(*queryContent); {
	case asked:
		return q.content, true
	case r.Body == nil || r.Body == http.NoBody:
		return nil, true
	case r.ContentLength > int64(limit):
		return nil, false
	}
	body := r.Body
	content, err := io.ReadAll(io.LimitReader(body, int64(limit)+1))
	switch {
	case err != nil:
		r.Body = rest{io.MultiReader(bytes.NewReader(content), failingReader{err}), body}
		return nil, false
	case len(content) > limit:
		r.Body = rest{io.MultiReader(bytes.NewReader(content), body), body}
		return nil, false
	}
	r.Body = &queryContent{bytes.NewReader(content), content, body}
	return content, true
}
