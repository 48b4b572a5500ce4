package httpcache

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/larderhq/larder/core/httpcache/internal/field"

	"github.com/larderhq/larder/core/internal/local"
)

// response is a stored response. It is immutable except for the fields that are rendered
// when they are first sent.
//
// A response has 288 bytes, a size class of the allocator. The parts that few responses have are
// behind pointers.
type response struct {
	fields  []Field // the handler's, then the cache's
	sent    []Field // the fields that answers carry
	body    []byte
	failure string       // Capture.ErrorMessage
	part    *partial     // nil: the response is whole
	coded   *encodings   // nil: there are none
	length  *lengthField // of body, where answers state it
	recoded atomic.Pointer[recoded]

	validators
	identification
	reuse
	status int32
	own    int32 // how many of fields are the handler's
}

// validators are what conditional requests are compared with, and the age.
type validators struct {
	etag         string
	lastModified time.Time
	date         time.Time // its Date: the handler's, or when its load began; zero: unknown
	born         int64     // when its load began, on the engine's clock
	initialAge   int64     // the Age it came with, in seconds
}

// reuse says which requests a response may be answered to, in which state, and how.
type reuse struct {
	forError      time.Duration // how long after its lifetime it replaces an error
	forAuthorized bool          // may be answered to requests with Authorization
	forCookies    bool          // may be answered to requests with any Cookie
	forOrigins    bool          // may be answered to requests with any Origin of which nothing else is known
	validate      bool          // never answered without validation
	strict        bool          // never answered once it is stale
	// distinct says that a hit has at most one field of each name, if outer middleware has
	// set none: the names in sent differ, and are none that the cache adds to a hit.
	distinct  bool
	rangeless bool // the handler wants no ranges cut
}

// identification is where a response is stored.
type identification struct {
	key  string   // the key it is stored under
	vary []string // what it varied on: names, sorted
	tags []string // beside those of the route and path
}

// partial describes the part of a content that a stored 206 has.
type partial struct {
	field.Span        // the bytes of the whole
	whole      int64  // the length of the whole, -1: unknown
	asked      string // the Range that it answers
}

// encodings are the content codings of a response.
type encodings struct {
	encoding []string      // its Content-Encoding, if it is one that clients name
	encoded  []encodedBody // its content once more, for requests that accept the coding
	codings  []string      // the codings of encoded, in order of preference
}

// encodings returns the content codings of the response.
func (r *response) encodings() *encodings {
	if r.coded == nil {
		return &noEncodings
	}
	return r.coded
}

var noEncodings encodings //nolint:gochecknoglobals // a constant

// uncacheable marks the key of a resource whose response was not cacheable: for a while
// requests for it do not wait for each other.
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

// mergeable are the fields that middleware and handlers add to rather than set: lists
// to which each says what is its own.
var mergeable = map[string]bool{ //nolint:gochecknoglobals // a constant
	"Access-Control-Expose-Headers": true, "Link": true, "Server-Timing": true, "Set-Cookie": true, "Vary": true, "Via": true,
}

// newResponse makes a stored response, and returns the fields that the cache adds to the
// handler's, for the answer under way as well. The decision changes where the response is
// larger than its class allows. encoded is the same content in content codings, from an
// earlier response; nil: there is none. made is when the response was made, where the
// handler does not say so.
func (rt *routeSnapshot) newResponse(status int, h Header, body []byte, d *decision, encoded []encodedBody, made time.Time) (r *response, add []Field) {
	r = &response{
		status:     int32(status), //nolint:gosec // it has three digits
		body:       body,
		validators: validators{initialAge: d.age},
		reuse: reuse{
			forAuthorized: d.forAuthorized, forCookies: d.forCookies, forOrigins: readable(h),
			validate: d.validate, strict: d.strict, forError: d.forError,
		},
		identification: identification{vary: d.vary},
	}
	if d.part != nil {
		r.part = &partial{Span: *d.part, whole: d.whole}
	}
	r.takeFields(h, d.strip)
	r.etag = first(r.header().Values("Etag")) // unless it is for this client only
	add = rt.addedFields(r, h, d, made)
	if d.store && r.counted() > rt.class.MaxEntryBytes {
		d.oversize(status)
		r.addFields(add)
		r.read()
		return r, add
	}
	r.encodeAs(rt.class.HTTP.Encodings, h, encoded)
	if names, _ := variesOn(h); r.coded != nil && !slices.Contains(names, "Accept-Encoding") {
		add = append(add, varyOnEncoding)
	}
	r.addFields(add)
	r.read()
	r.describeEncoded()
	return r, add
}

// takeFields stores the handler's fields, without those of one connection, those that
// Connection names, and those to strip.
func (r *response) takeFields(h Header, strip []string) {
	nominated := slices.Clone(strip)
	for _, line := range h.Values("Connection") {
		for name := range strings.SplitSeq(line, ",") {
			nominated = append(nominated, http.CanonicalHeaderKey(strings.Trim(name, " \t")))
		}
	}
	for _, f := range h.Own() {
		if hopByHop[f.Name] || slices.Contains(nominated, f.Name) || f.Name == "Age" {
			continue
		}
		if f.Mode == Set && mergeable[f.Name] && len(outer(h, f.Name)) == 0 {
			f.Mode = Merge // a field that outer middleware sets for another request stays
		}
		r.fields = append(r.fields, f)
	}
	r.own = int32(len(r.fields)) //nolint:gosec // it fits
}

// addedFields makes the fields that the cache adds to the handler's: an ETag, which it also
// stores, Accept-Ranges, no-cache and Date.
func (rt *routeSnapshot) addedFields(r *response, h Header, d *decision, made time.Time) (add []Field) {
	status := int(r.status)
	if status == http.StatusOK && !rt.class.HTTP.NoETag && len(h.Values("Etag")) == 0 && len(h.Values("Last-Modified")) == 0 {
		sum := sha256.Sum256(r.body)
		r.etag = `"` + base64.RawURLEncoding.EncodeToString(sum[:18]) + `"`
		add = append(add, Field{Name: "Etag", Values: []string{r.etag}})
	}
	if status == http.StatusOK && len(r.body) > 0 && len(h.Values("Accept-Ranges")) == 0 {
		add = append(add, acceptRanges)
	}
	if !d.guess { // public means nothing else there
		add = append(add, noGuess(h)...)
	}
	if _, dated := field.ParseDate(first(h.Values("Date"))); !dated {
		add = append(add, dateField(made))
	}
	return add
}

// addFields adds the cache's fields to the handler's. The list keeps no room for more, and all
// values are in one block.
func (r *response) addFields(add []Field) {
	all := make([]Field, 0, len(r.fields)+len(add))
	r.fields = append(append(all, r.fields...), add...)
	n := 0
	for i := range r.fields {
		n += len(r.fields[i].Values)
	}
	values := make([]string, 0, n)
	for i := range r.fields {
		f := &r.fields[i]
		if from := len(values); f.Values != nil {
			values = append(values, f.Values...)
			f.Values = values[from:len(values):len(values)]
		}
	}
}

// read reads the fields that are compared with requests, and makes those that are
// sent.
func (r *response) read() {
	h := r.header()
	r.lastModified, _ = field.ParseDate(first(h.Values("Last-Modified")))
	r.date, _ = field.ParseDate(first(h.Values("Date")))
	if r.date.IsZero() {
		r.date, _ = field.ParseDate(first(storedHeader(r.fields[r.own:]).Values("Date")))
	}
	if codings := h.Values("Content-Encoding"); field.KnownEncodings(codings) {
		coded := *r.encodings()
		coded.encoding = codings
		r.coded = &coded
	}
	r.rangeless = !takesBytes(h.Values("Accept-Ranges"))
	r.sent = sentFields(r.fields)
	r.distinct = distinct(r.sent)
	if len(r.body) > maxImplicitLength {
		r.length = newLengthField(len(r.body))
	}
}

// sentFields puts what the cache adds to a line of the handler's into that line, once
// for all answers.
func sentFields(fields []Field) []Field {
	for at := range fields {
		if fields[at].Mode != Join {
			continue
		}
		own := slices.IndexFunc(fields[:at], func(f Field) bool { return f.Name == fields[at].Name })
		if own < 0 || len(fields[own].Values) == 0 {
			continue
		}
		sent := slices.Clone(fields)
		sent[own].Values = JoinList(sent[own].Values, &sent[at])
		return sentFields(slices.Delete(sent, at, at+1))
	}
	return fields
}

// addedToHits are the fields that the cache adds to stored ones as it answers.
var addedToHits = []string{"Age", cacheStatus, "Content-Length"} //nolint:gochecknoglobals // a constant

// distinct reports whether fields have values, and names of which no two are equal, and
// none is in addedToHits.
func distinct(fields []Field) bool {
	for i := range fields {
		name := fields[i].Name
		if len(fields[i].Values) == 0 || slices.Contains(addedToHits, name) || hasField(fields[:i], name) {
			return false
		}
	}
	return true
}

// accepts reports whether the request takes the response's encoding. A coding that is
// not registered is not compared.
func (r *response) accepts(ex Exchange) bool {
	return r.coded == nil || len(r.coded.encoding) == 0 || field.AcceptsEncodings(ex.Values("Accept-Encoding"), r.coded.encoding)
}

// size estimates the memory that the response takes. The names of fields are constants as a
// rule, and so are many of their values.
func (r *response) size() int {
	const field = int(unsafe.Sizeof(Field{}))
	n := int(unsafe.Sizeof(*r)) + len(r.body) + len(r.failure) + field*len(r.fields)
	for _, f := range r.fields {
		for _, v := range f.Values {
			n += len(v) + 8 // rounded up to a block
		}
	}
	if r.coded != nil {
		n += int(unsafe.Sizeof(*r.coded))
	}
	for _, e := range r.encodings().encoded {
		n += int(unsafe.Sizeof(e)) + len(e.body) + field*len(r.fields)
	}
	if r.part != nil {
		n += int(unsafe.Sizeof(*r.part))
	}
	for _, t := range r.tags {
		n += len(t) + 16
	}
	return n
}

// freeFieldBytes is how many bytes of header fields do not count against Class.MaxEntryBytes.
const freeFieldBytes = 4 << 10

// counted returns how many bytes of the response count against Class.MaxEntryBytes: its body,
// and of the handler's fields what exceeds freeFieldBytes.
func (r *response) counted() int {
	n := 0
	for _, f := range r.header() {
		n += len(f.Name) * max(1, len(f.Values))
		for _, v := range f.Values {
			n += len(v)
		}
	}
	return len(r.body) + max(0, n-freeFieldBytes)
}

// mayReplaceError reports whether the response may stand in for an error (RFC 5861 section
// 4): in its stale window, and for as long as it, or its class, says.
func (r *response) mayReplaceError(en *local.Entry, now int64) bool {
	until := max(en.StaleUntil, en.FreshUntil+int64(r.forError))
	return !r.strict && r.part == nil && until > en.FreshUntil && now < until
}

// storedHeader is the header of a stored response.
type storedHeader []Field

// Values implements Header.
func (h storedHeader) Values(name string) []string {
	for i := range h {
		if h[i].Name == name {
			return h[i].Values
		}
	}
	return nil
}

// Own implements Header.
func (h storedHeader) Own() []Field { return h }

func hasField(fields []Field, name string) bool {
	return slices.ContainsFunc(fields, func(f Field) bool { return f.Name == name })
}

func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}
