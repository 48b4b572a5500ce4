package httpcache

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"
	"sync/atomic"
	"unsafe"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/httpcache/internal/field"
	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/tier"
)

// The key of a resource is its URL, readable for people and patterns, then parts:
// the class, and what it adds. So two requests that differ in anything that counts
// never have one key. Only what is too long for a key is hashed, by SHA-256.
//
//	https://shop.example/items?page=1 ␟ = 7 product …

// maxName is the longest URL that is cached, maxKey the longest key.
const (
	maxName = 4 << 10
	maxKey  = 16 << 10
)

// A sequence of parts stands behind the URL. Each part states its kind and its end, so that
// the sequence can be read in one way only.
const (
	partEnd = tier.NameEnd

	partPlain        = '=' // length, bytes
	partHashed       = '#' // 32 bytes
	partAbsent       = '-' // nothing
	partCount        = 'n' // a number; as many parts follow
	partIdentity     = 'i' // a part follows
	partOriginal     = 'o' // a part follows
	partVariant      = 'v' // pairs of parts follow
	partCondition    = 'm' // nothing: requests with a condition or range
	partCreds        = 'c' // nothing: a flight of requests that bring credentials
	partOfWhole      = 'p' // nothing: a part of the content
	partQueryContent = 'q' // 32 bytes; parts for queryContentFields follow
	partPosted       = 'b' // nothing: a POST that reads
)

// appendKey appends the key of the resource that the request asks for. It returns
// a reason where it cannot have one.
func (rt *routeSnapshot) appendKey(dst []byte, ex Exchange, l *Line, identity string) (key []byte, reason string) {
	if l.Path == "" || l.Path[0] != '/' {
		return dst, "malformed-url" // it would run together with the host
	}
	dst = append(dst, l.Scheme...)
	dst = append(dst, "://"...)
	dst = appendLower(dst, l.Host)
	dst = append(dst, l.Path...)
	if l.Query != "" {
		mark := len(dst)
		dst = append(dst, '?')
		dst = rt.appendQuery(dst, l.Query)
		if len(dst) == mark+1 && rt.keepParam != nil {
			dst = dst[:mark] // nothing that matters
		}
	} else if l.BareQuery {
		dst = append(dst, '?')
	}
	if len(dst) > maxName {
		return dst, "url-too-long"
	}
	for _, c := range dst {
		if c < 0x20 || c == 0x7f {
			return dst, "malformed-url"
		}
	}
	dst = append(dst, rt.routeParts...)
	if l.Original != "" {
		dst = append(dst, partEnd, partOriginal)
		dst = appendPart(dst, l.Original)
	}
	if rt.identity != nil {
		dst = append(dst, partEnd, partIdentity)
		dst = appendPart(dst, identity)
	}
	for _, name := range rt.class.HTTP.Headers {
		dst = appendRequestField(dst, ex, name)
	}
	if len(rt.class.HTTP.Cookies) > 0 {
		dst = rt.appendCookies(dst, ex)
	}
	if len(dst) > maxKey {
		return dst, "key-too-long"
	}
	return dst, ""
}

// appendQuery appends the parameters that matter.
func (rt *routeSnapshot) appendQuery(dst []byte, query string) []byte {
	if !rt.class.HTTP.QueryOrder {
		return field.CanonicalQuery(dst, query, rt.keepParam)
	}
	if rt.keepParam == nil {
		return append(dst, query...)
	}
	for pair := range strings.SplitSeq(query, "&") {
		before := len(dst)
		if dst = field.CanonicalQuery(dst, pair, rt.keepParam); len(dst) > before {
			dst = append(dst, '&')
		}
	}
	return dst
}

func appendLower(dst []byte, s string) []byte {
	from := len(dst)
	dst = append(dst, s...)
	for i, c := range dst[from:] {
		if 'A' <= c && c <= 'Z' {
			dst[from+i] = c + 'a' - 'A'
		}
	}
	return dst
}

// appendPart appends s so that it cannot be confused with what follows.
func appendPart(dst []byte, s string) []byte {
	if len(s) > core.MaxKeyBytes {
		sum := sha256.Sum256([]byte(s))
		dst = append(dst, partEnd, partHashed)
		return append(dst, sum[:]...)
	}
	dst = append(dst, partEnd, partPlain)
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

// appendRequestField appends the value of a request field; a field that is not
// there differs from an empty one. Two lines mean what one line with a comma
// means, but a handler that asks for the first line sees the difference: each is
// a part of its own.
func appendRequestField(dst []byte, ex Exchange, name string) []byte {
	values := ex.Values(name)
	if len(values) == 0 {
		return append(dst, partEnd, partAbsent)
	}
	dst = append(dst, partEnd, partCount)
	dst = binary.AppendUvarint(dst, uint64(len(values)))
	var buf [128]byte
	for i := range values {
		dst = appendPart(dst, string(field.AppendFieldValue(buf[:0], values[i:i+1])))
	}
	return dst
}

// appendCookies appends the values of the cookies that matter, as they were sent.
// Names are read as net/http reads them, so that no spelling of a name means
// another cookie to the handler than here.
func (rt *routeSnapshot) appendCookies(dst []byte, ex Exchange) []byte {
	lines := ex.Values("Cookie")
	var found []string
	for _, name := range rt.class.HTTP.Cookies {
		found = found[:0]
		for _, line := range lines {
			for pair := range strings.SplitSeq(line, ";") {
				n, v, _ := strings.Cut(pair, "=")
				if strings.TrimSpace(n) == name {
					found = append(found, v)
				}
			}
		}
		dst = append(dst, partEnd, partCount)
		dst = binary.AppendUvarint(dst, uint64(len(found)))
		for _, v := range found {
			dst = appendPart(dst, v)
		}
	}
	return dst
}

// variantKey returns the key of the variant that ex asks for, of a resource whose
// response varied on names. Lines of one field count as one line with commas
// between them (RFC 9111 section 4.1).
func (rt *routeSnapshot) variantKey(resource string, names []string, ex Exchange) string {
	var buf [512]byte
	var value [128]byte
	dst := append(buf[:0], resource...)
	dst = append(dst, partEnd, partVariant)
	for _, name := range names {
		dst = appendPart(dst, name)
		values := ex.Values(name)
		switch {
		case len(values) == 0:
			dst = append(dst, partEnd, partAbsent)
		case name == acceptLanguage && rt.class.HTTP.RankLanguages:
			dst = appendPart(dst, string(field.AppendLanguages(value[:0], values)))
		default:
			dst = appendPart(dst, string(field.AppendFieldValue(value[:0], values)))
		}
	}
	return string(dst)
}

const (
	acceptLanguage = "Accept-Language"
	acceptEncoding = "Accept-Encoding"
)

// preferred finds, among the variants of a resource, one in the language that the
// request ranks highest.
func (rt *routeSnapshot) preferred(a *cacheRequest, ix *index, now int64) (f lookup) {
	for i := range ix.variants {
		en, state := rt.engine.LookupAt(ix.variants[i].key, now)
		if state == local.Gone {
			continue
		}
		r, ok := en.Value.(*response)
		if ok && len(r.vary) == 1 && r.vary[0] == acceptLanguage && ix.answers(r.vary, a.ex) && r.usable(a.ex, a.creds) &&
			field.PrefersLanguage(a.ex.Values(acceptLanguage), r.header().Values("Content-Language")) {
			return lookup{entry: en, response: r, state: state}
		}
	}
	return f
}

// index lists what the responses of a resource have varied on. It stands under
// the resource's key once one of them has varied; then the responses stand under
// the keys of their variants.
//
// A response is stored under the values of everything that the resource is known to
// vary on, whether or not it says so itself (RFC 9111 section 4.1): a CORS
// middleware may send Vary to some only. A response that was stored when less was
// known answers requests that lack the other fields.
type index struct {
	lists [][]string // of field names, sorted; the first has all names, longer ones precede shorter ones
	// variants are those that this process has, the oldest first. The shared tier keeps
	// only the rest: the cost of a new variant there does not grow with their number.
	variants  []variant
	published *published // nil: the shared tier has not been told of the lists
	// implied says that no response named Accept-Encoding in its Vary, and some were
	// encoded: one that is not encoded is for everybody.
	implied bool
}

// variant is a response that stands under a key of its own.
type variant struct {
	key string
	own bool // this process has stored it; others come from the shared tier
}

// published is until when the shared tier keeps the lists of an index, on the engine's clock,
// if it takes them.
type published struct{ until atomic.Int64 }

// maxLists is how many lists of one resource are remembered, maxVaried how many
// names a resource may vary on that does not always vary on the same.
const (
	maxLists  = 8
	maxVaried = 64
)

// listsOf returns lists in the order of an index.
func listsOf(lists ...[]string) [][]string {
	ordered := [][]string{union(nil, lists...)}
	slices.SortStableFunc(lists, func(a, b []string) int { return len(b) - len(a) })
	for _, l := range lists {
		if len(ordered) < maxLists && !slices.ContainsFunc(ordered, func(o []string) bool { return slices.Equal(o, l) }) {
			ordered = append(ordered, l)
		}
	}
	return ordered
}

// subset reports whether all names are in a list.
func subset(names, list []string) bool {
	return !slices.ContainsFunc(names, func(name string) bool { return !slices.Contains(list, name) })
}

// union returns the names of several lists, each once, sorted.
func union(names []string, lists ...[]string) []string {
	all := slices.Clone(names)
	for _, l := range lists {
		all = append(all, l...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// answers reports whether a response that is stored under the values of names may
// be answered to a request with the same values.
func (ix *index) answers(names []string, ex Exchange) bool {
	if len(ix.lists) == 1 && len(ix.lists[0]) == len(names) {
		return true
	}
	for _, l := range ix.lists {
		for _, name := range l {
			if !slices.Contains(names, name) && (!ix.implied || name != acceptEncoding) && len(ex.Values(name)) > 0 {
				return false
			}
		}
	}
	return true
}

// varied returns the names under whose values a response is stored that itself varies
// on some.
func (ix *index) varied(names []string) []string {
	if ix == nil {
		return names
	}
	all := union(names, ix.lists...)
	if ix.implied && !slices.Contains(names, acceptEncoding) {
		all = slices.DeleteFunc(all, func(name string) bool { return name == acceptEncoding })
	}
	return all
}

// indexOf returns the index of a resource, nil if there is none.
func (rt *routeSnapshot) indexOf(resource string) *index {
	en, state := rt.engine.Lookup(resource)
	if state == local.Gone {
		return nil
	}
	ix, _ := en.Value.(*index)
	return ix
}

// with returns the index with a list and a variant added, and the variants that must go
// to keep it within its bound. The caller sets implied.
func (ix *index) with(names []string, v variant, maxVariants int) (next *index, gone []variant) {
	next = &index{lists: listsOf(slices.Insert(slices.Clone(ix.lists), 0, names)...), published: ix.published}
	next.variants = make([]variant, 0, len(ix.variants)+1)
	for _, old := range ix.variants {
		if old.key != v.key {
			next.variants = append(next.variants, old)
		}
	}
	next.variants = append(next.variants, v)
	if n := len(next.variants) - maxVariants; n > 0 {
		gone, next.variants = next.variants[:n:n], next.variants[n:]
	}
	return next, gone
}

// Covers implements local.Lasting.
func (ix *index) Covers(other local.Lasting) bool {
	o, ok := other.(*index)
	return !ok || ix.impliesAsWell(o) == ix.implied && !slices.ContainsFunc(o.lists, func(list []string) bool {
		if len(ix.lists) == maxLists { // it has no room for more lists, and needs none of the same names
			return !subset(list, ix.lists[0])
		}
		return !slices.ContainsFunc(ix.lists, func(l []string) bool { return slices.Equal(l, list) })
	})
}

// Join implements local.Lasting.
func (ix *index) Join(other local.Lasting) local.Lasting {
	o, ok := other.(*index)
	if !ok || ix.Covers(o) {
		return ix
	}
	return &index{lists: listsOf(slices.Concat(ix.lists, o.lists)...), variants: ix.variants, published: ix.published, implied: ix.impliesAsWell(o)}
}

// impliesAsWell is implied of what two indexes know together.
func (ix *index) impliesAsWell(o *index) bool {
	says := func(ix *index) bool { return !ix.implied && ix.has(acceptEncoding) }
	return (ix.implied || o.implied) && !says(ix) && !says(o)
}

// has reports whether a response of the resource has varied on a field.
func (ix *index) has(name string) bool {
	return len(ix.lists) > 0 && slices.Contains(ix.lists[0], name)
}

// Codec implements local.Lasting.
func (*index) Codec() local.Codec { return codec{} }

// Size implements local.Lasting.
func (ix *index) Size() int {
	n := 0
	for _, l := range ix.lists {
		for _, s := range l {
			n += len(s) + 16
		}
	}
	for i := range ix.variants {
		n += len(ix.variants[i].key) + 24
	}
	return n
}

// view returns b as a string without copying it. The string is for a lookup only:
// it changes with b.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
