package fast

import (
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"github.com/valyala/fasthttp"

	"github.com/larderhq/larder/core/httpcache"
)

// header is a httpcache.Header of fasthttp: a copy, under canonical names, without
// what fasthttp states itself as it sends (the length, the transfer coding).
type header struct {
	final  []httpcache.Field // sorted by name
	before *fasthttp.ResponseHeader
	theirs []httpcache.Field // of before, once it has been asked for
}

var _ httpcache.Header = (*header)(nil)

// newHeader copies h. content says that there is some: only then does fasthttp
// state its default type.
func newHeader(h, before *fasthttp.ResponseHeader, content bool) *header {
	v := &header{final: fieldsOf(h), before: before}
	if i, typed := find(v.final, fasthttp.HeaderContentType); content && !typed {
		f := httpcache.Field{Name: fasthttp.HeaderContentType}
		if t := string(h.ContentType()); t != "" {
			f.Values, f.Mode = []string{t}, httpcache.Absent
			v.final = slices.Insert(v.final, i, f)
		} else if len(before.ContentType()) > 0 { // the handler suppressed it
			v.final = slices.Insert(v.final, i, f)
		}
	}
	return v
}

// Values implements httpcache.Header.
func (v *header) Values(name string) []string {
	if i, found := find(v.final, name); found {
		return v.final[i].Values
	}
	return nil
}

// Before returns what outer middleware had set of a field.
func (v *header) Before(name string) []string {
	if v.theirs == nil {
		v.theirs = fieldsOf(v.before)
	}
	if i, found := find(v.theirs, name); found {
		return v.theirs[i].Values
	}
	return nil
}

// Own implements httpcache.Header. Members that c.Append and c.Vary added to a line are
// appended, as are added lines.
func (v *header) Own() []httpcache.Field {
	before := fieldsOf(v.before)
	own := make([]httpcache.Field, 0, len(v.final))
	for _, f := range v.final {
		if i, there := find(before, f.Name); there {
			f.Mode = httpcache.Set
			if added, rest := httpcache.AddedValues(f.Values, before[i].Values); added {
				if len(rest) == 0 {
					continue
				}
				f.Values, f.Mode = rest, httpcache.Append
			}
		}
		own = append(own, f)
	}
	for _, f := range before {
		if _, still := find(v.final, f.Name); !still {
			i, _ := find(own, f.Name)
			own = slices.Insert(own, i, httpcache.Field{Name: f.Name, Mode: httpcache.Remove})
		}
	}
	return own
}

// fieldsOf copies the fields that have been set in h.
func fieldsOf(h *fasthttp.ResponseHeader) (fields []httpcache.Field) {
	var set fasthttp.ResponseHeader
	h.CopyTo(&set)
	set.SetNoDefaultContentType(true)
	set.VisitAll(func(key, value []byte) {
		name := http.CanonicalHeaderKey(string(key))
		switch name {
		case fasthttp.HeaderContentLength, fasthttp.HeaderTransferEncoding:
			return
		}
		i, found := find(fields, name)
		if !found {
			fields = slices.Insert(fields, i, httpcache.Field{Name: name})
		}
		fields[i].Values = append(fields[i].Values, string(value))
	})
	return fields
}

func find(fields []httpcache.Field, name string) (int, bool) {
	return slices.BinarySearchFunc(fields, name, func(f httpcache.Field, name string) int {
		return strings.Compare(f.Name, name)
	})
}

// defaultType is what fasthttp states where no type has been set.
const defaultType = "text/plain; charset=utf-8"

// setFields puts lists of fields into h, whose status has been set.
func setFields(h *fasthttp.ResponseHeader, lists ...[]httpcache.Field) {
	fresh := isFresh(h)
	for at, fields := range lists {
		for i := range fields {
			f := &fields[i]
			if !fresh || !setNew(h, f, lists[:at], fields[:i]) {
				setField(h, f)
			}
		}
	}
}

// named reports whether a name is one of lists of fields, or of one more.
func named(name string, lists [][]httpcache.Field, fields []httpcache.Field) bool {
	for _, list := range lists {
		if named(name, nil, list) {
			return true
		}
	}
	for i := range fields {
		if fields[i].Name == name {
			return true
		}
	}
	return false
}

// setField puts a field into h.
func setField(h *fasthttp.ResponseHeader, f *httpcache.Field) {
	if f.Mode == httpcache.Absent {
		if v := h.Peek(f.Name); len(v) > 0 && (f.Name != fasthttp.HeaderContentType || string(v) != defaultType) {
			return
		}
	}
	if f.Mode == httpcache.Join {
		join(h, f)
		return
	}
	var there []string
	switch f.Mode {
	case httpcache.Append:
	case httpcache.Merge:
		for _, v := range h.PeekAll(f.Name) {
			there = append(there, string(v))
		}
	default:
		h.Del(f.Name)
	}
	if f.Mode == httpcache.Set && f.Values == nil && f.Name == fasthttp.HeaderContentType {
		h.SetNoDefaultContentType(true)
	}
	for _, v := range f.Values {
		if f.Mode != httpcache.Merge || !slices.Contains(there, v) {
			addValue(h, f.Name, v)
		}
	}
}

// addValue adds a line to h.
func addValue(h *fasthttp.ResponseHeader, name, value string) {
	switch name {
	case fasthttp.HeaderContentLength:
		if n, err := strconv.Atoi(value); err == nil {
			h.SetContentLength(n) // not where the status forbids it
		}
	case fasthttp.HeaderDate:
		setDate(h, value)
	default:
		h.Add(name, value)
	}
}

// isFresh reports whether h has no fields yet, but for a type and for the name of the server,
// of which fasthttp keeps one each.
func isFresh(h *fasthttp.ResponseHeader) bool {
	n := 0
	h.VisitAll(func(key, _ []byte) {
		switch string(key) {
		case fasthttp.HeaderContentType, fasthttp.HeaderServer:
		default:
			n++
		}
	})
	return n == 0
}

// setNew puts a field of one value into a header that had none but those of lists, and of
// put. Names are canonical, so that fasthttp need not make them so. It reports whether
// the field is one of those that it can put.
func setNew(h *fasthttp.ResponseHeader, f *httpcache.Field, lists [][]httpcache.Field, put []httpcache.Field) bool {
	if f.Mode == httpcache.Join || f.Mode == httpcache.Remove || len(f.Values) != 1 {
		return false
	}
	if (f.Mode != httpcache.Set || f.Name == fasthttp.HeaderDate) && named(f.Name, lists, put) {
		return false
	}
	switch f.Name {
	case fasthttp.HeaderContentLength, fasthttp.HeaderSetCookie:
		return false
	case fasthttp.HeaderDate:
		setDate(h, f.Values[0])
		return true
	case fasthttp.HeaderContentType: // it may be the default
		if f.Mode != httpcache.Set {
			return false
		}
	}
	h.SetCanonical(raw(f.Name), raw(f.Values[0]))
	return true
}

// join puts the members of a list into the last line that h has of it.
func join(h *fasthttp.ResponseHeader, f *httpcache.Field) {
	var lines []string
	for _, line := range h.PeekAll(f.Name) {
		lines = append(lines, string(line))
	}
	if len(lines) == 0 {
		lines = []string{""}
	}
	lines = httpcache.JoinList(lines, f)
	h.Del(f.Name)
	for _, line := range lines {
		h.Add(f.Name, line)
	}
}

// noDefaultDate is where a fasthttp header says that it is sent with the Date that it
// has, and not with the time at which it is sent. nil: not in this version of fasthttp,
// or this version shows copies of its fields' names.
var noDefaultDate = func() func(h *fasthttp.ResponseHeader) *bool { //nolint:gochecknoglobals // a constant
	f, ok := reflect.TypeFor[fasthttp.ResponseHeader]().FieldByName("noDefaultDate")
	if !ok || f.Type.Kind() != reflect.Bool || len(f.Index) != 1 {
		return nil
	}
	var h fasthttp.ResponseHeader
	if putDate(&h, "now"); string(h.Peek(fasthttp.HeaderDate)) != "now" {
		return nil
	}
	return func(h *fasthttp.ResponseHeader) *bool {
		return (*bool)(unsafe.Add(unsafe.Pointer(h), f.Offset))
	}
}()

// almostDate is a name that becomes Date by its first byte.
const almostDate = "#ate"

// setDate gives h a Date of its own. fasthttp does not take one, and writes the time at
// which it sends, unless the whole server is to send none: a response from the store
// would be as young as its Date and as old as its Age.
func setDate(h *fasthttp.ResponseHeader, date string) {
	if noDefaultDate == nil {
		return
	}
	putDate(h, date)
	*noDefaultDate(h) = true
}

// putDate puts a Date into h.
func putDate(h *fasthttp.ResponseHeader, date string) {
	h.SetCanonical(raw(almostDate), raw(date))
	h.VisitAll(func(key, _ []byte) {
		if string(key) == almostDate {
			key[0] = 'D'
		}
	})
}
