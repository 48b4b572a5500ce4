package httpcache

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/larderhq/larder/core/httpcache/internal/field"
)

// codec is how the shared tier keeps what a route stores: a response, the lists
// of an index, or the mark of what is uncacheable.
//
// The format is numbers as varints and strings with their lengths before them,
// behind a byte that says what follows. Another version of this package that needs
// another format takes other bytes.
type codec struct{}

const (
	responseValue    = 'r'
	listsValue       = 'l' // 'i' was that of an index with the keys of its variants
	uncacheableValue = 'u'
)

// Encode implements engine.Codec.
func (codec) Encode(value any) (payload []byte, ok bool) {
	switch v := value.(type) {
	case *response:
		return v.encode(), true
	case *index:
		return v.encode(), true
	case uncacheable:
		return []byte{uncacheableValue}, true
	}
	return nil, false
}

// Decode implements engine.Codec.
func (codec) Decode(payload []byte, born int64) (value any, size int, ok bool) {
	d := decoder{rest: payload}
	switch d.byte() {
	case responseValue:
		r := d.response()
		r.born = born
		return r, r.size(), d.done()
	case listsValue:
		ix := d.index()
		return ix, ix.Size(), d.done()
	case uncacheableValue:
		return uncacheable{}, 0, d.done()
	}
	return nil, 0, false
}

const (
	flagAuthorized = 1 << iota
	flagCookies
	flagValidate
	flagStrict
	flagPart
	flagFailure
	flagOrigins
)

func (r *response) encode() []byte {
	to := make([]byte, 0, r.size()+len(r.key))
	flags := byte(0)
	for _, f := range []struct {
		set  bool
		flag byte
	}{
		{r.forAuthorized, flagAuthorized}, {r.forCookies, flagCookies}, {r.validate, flagValidate},
		{r.strict, flagStrict}, {r.part != nil, flagPart}, {r.failure != "", flagFailure}, {r.forOrigins, flagOrigins},
	} {
		if f.set {
			flags |= f.flag
		}
	}
	to = append(to, responseValue, flags)
	to = binary.AppendUvarint(to, uint64(r.status))
	to = binary.AppendVarint(to, r.initialAge)
	to = binary.AppendVarint(to, int64(r.forError))
	if r.failure != "" {
		to = appendString(to, r.failure)
	}
	to = appendString(to, r.etag)
	to = appendString(to, r.key)
	to = appendStrings(to, r.vary)
	to = appendStrings(to, r.tags)
	if r.part != nil {
		to = binary.AppendVarint(to, r.part.First)
		to = binary.AppendVarint(to, r.part.Last)
		to = binary.AppendVarint(to, r.part.whole)
		to = appendString(to, r.part.asked)
	}
	to = binary.AppendUvarint(to, uint64(len(r.fields)))
	to = binary.AppendUvarint(to, uint64(r.own))
	for _, f := range r.fields {
		to = append(appendString(to, f.Name), byte(f.Mode))
		to = appendStrings(to, f.Values)
	}
	encoded := r.encodings().encoded
	to = binary.AppendUvarint(to, uint64(len(encoded)))
	for i := range encoded {
		to = appendString(to, encoded[i].coding)
		to = binary.AppendUvarint(to, uint64(len(encoded[i].body)))
		to = append(to, encoded[i].body...)
	}
	return append(to, r.body...)
}

// encode leaves out the variants, which each process counts by itself.
func (ix *index) encode() []byte {
	implied := byte(0)
	if ix.implied {
		implied = 1
	}
	to := []byte{listsValue, implied}
	to = binary.AppendUvarint(to, uint64(len(ix.lists)))
	for _, list := range ix.lists {
		to = appendStrings(to, list)
	}
	return to
}

func appendString(to []byte, s string) []byte {
	return append(binary.AppendUvarint(to, uint64(len(s))), s...)
}

func appendStrings(to []byte, list []string) []byte {
	to = binary.AppendUvarint(to, uint64(len(list)))
	for _, s := range list {
		to = appendString(to, s)
	}
	return to
}

// decoder reads what was encoded. After the first error everything it reads is
// zero. It takes no more memory than a small multiple of what it is given.
type decoder struct {
	rest []byte
	err  error
}

var errMalformed = errors.New("larder: malformed value of the shared tier")

func (d *decoder) done() bool { return d.err == nil && len(d.rest) == 0 }

func (d *decoder) fail() {
	d.err = errMalformed
	d.rest = nil
}

func (d *decoder) byte() byte {
	if len(d.rest) == 0 {
		d.fail()
		return 0
	}
	b := d.rest[0]
	d.rest = d.rest[1:]
	return b
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.rest)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

// count reads how many things follow, each of which takes a byte at least.
func (d *decoder) count() int {
	n := d.uvarint()
	if n > uint64(len(d.rest)) {
		d.fail()
		return 0
	}
	return int(n)
}

// bytes reads a string without copying it, as the body is not copied either.
func (d *decoder) bytes() []byte {
	n := d.count()
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) string() string { return string(d.bytes()) }

func (d *decoder) strings() []string {
	n := d.count()
	if n == 0 {
		return nil
	}
	list := make([]string, n)
	for i := range list {
		list[i] = d.string()
	}
	return list
}

func (d *decoder) response() *response {
	flags := d.byte()
	status := d.uvarint()
	r := &response{}
	r.initialAge, r.forError = d.varint(), time.Duration(d.varint())
	r.forAuthorized = flags&flagAuthorized != 0
	r.forCookies = flags&flagCookies != 0
	r.forOrigins = flags&flagOrigins != 0
	r.validate = flags&flagValidate != 0
	r.strict = flags&flagStrict != 0
	if flags&flagFailure != 0 {
		r.failure = d.string()
	}
	r.etag, r.key = d.string(), d.string()
	r.vary, r.tags = d.strings(), d.strings()
	if flags&flagPart != 0 {
		r.part = &partial{Span: field.Span{First: d.varint(), Last: d.varint()}, whole: d.varint(), asked: d.string()}
	}
	n := d.count()
	own := d.uvarint()
	for range n { // it grows with what there is, not with what there is said to be
		if d.err != nil {
			break
		}
		r.fields = append(r.fields, Field{Name: d.string(), Mode: Mode(d.byte()), Values: d.strings()})
	}
	n = min(d.count(), maxCodings+1)
	var encoded []encodedBody
	for range n {
		encoded = append(encoded, encodedBody{coding: d.string(), body: d.bytes()})
	}
	if encoded != nil {
		r.coded = &encodings{encoded: encoded}
	}
	r.body = d.rest
	d.rest = nil
	if status < 200 || status > 999 || own > uint64(len(r.fields)) || len(encoded) > maxCodings || !r.partFits() {
		d.fail()
		return r
	}
	r.own, r.status = int32(own), int32(status) //nolint:gosec // they fit
	r.read()
	r.describeEncoded()
	return r
}

// maxCodings is how many there are that a class may name.
const maxCodings = 2

// partFits reports whether a part has no more content than it says.
func (r *response) partFits() bool {
	return r.part == nil || r.part.First >= 0 && r.part.Last >= r.part.First && int64(len(r.body)) <= r.part.Last-r.part.First+1 &&
		(r.part.whole < 0 || r.part.Last < r.part.whole)
}

func (d *decoder) index() *index {
	implied := d.byte()
	n := d.count()
	if n == 0 || n > maxLists || implied > 1 {
		d.fail()
		return &index{}
	}
	lists := make([][]string, n)
	for i := range lists {
		lists[i] = d.strings()
	}
	return &index{lists: listsOf(lists...), implied: implied == 1}
}
