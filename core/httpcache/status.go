package httpcache

import (
	"strconv"
	"sync/atomic"
	"time"
)

// Cache-Status (RFC 9211) says of every answer what the cache did with it.

// CacheName is how the cache calls itself in Cache-Status.
const CacheName = "Larder"

const cacheStatus = "Cache-Status"

// incomplete is the detail of a response that is not the whole of what the handler meant
// to answer.
const incomplete = "incomplete"

// handlerError is the detail of an answer to an error that the handler returned.
const handlerError = "handler-error"

// disabled is the detail of a cache that has been switched off.
const disabled = "disabled"

// The reasons to go forward (RFC 9211 section 2.2).
const (
	fwdMiss    = "uri-miss"
	fwdVary    = "vary-miss"
	fwdStale   = "stale"
	fwdRequest = "request"
	fwdBypass  = "bypass"
	fwdMethod  = "method"
)

func statusHit(ttl int64) string { return CacheName + "; hit; ttl=" + strconv.FormatInt(ttl, 10) }

// forwarded describes a request that was not answered from the store.
type forwarded struct {
	fwd    string // why it went to the handler; "": it did not
	status int    // of the handler's answer, where the client's is another
	stored bool
	detail string
}

func (f forwarded) String() string {
	s := CacheName
	if f.fwd != "" {
		s += "; fwd=" + f.fwd
	}
	if f.status != 0 {
		s += "; fwd-status=" + strconv.Itoa(f.status)
	}
	if f.stored {
		s += "; stored"
	}
	if f.detail != "" {
		s += "; detail=" + f.detail
	}
	return s
}

func (f forwarded) field() Field {
	return Field{Name: cacheStatus, Values: []string{f.String()}, Mode: Append}
}

func statusField(fwd string, stored bool, detail string) Field {
	return forwarded{fwd: fwd, stored: stored, detail: detail}.field()
}

// statusCollapsed describes a request that was answered from another request's load.
func statusCollapsed(fwd string) string { return CacheName + "; fwd=" + fwd + "; collapsed" }

// rendered are the fields that a hit of an age and with a remaining lifetime adds.
type rendered struct {
	age, ttl int64
	fields   [2]Field
	values   [2]string
}

// renderings are the fields of hits as they were last written, shared by all responses of the
// same age and remaining lifetime: there are as many as seconds in a lifetime, as a rule. The
// table holds at most 1 MiB.
var renderings [1 << 12]atomic.Pointer[rendered] //nolint:gochecknoglobals // a cache

// renderingOf returns the place of an age and a remaining lifetime. Responses of one lifetime
// have neighbouring places, so that no two of their ages meet in a lifetime of an hour.
func renderingOf(age, ttl int64) *atomic.Pointer[rendered] {
	const golden = 0x9e3779b97f4a7c15                                                    // Knuth, The Art of Computer Programming, section 6.4
	return &renderings[(uint64(age+ttl)*golden>>32+uint64(age))%uint64(len(renderings))] //nolint:gosec // it wraps
}

func (r *response) hitFields(now, freshUntil int64) []Field {
	age := r.age(now)
	ttl := seconds(freshUntil - now)
	slot := renderingOf(age, ttl)
	last := slot.Load()
	if last == nil || last.age != age || last.ttl != ttl {
		last = render(age, ttl)
		slot.Store(last)
	}
	return last.fields[:]
}

func render(age, ttl int64) *rendered {
	made := &rendered{age: age, ttl: ttl, values: [2]string{strconv.FormatInt(age, 10), statusHit(ttl)}}
	made.fields = [2]Field{
		{Name: "Age", Values: made.values[:1:1]},
		{Name: cacheStatus, Values: made.values[1:], Mode: Append},
	}
	return made
}

func (r *response) collapsedFields(now int64, fwd string) []Field {
	return []Field{
		ageField(r.age(now)),
		{Name: cacheStatus, Values: []string{statusCollapsed(fwd)}, Mode: Append},
	}
}

// age returns how old the response is, in seconds.
func (r *response) age(now int64) int64 { return r.initialAge + seconds(now-r.born) }

func ageField(age int64) Field {
	return Field{Name: "Age", Values: []string{strconv.FormatInt(age, 10)}}
}

// seconds rounds down, also below zero.
func seconds(ns int64) int64 {
	s := ns / int64(time.Second)
	if ns < 0 && ns%int64(time.Second) != 0 {
		s--
	}
	return s
}
