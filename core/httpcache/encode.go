package httpcache

import (
	"bytes"
	"compress/gzip"
	"mime"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/larderhq/larder/core/httpcache/internal/field"
)

// encodedBody is the content of a stored response in a content coding. It is a
// representation of its own: with its own strong ETag (RFC 9110 section 8.8.3.3).
type encodedBody struct {
	coding string
	body   []byte
	etag   string
	fields []Field
	length *lengthField // that fields state already
}

// worthEncoding is the smallest content that is encoded.
const worthEncoding = 1 << 10

// varyOnEncoding is added to a response that the cache encodes.
var varyOnEncoding = Field{Name: "Vary", Values: []string{"Accept-Encoding"}, Mode: Merge} //nolint:gochecknoglobals // a constant

// encodable reports whether content may be encoded that a handler has answered.
func encodable(h Header) bool {
	return len(ownValues(h, "Content-Encoding")) == 0 && !field.ParseCacheControl(h.Values("Cache-Control")).NoTransform && !readDirectives(h).cc.NoTransform
}

// encodeAs adds the content in those codings that make it smaller. have is what an earlier
// response had of them.
func (r *response) encodeAs(codings []string, h Header, have []encodedBody) {
	if len(have) > 0 && encodable(h) {
		r.coded = &encodings{encoded: slices.Clone(have)}
		return
	}
	if len(codings) == 0 || r.status != 200 || len(r.body) < worthEncoding || !compressible(first(h.Values("Content-Type"))) ||
		!encodable(h) {
		return
	}
	var encoded []encodedBody
	for _, coding := range codings {
		if body := compress(coding, r.body); len(body) < len(r.body)*9/10 {
			encoded = append(encoded, encodedBody{coding: coding, body: body})
		}
	}
	if encoded != nil {
		r.coded = &encodings{encoded: encoded}
	}
}

// compress returns body in a coding that a class may name.
func compress(coding string, body []byte) []byte {
	if coding == "zstd" {
		return zstdEncoder.EncodeAll(body, nil)
	}
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	_, _ = w.Write(body) // a bytes.Buffer takes everything
	_ = w.Close()
	return buf.Bytes()
}

// zstdEncoder serves EncodeAll, which may be called concurrently. Browsers refuse
// windows over 8 MiB (RFC 9659).
var zstdEncoder = func() *zstd.Encoder { //nolint:gochecknoglobals // without state between calls
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(8<<20))
	if err != nil {
		panic(err) // the options are constants
	}
	return e
}()

// compressible reports whether content of a type tends to get smaller.
func compressible(contentType string) bool {
	kind, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return false
	}
	return strings.HasPrefix(kind, "text/") || strings.HasSuffix(kind, "+json") || strings.HasSuffix(kind, "+xml") ||
		slices.Contains([]string{
			"application/json", "application/javascript", "application/xml", "application/wasm", "application/x-ndjson",
			"application/manifest+json", "image/svg+xml", "font/ttf", "font/otf",
		}, kind)
}

// describeEncoded makes the fields of each encoded content, and lists the codings.
func (r *response) describeEncoded() {
	if r.coded == nil {
		return
	}
	for i := range r.coded.encoded {
		r.coded.encoded[i].describe(r)
		r.coded.codings = append(r.coded.codings, r.coded.encoded[i].coding)
	}
}

// describe makes the fields of the encoded content from those of the response.
func (e *encodedBody) describe(r *response) {
	e.etag = r.etag
	if strong, ok := strings.CutSuffix(r.etag, `"`); ok && strings.HasPrefix(r.etag, `"`) {
		e.etag = strong + "-" + e.coding + `"`
	}
	e.fields = make([]Field, 0, len(r.sent)+1)
	for _, f := range r.sent {
		switch f.Name {
		case "Content-Length", "Content-Md5", "Content-Digest", "Repr-Digest": // of the other content
		case "Etag":
			e.fields = append(e.fields, Field{Name: "Etag", Values: []string{e.etag}, Mode: f.Mode})
		default:
			e.fields = append(e.fields, f)
		}
	}
	e.fields = append(e.fields, Field{Name: "Content-Encoding", Values: []string{e.coding}}, contentLength(len(e.body)))
	e.length = &lengthField{len(e.body), []Field{}}
}

// chosen returns the encoded content that suits the request best; nil: the
// content as it is, which is also what middleware in front gets that encodes by itself.
func (r *response) chosen(ex Exchange, out outside) *encodedBody {
	if r.coded == nil || len(r.coded.encoded) == 0 || out.encoder {
		return nil
	}
	encoded := r.coded.encoded
	coding, ok := field.ChooseEncoding(ex.Values("Accept-Encoding"), r.coded.codings)
	if !ok {
		return nil
	}
	for i := range encoded {
		if encoded[i].coding == coding {
			return &encoded[i]
		}
	}
	return nil
}
