package httpcache

import (
	"bytes"
	"mime/multipart"
	"net/textproto"

	"github.com/larderhq/larder/core/httpcache/internal/field"
)

// byteRanges writes several ranges of a body as multipart/byteranges (RFC 9110
// section 14.6). Together they are no longer than the body, and few.
func byteRanges(body []byte, spans []field.Span, kind string) (content []byte, contentType string) {
	var buf bytes.Buffer
	w := multipart.NewWriter(&buf)
	for _, s := range spans {
		h := textproto.MIMEHeader{"Content-Range": contentRange(s, int64(len(body))).Values}
		if kind != "" {
			h["Content-Type"] = []string{kind}
		}
		// A bytes.Buffer takes everything.
		part, _ := w.CreatePart(h)
		_, _ = part.Write(body[s.First : s.Last+1])
	}
	_ = w.Close()
	return buf.Bytes(), "multipart/byteranges; boundary=" + w.Boundary()
}
