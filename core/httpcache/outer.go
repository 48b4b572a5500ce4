package httpcache

import (
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/larderhq/larder/core/httpcache/internal/field"
)

// Outer classifies the middleware between the cache and the client by what it can change
// in an answer while that is sent.
type Outer uint8

// The kinds of outer middleware.
const (
	OuterNone    Outer = iota // none
	OuterUnknown              // middleware that may change anything
	OuterEncoder              // middleware that encodes content
)

// An OuterReporter is an Exchange that reports the middleware between it and the client.
type OuterReporter interface {
	// Before returns what outer middleware had set of a field of the answer when the
	// request came, by canonical name.
	Before(name string) []string
	Outer() Outer
}

// SentHeader is the header of an answer as it was sent.
type SentHeader interface {
	// Values returns the values of a field, by canonical name.
	Values(name string) []string
}

// A HeaderSender is an Exchange that can send an answer's header before its content. Fields
// that outer middleware adds to the header while it is sent are then known before the answer
// is stored. Release sends the rest.
type HeaderSender interface {
	ReleaseHeader(fields []Field) SentHeader
	ReplyHeader(a Answer) SentHeader
}

// A SentNotifier is an Exchange whose framework sends an answer when all middleware has
// returned. NotifySent has fn called, once, when the answer has been sent and before
// the request is over; until then Values goes on returning what it did at SnapshotFields.
type SentNotifier interface{ NotifySent(fn func(SentHeader)) }

// outerOf returns what stands in front of an exchange, and whether it says itself
// that it encodes this answer's content.
func outerOf(ex Exchange) (front Outer, encodes bool) {
	x, ok := ex.(OuterReporter)
	if !ok {
		return OuterNone, false
	}
	front = x.Outer()
	switch {
	case len(x.Before("Content-Encoding")) > 0:
		return OuterEncoder, true
	case hasName(x.Before("Vary"), "Accept-Encoding"):
		return OuterEncoder, false
	}
	return front, false
}

// hasName reports whether a list of field names has a name.
func hasName(lines []string, name string) bool {
	if len(lines) == 0 {
		return false
	}
	names, _ := field.ParseVary(lines)
	return slices.Contains(names, name)
}

// outside says what becomes of an answer's content in front of the cache.
type outside struct {
	encodes bool // it may be encoded, for this request
	encoder bool // by middleware that is known to do so: the cache then does not
}

func outsideOf(ex Exchange) outside {
	front, encodes := outerOf(ex)
	if front == OuterNone {
		return outside{}
	}
	return outside{encodes: encodes || mayBeEncodedFor(ex.Values("Accept-Encoding")), encoder: front == OuterEncoder}
}

// mayBeEncodedFor reports whether Accept-Encoding names a coding, or accepts any.
// Middleware often looks for the name alone, whatever its weight. Browsers refuse all
// codings of media by "identity;q=1, *;q=0".
func mayBeEncodedFor(acceptEncoding []string) bool {
	for _, line := range acceptEncoding {
		for more := true; more; {
			var member string
			member, line, more = strings.Cut(line, ",")
			name, _, _ := strings.Cut(member, ";")
			switch name = strings.Trim(name, " \t"); {
			case name == "", strings.EqualFold(name, "identity"):
			case name == "*" && !field.AcceptsEncoding([]string{member}, "gzip"):
			default:
				return true
			}
		}
	}
	return false
}

// encodesContent reports whether the content of a response may be encoded that has a
// header of its own. Middleware that encodes late leaves alone what is encoded already;
// of an encoder that decides beforehand nothing is known.
func (o outside) encodesContent(h storedHeader) bool {
	return o.encodes && (o.encoder || len(h.Values("Content-Encoding")) == 0)
}

// forAnyCoding returns the fields of a response whose content may be encoded in front.
// The first own fields are the handler's and stay. The ETag that the cache has added becomes
// weak, since several codings share it; its Accept-Ranges is left out.
func forAnyCoding(fields []Field, own int) []Field {
	changed := make([]Field, 0, len(fields))
	for i, f := range fields {
		switch {
		case i < own:
		case f.Name == "Accept-Ranges":
			continue
		case f.Name == "Etag":
			f.Values = []string{weakTag(first(f.Values))}
		}
		changed = append(changed, f)
	}
	return changed
}

// recoded is what is sent of a response whose content may be encoded in front.
type recoded struct {
	fields []Field
	etag   string
}

// forAnyCoding makes the fields of a response whose content may be encoded in front, once
// for all answers.
func (r *response) forAnyCoding() *recoded {
	if made := r.recoded.Load(); made != nil {
		return made
	}
	made := &recoded{fields: forAnyCoding(r.sent, int(r.own)), etag: r.etag}
	if hasField(r.sent[r.own:], "Etag") { // a handler's own stays as it is
		made.etag = weakTag(r.etag)
	}
	r.recoded.Store(made)
	return made
}

// weakTag returns the weak form of an ETag.
func weakTag(etag string) string {
	if len(etag) > 0 && etag[0] == '"' {
		return "W/" + etag
	}
	return etag
}

// passive are the members of Vary that say what middleware adds to a response, not
// which content the handler chooses: CORS, the content coding, and sessions. Cookies
// have a rule of their own: HTTPPolicy.Cookies.
var passive = []string{ //nolint:gochecknoglobals // a constant
	"Accept-Encoding", "Access-Control-Request-Headers", "Access-Control-Request-Method", "Access-Control-Request-Private-Network",
	"Cookie", "Origin",
}

// outer returns what outer middleware had set of a field before the handler ran.
func outer(h Header, name string) []string {
	if o, ok := h.(interface{ Before(name string) []string }); ok {
		return o.Before(name)
	}
	return nil
}

// ownValues returns the values of a field that are the handler's own, as against
// those that outer middleware had set before it.
func ownValues(h Header, name string) []string {
	values := h.Values(name)
	_, added := AddedValues(values, outer(h, name))
	return added
}

// AddedValues returns what has been added to values that were there before; not ok: they
// have been replaced, and all are new. A handler that appends to a line adds the rest
// of that.
func AddedValues(values, before []string) (ok bool, added []string) {
	n := len(before)
	switch {
	case n == 0 || len(values) < n:
	case slices.Equal(values[:n], before):
		return true, values[n:]
	case slices.Equal(values[:n-1], before[:n-1]):
		if rest, ok := appendedTo(values[n-1], before[n-1]); ok {
			return true, append([]string{rest}, values[n:]...)
		}
	}
	return false, values
}

// appendedTo returns what has been appended to a list on one line.
func appendedTo(line, before string) (rest string, ok bool) {
	if len(line) <= len(before) || line[:len(before)] != before || line[len(before)] != ',' {
		return "", false
	}
	rest = line[len(before)+1:]
	for rest != "" && (rest[0] == ' ' || rest[0] == '\t') {
		rest = rest[1:]
	}
	return rest, true
}

// variesOn returns the request fields that a response varies on: those that the
// handler named, and of those that outer middleware named the ones that choose
// content. star: it varies on more than that.
func variesOn(h Header) (names []string, star bool) {
	names, star = field.ParseVary(ownValues(h, "Vary"))
	theirs, more := field.ParseVary(outer(h, "Vary"))
	for _, name := range theirs {
		if !slices.Contains(passive, name) {
			names = withName(names, name)
		}
	}
	if len(ownValues(h, "Content-Encoding")) > 0 {
		// An encoded response varies on what the client accepts, said or not.
		names = withName(names, "Accept-Encoding")
	}
	return names, star || more
}

// impliesEncoding reports whether nothing but the encoding of a response says that it
// varies on Accept-Encoding.
func impliesEncoding(h Header) bool {
	own, _ := field.ParseVary(ownValues(h, "Vary"))
	return len(ownValues(h, "Content-Encoding")) > 0 && !slices.Contains(own, acceptEncoding)
}

// withName puts a name into a sorted list that may have it.
func withName(names []string, name string) []string {
	i, ok := slices.BinarySearch(names, name)
	if ok {
		return names
	}
	return slices.Insert(names, i, name)
}

// OuterOf returns OuterNone for a ResponseWriter of net/http or of this package, and
// OuterUnknown for any other.
func OuterOf(w http.ResponseWriter) Outer {
	t := reflect.TypeOf(w)
	for i := range writerTypes {
		switch known := writerTypes[i].Load(); {
		case known == nil:
			found := &writerType{t, outerOfType(t)}
			writerTypes[i].CompareAndSwap(nil, found)
			return found.outer
		case known.is == t:
			return known.outer
		}
	}
	return outerOfType(t)
}

// writerType is a type of writers with what OuterOf returns of them.
type writerType struct {
	is    reflect.Type
	outer Outer
}

// writerTypes are the first types that OuterOf was asked for, of which apps have few. The
// comparison of types is faster than that of package paths.
var writerTypes [4]atomic.Pointer[writerType] //nolint:gochecknoglobals // a cache

func outerOfType(t reflect.Type) Outer {
	if t == reflect.TypeFor[*DiscardWriter]() {
		return OuterNone
	}
	if t != nil && t.Kind() == reflect.Pointer {
		switch t.Elem().PkgPath() {
		case "net/http", "net/http/httptest", "golang.org/x/net/http2":
			return OuterNone
		}
	}
	return OuterUnknown
}
