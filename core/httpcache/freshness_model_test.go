package httpcache

import (
	"net/http"
	"slices"
	"time"

	"github.com/larderhq/larder/core"
)

// The model of freshness: RFC 9111 section by section, slowly, on a response that
// has never been text. Where the cache departs from the RFC on purpose, the line
// that does so begins with "On purpose".

// directive is a member of Cache-Control.
type directive struct {
	name   string
	form   form
	number int64    // of a numbered one
	fields []string // of a qualified one: canonical
}

type form int

const (
	bare form = iota
	numbered
	quoted // a number as a quoted string
	qualified
	wrong // an argument that the directive does not have
)

// directiveList is all members, in the order of the field; targeted says that they
// are those of CDN-Cache-Control, where the last one of a name counts (RFC 9213
// section 2.1) and a string is no number.
type directiveList struct {
	list     []directive
	targeted bool
}

func (l directiveList) named(name string) (found []directive) {
	for _, d := range l.list {
		if d.name == name {
			found = append(found, d)
		}
	}
	if l.targeted && len(found) > 1 {
		found = found[len(found)-1:]
	}
	return found
}

// forbids reports whether a directive that forbids something is there. On purpose:
// one with an argument that it does not have still forbids.
func (l directiveList) forbids(name string) bool { return len(l.named(name)) > 0 }

// permits is for those that permit something. On purpose: only as it should be.
func (l directiveList) permits(name string) bool {
	return slices.ContainsFunc(l.named(name), func(d directive) bool { return d.form == bare })
}

// whole reports whether no-cache or private concerns the whole response. On
// purpose: also with an argument that is no list of fields.
func (l directiveList) whole(name string) bool {
	return slices.ContainsFunc(l.named(name), func(d directive) bool { return d.form != qualified })
}

func (l directiveList) listed(name string) (fields []string) {
	for _, d := range l.named(name) {
		fields = append(fields, d.fields...)
	}
	return fields
}

// seconds is the number of a directive. Section 4.2.1: of several the strictest,
// and what is invalid is stale, which is 0.
func (l directiveList) seconds(name string) (n int64, ok bool) {
	for _, d := range l.named(name) {
		v := d.number
		if d.form == bare || d.form == wrong || l.targeted && d.form == quoted {
			v = 0
		}
		v = min(v, 1<<31) // section 1.2.2
		switch {
		case !ok, name == "min-fresh" && v > n, name != "min-fresh" && v < n:
			n = v
		}
		ok = true
	}
	return n, ok
}

// moment is a date field.
type moment struct {
	there, valid bool
	at           time.Time
}

// drawn is a response as the handler meant it, and what it answered.
type drawn struct {
	status       int
	cc, cdn      []directive
	cdnBroken    bool // it cannot be parsed
	pragma       bool // Pragma: no-cache
	date         moment
	expires      moment
	lastModified moment
	etag         string
	age          int64
	ageThere     bool
	ageBroken    bool
	setCookie    bool
	vary         string
	part         bool // it has a Content-Range
	trailer      bool

	authorization, cookie bool // of the request
	identity              bool // of the route
	class                 core.Class
	saidTTL               time.Duration // by the handler, to the cache; -1: nothing
	delay                 time.Duration // how long the handler took
	now                   time.Time     // when it answered
}

// directives: RFC 9213 section 2.2.
func (o *drawn) directives() directiveList {
	if o.cdn != nil && !o.cdnBroken {
		return directiveList{o.cdn, true}
	}
	list := o.cc
	if o.cc == nil && o.pragma {
		list = []directive{{name: "no-cache"}} // On purpose: section 5.4 gives it no meaning
	}
	return directiveList{list, false}
}

// heuristically are the statuses that RFC 9110 section 15.1 lists.
var heuristically = []int{200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501}

// defined are those that RFC 9110 section 15 defines, so that a cache can
// understand them.
var defined = []int{
	200, 201, 202, 203, 204, 205, 206, 300, 301, 302, 303, 304, 305, 307, 308,
	400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 421, 422, 426,
	500, 501, 502, 503, 504, 505,
}

// mayStore is section 3.
func (o *drawn) mayStore() bool {
	cc, known := o.directives(), slices.Contains(defined, o.status)
	_, sMaxAge := cc.seconds("s-maxage")
	_, maxAge := cc.seconds("max-age")
	switch {
	case o.status == 304, o.status == 412, o.status == 416, o.trailer, o.saidTTL == 0:
		return false // On purpose: they are for one request only, or would lose something
	case (o.status == 206 || cc.permits("must-understand")) && !known:
		return false
	case cc.forbids("no-store") && !cc.permits("must-understand"): // section 5.2.2.3
		return false
	case cc.whole("private") && !o.identity:
		return false
	case o.authorization && !o.identity && !cc.permits("public") && !cc.forbids("must-revalidate") && !sMaxAge: // section 3.5
		return false
	case o.status == 206 && (!o.part || o.vary != ""), o.status == 200 && o.part, o.vary == "*":
		return false // On purpose: no part of what varies
	case o.cookie && !o.identity && o.class.HTTP.Cookies == nil && !cc.permits("public"): // the class
		return false
	case o.setCookie && !o.class.HTTP.AllowSetCookie && !o.withoutCookie(): // the class
		return false
	}
	return cc.permits("public") || o.expires.there && !cc.targeted || maxAge || sMaxAge ||
		slices.Contains(heuristically, o.status) || o.saidTTL > 0
}

// withoutCookie reports whether it may stay without its Set-Cookie. On purpose:
// session libraries say no-cache="Set-Cookie" of every page, which permits nothing by
// itself.
func (o *drawn) withoutCookie() bool {
	cc := o.directives()
	_, sMaxAge := cc.seconds("s-maxage")
	_, maxAge := cc.seconds("max-age")
	stated := cc.permits("public") || sMaxAge || maxAge || o.expires.there && !cc.targeted
	return !o.identity && slices.Contains(cc.listed("private"), "Set-Cookie") || slices.Contains(cc.listed("no-cache"), "Set-Cookie") && stated
}

// strips are the fields that are not stored: sections 5.2.2.4 and 5.2.2.7.
func (o *drawn) strips() []string {
	fields := o.directives().listed("no-cache")
	if !o.identity {
		fields = append(fields, o.directives().listed("private")...)
	}
	return fields
}

// lifetime is sections 4.2.1 and 4.2.2, and the class where neither applies.
func (o *drawn) lifetime() (d time.Duration, stated, ok bool) {
	cc, class := o.directives(), o.class
	date := o.now
	if o.date.there && o.date.valid {
		date = o.date.at
	}
	switch n, sMaxAge := cc.seconds("s-maxage"); {
	case o.saidTTL >= 0:
		return o.saidTTL, false, true
	case sMaxAge:
		return time.Duration(n) * time.Second, true, true
	}
	if n, maxAge := cc.seconds("max-age"); maxAge {
		return time.Duration(n) * time.Second, true, true
	}
	if o.expires.there && !cc.targeted {
		if !o.expires.valid { // section 5.3
			return 0, true, true
		}
		return between(date, o.expires.at), true, true
	}
	gone := o.status == http.StatusNotFound || o.status == http.StatusGone
	erring := gone || o.status == 405 || o.status == 414 || o.status == 501
	plain := slices.Contains(heuristically, o.status) && !erring && o.status != 206
	switch {
	case plain && class.TTL > 0:
		return class.TTL, false, true
	case gone && class.NegativeTTL > 0:
		return class.NegativeTTL, false, true
	case class.TTL > 0 || class.HTTP.NoHeuristic:
		return 0, false, false
	case (plain || erring || cc.permits("public")) && o.lastModified.valid && date.After(o.lastModified.at): // section 4.2.2; on purpose not for a 206
		return min(between(o.lastModified.at, date)/10, 24*time.Hour), true, true
	}
	return 0, false, false
}

// between is a duration that does not overflow: a thousand years are as good as
// two.
func between(from, to time.Time) time.Duration {
	seconds := to.Unix() - from.Unix()
	const limit = 1 << 32
	return time.Duration(max(-limit, min(seconds, limit)))*time.Second + time.Duration(to.Nanosecond()-from.Nanosecond())
}
