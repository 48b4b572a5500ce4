package httpcache

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/larderhq/larder/core/httpcache/internal/field"
)

// The fields that Larder adds for downstream caches and clients: the date of a response,
// the ranges that it takes, and no-cache where a downstream cache would apply a heuristic
// lifetime to a copy that no invalidation reaches.

// acceptRanges is added to stored content, of which the cache cuts ranges.
var acceptRanges = Field{Name: "Accept-Ranges", Values: []string{"bytes"}, Mode: Absent} //nolint:gochecknoglobals // a constant

// takesBytes reports whether an Accept-Ranges field lets ranges of bytes be cut (RFC
// 9110 section 14.3). Without the field the handler leaves that to the cache.
func takesBytes(values []string) bool {
	for _, line := range values {
		for unit := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.Trim(unit, " \t"), "bytes") {
				return true
			}
		}
	}
	return len(values) == 0
}

// dateField is the Date of a response that was made at a time. With the Age that is
// counted from the same time it gives every cache the same lifetime (RFC 9111 section
// 4.2.3).
func dateField(made time.Time) Field {
	return Field{Name: "Date", Values: []string{made.UTC().Format(http.TimeFormat)}}
}

// notGuessed are the directives that a cache is given where it would guess.
var notGuessed = []Field{{Name: "Cache-Control", Values: []string{"no-cache"}, Mode: Join}} //nolint:gochecknoglobals // a constant

// noGuess returns what is added to a response that says neither how long it may be
// kept nor that it may not: caches take public, must-revalidate and the like as leave
// to guess a lifetime (RFC 9111 section 4.2.2). Directives for one field, or for targeted
// caches, do not concern other caches.
func noGuess(h Header) []Field {
	if len(h.Values("Expires")) > 0 {
		return nil
	}
	if decided(h.Values("Cache-Control")) {
		return nil
	}
	return notGuessed[:1:1]
}

// decided reports whether a Cache-Control says how long a response may be kept, or that
// it may not.
func decided(values []string) bool {
	cc := field.ParseCacheControl(values)
	return cc.MaxAge.Present || cc.SMaxAge.Present || cc.NoStore || cc.NoCache || cc.Private
}

// JoinList returns the lines of a list field, at least one, with the members of f, whose
// mode is Join, appended to the last line. A Cache-Control of outer middleware that has decided itself,
// this time, is left alone.
func JoinList(lines []string, f *Field) []string {
	if f.Name == "Cache-Control" && decided(lines) {
		return lines
	}
	all := slices.Clone(lines)
	last := &all[len(all)-1]
	if *last != "" {
		*last += ", "
	}
	*last += strings.Join(f.Values, ", ")
	return all
}

// unstored returns what is added to an answer that is not stored. A 304 speaks of a
// response that the client has, with the fields that it came with.
func unstored(status int, h Header, cacheStatus Field) []Field {
	if h == nil || status == http.StatusNotModified || status == http.StatusSwitchingProtocols {
		return []Field{cacheStatus}
	}
	return append(noGuess(h), cacheStatus)
}

// unanswered returns what is added to the answer that the framework is going to give to a
// handler's error, whatever the handler has set for it.
func unanswered(cacheStatus Field) []Field {
	return append(notGuessed[:1:1], cacheStatus)
}

// neverKept are the fields of an answer that the cache itself makes: no cache may store it. The fields that some caches heed before Cache-Control are none of
// its own.
var neverKept = []Field{ //nolint:gochecknoglobals // a constant
	{Name: "Cache-Control", Values: []string{"no-store"}},
	{Name: "Cdn-Cache-Control", Mode: Remove},
	{Name: "Surrogate-Control", Mode: Remove},
	{Name: "Expires", Mode: Remove},
}

// ownAnswer is an answer of the cache's own making, in plain text.
func ownAnswer(status int, text string, extra ...Field) Answer {
	return Answer{
		Status: status,
		Fields: append([]Field{{Name: "Content-Type", Values: []string{"text/plain; charset=utf-8"}}}, neverKept...),
		Extra:  extra,
		Body:   []byte("larder: " + text + "\n"),
	}
}
