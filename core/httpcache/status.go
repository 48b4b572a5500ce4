package httpcache

import (
	"strconv"
	"time"
)

// Cache-Status (RFC 9211) says of every answer what the cache did with it.

// CacheName is how the cache calls itself in Cache-Status.
const CacheName = "Larder"

const cacheStatus = "Cache-Status"

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

// statusForward describes a request that went to the handler.
func statusForward(fwd string, stored bool, detail string) string {
	s := CacheName + "; fwd=" + fwd
	if stored {
		s += "; stored"
	}
	if detail != "" {
		s += "; detail=" + detail
	}
	return s
}

// statusCollapsed describes a request that was answered from somebody else's.
func statusCollapsed(fwd string) string { return CacheName + "; fwd=" + fwd + "; collapsed" }

// rendered are the fields of a hit as they were last written. They change once a
// second.
type rendered struct {
	age, ttl int64
	fields   []Field
}

func (r *response) hitFields(now, freshUntil int64) []Field {
	age := r.initialAge + seconds(now-r.born)
	ttl := seconds(freshUntil - now)
	last := r.last.Load()
	if last == nil || last.age != age || last.ttl != ttl {
		last = &rendered{age, ttl, []Field{
			{Name: "Age", Values: []string{strconv.FormatInt(age, 10)}, Mode: Set},
			{Name: cacheStatus, Values: []string{statusHit(ttl)}, Mode: Append},
		}}
		r.last.Store(last)
	}
	return last.fields
}

// seconds rounds down, also below zero.
func seconds(ns int64) int64 {
	s := ns / int64(time.Second)
	if ns < 0 && ns%int64(time.Second) != 0 {
		s--
	}
	return s
}
