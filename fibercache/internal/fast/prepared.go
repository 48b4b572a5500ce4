package fast

import (
	"bytes"
	"sync/atomic"
	"unsafe"

	"github.com/valyala/fasthttp"

	"github.com/larderhq/larder/core/httpcache"
)

// preparedHeaders are the headers of the answers that a route gives most often, as fasthttp
// keeps them. fasthttp searches all fields of a header for each field that is put into it:
// to build a header of ten fields takes three times as long as to copy one.
//
// The fields of an answer are made once: those of the response with it, and those of the hit for
// all hits of a second. They are never changed. Their addresses therefore identify the answer,
// as long as something refers to them.
type preparedHeaders [preparedSlots]preparedSlot

// preparedSlots bounds the headers that a route has prepared. Each takes about 1.5 KiB.
const preparedSlots = 128

// worthPreparing is how many answers with the same fields come before their header is
// prepared.
const worthPreparing = 4

// preparedSlot is the place of the answers whose fields have addresses of one hash.
type preparedSlot struct {
	header atomic.Pointer[preparedHeader]
	last   atomic.Pointer[httpcache.Field] // the response's fields of the latest answer without a prepared header
	count  atomic.Int32                    // of the answers with these fields; it may miss some
}

// preparedHeader is a header that is copied. It is never changed.
type preparedHeader struct {
	fields, extra []httpcache.Field // of the answer
	server        *fasthttp.Server  // of the app
	name, kind    []byte            // in a header to which the fields are added
	header        fasthttp.ResponseHeader
}

// copyTo puts the fields of an answer into h, unless they are to be put there one by one.
func (p *preparedHeaders) copyTo(h *fasthttp.ResponseHeader, a *httpcache.Answer, server *fasthttp.Server) bool {
	if len(a.Fields) == 0 || len(a.Extra) == 0 || !isFresh(h) || len(h.StatusMessage()) > 0 {
		return false
	}
	at := &a.Fields[0]
	const golden = 0x9e3779b97f4a7c15 // Knuth, The Art of Computer Programming, section 6.4
	both := uint64(uintptr(unsafe.Pointer(at)))*golden + uint64(uintptr(unsafe.Pointer(&a.Extra[0])))
	slot := &p[both*golden>>32%preparedSlots]
	if ready := slot.header.Load(); ready != nil && ready.suits(h, a, server) {
		ready.header.CopyTo(h)
		return true
	}
	if slot.last.Swap(at) != at {
		slot.count.Store(0)
	} else if slot.count.Add(1)%worthPreparing == 0 {
		slot.header.Store(prepare(h, a, server))
	}
	return false
}

// prepare makes a prepared header of an answer for requests whose header is like h so far.
func prepare(h *fasthttp.ResponseHeader, a *httpcache.Answer, server *fasthttp.Server) *preparedHeader {
	p := &preparedHeader{
		fields: a.Fields, extra: a.Extra, server: server,
		name: bytes.Clone(h.Server()), kind: bytes.Clone(h.ContentType()),
	}
	h.CopyTo(&p.header)
	p.header.SetStatusCode(a.Status)
	setFields(&p.header, a.Fields, a.Extra)
	return p
}

// suits reports whether the header is the one of an answer to a request whose header is h so
// far.
func (p *preparedHeader) suits(h *fasthttp.ResponseHeader, a *httpcache.Answer, server *fasthttp.Server) bool {
	return same(p.fields, a.Fields) && same(p.extra, a.Extra) && p.server == server && p.header.StatusCode() == a.Status &&
		bytes.Equal(p.name, h.Server()) && bytes.Equal(p.kind, h.ContentType())
}

// same reports whether two lists are one.
func same(a, b []httpcache.Field) bool { return len(a) == len(b) && &a[0] == &b[0] }
