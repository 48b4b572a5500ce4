package httpcache

import (
	"net/http"
	"time"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/httpcache/internal/field"
	"github.com/larderhq/larder/core/internal/loadscope"
	"github.com/larderhq/larder/core/internal/local"
)

// directives is what a response says of its freshness.
type directives struct {
	cc       field.CacheControl
	targeted bool // it is CDN-Cache-Control's: Cache-Control and Expires do not count
}

// readDirectives reads CDN-Cache-Control, and Cache-Control where there is none
// (RFC 9213 section 2.2).
func readDirectives(h Header) directives {
	if values := h.Values("Cdn-Cache-Control"); len(values) > 0 {
		if cc, ok := field.ParseTargeted(values); ok {
			return directives{cc, true}
		}
	}
	values := h.Values("Cache-Control")
	cc := field.ParseCacheControl(values)
	if len(values) == 0 && pragmaNoCache(h.Values("Pragma")) {
		cc.NoCache = true // some handlers say no more than that
	}
	return directives{cc: cc}
}

// life is how long a response may be used, and how.
type life struct {
	lifetime local.Lifetime
	stated   bool  // the response states its lifetime itself
	guess    bool  // a heuristic lifetime, of a status that has none unless the response is public
	age      int64 // seconds it had when it came
	validate bool  // no use of it without validation
	strict   bool  // never answered once it is stale
	// forError is how long after its lifetime it stands in for an error.
	forError time.Duration
}

const (
	// keepForValidation is how long a response with a validator is kept when it
	// has become stale, to be validated.
	keepForValidation = time.Hour
	// keepForMaxStale bounds how long one without is kept, for clients that accept
	// a stale one: as long as it was fresh, and no longer than this.
	keepForMaxStale = time.Minute
	// maxHeuristic is the longest lifetime that is not stated (RFC 9111 section
	// 4.2.2), and heuristicShare its share of the time since the last change.
	maxHeuristic   = 24 * time.Hour
	heuristicShare = 10
)

// lifetime finds how long a response is fresh (RFC 9111 section 4.2), how long it
// may be used after that (sections 4.2.4 and 5.2.2, RFC 5861), and how long it is
// worth keeping. It returns a reason if that is no time at all.
func (rt *routeSnapshot) lifetime(status int, h Header, dir *directives, said loadscope.Said) (l life, reason string) {
	cc, class := &dir.cc, &rt.class
	date, dated := field.ParseDate(first(h.Values("Date")))
	now := time.Now()
	if !dated {
		date = now
	}
	fresh, stated, reason := rt.stated(status, h, dir, date)
	l.stated = stated
	l.guess = stated && cc.Public && !byDefault[status] && !lasting[status] && len(noGuess(h)) > 0
	if said.TTLSet {
		fresh, l.stated, reason = said.TTL, false, ""
	}
	validator := hasValidator(h) && !class.HTTP.NoValidation
	l.validate = cc.NoCache
	if reason != "" && (!l.validate || !validator || !byDefault[status] && !lasting[status]) {
		return l, reason
	}

	// RFC 9111 section 4.2.3. The time that the response took is counted from the
	// load's beginning, by Lifetime.Since.
	age, sane := field.ParseAge(h.Values("Age"))
	l.age = age.Value
	if l.stated && dated {
		l.age = max(l.age, int64(now.Sub(date)/time.Second))
	}
	fresh = clamp(clamp(fresh) - time.Duration(min(l.age, int64(core.MaxDuration/time.Second)))*time.Second)
	if l.validate || !sane {
		fresh = min(fresh, 0)
	}
	// RFC 9111 sections 5.2.2.2, 5.2.2.8, 5.2.2.10
	l.strict = l.validate || cc.MustRevalidate || cc.ProxyRevalidate || cc.SMaxAge.Present
	l.lifetime.Fresh = fresh
	switch {
	case fresh <= 0 && l.validate && !validator:
		return l, "no-cache"
	case fresh <= 0 && (!validator || status >= 500):
		return l, "expired"
	}
	if !l.strict {
		rt.windows(&l, status, cc)
	}
	l.lifetime.Fallback = rt.fallback(&l, validator)
	return l, ""
}

// fallback finds how long a response is kept after its lifetime: for errors, for validation,
// or for requests that accept stale responses.
func (rt *routeSnapshot) fallback(l *life, validator bool) time.Duration {
	keep, fresh := l.forError, l.lifetime.Fresh
	switch {
	case validator:
		keep = max(keep, keepForValidation)
	case !l.strict && rt.honours("max-stale"):
		keep = max(keep, min(fresh, keepForMaxStale))
	}
	return keep + max(0, -fresh)
}

// clamp keeps a duration within a year, either way: a handler may state any
// duration.
func clamp(d time.Duration) time.Duration {
	return max(min(d, core.MaxDuration), -core.MaxDuration)
}

// stated finds the lifetime of a response: what it states, the class's TTL, or a
// guess.
func (rt *routeSnapshot) stated(status int, h Header, dir *directives, date time.Time) (fresh time.Duration, stated bool, reason string) {
	cc, class := &dir.cc, &rt.class
	switch expires := h.Values("Expires"); {
	case cc.SMaxAge.Present:
		return cc.SMaxAge.Duration(), true, ""
	case cc.MaxAge.Present:
		return cc.MaxAge.Duration(), true, ""
	case len(expires) > 0 && !dir.targeted:
		if at, ok := field.ParseDate(expires[0]); ok {
			return at.Sub(date), true, ""
		}
		return 0, true, "" // RFC 9111 section 5.3: in the past
	case byDefault[status] && class.TTL > 0:
		return local.Jittered(class.TTL, class.Jitter), false, ""
	case gone(status) && class.NegativeTTL > 0:
		return class.NegativeTTL, false, ""
	}
	if class.TTL == 0 && !class.HTTP.NoHeuristic && (byDefault[status] || lasting[status] || cc.Public) {
		if changed, ok := field.ParseDate(first(h.Values("Last-Modified"))); ok && date.After(changed) {
			return min(date.Sub(changed)/heuristicShare, maxHeuristic), true, "" // the response's, in its way
		}
	}
	if byDefault[status] || lasting[status] {
		return 0, false, "no-lifetime"
	}
	return 0, false, statusReason(status)
}

// windows finds how long a response may be used after its lifetime. Its own directives
// (RFC 5861) win over the class.
func (rt *routeSnapshot) windows(l *life, status int, cc *field.CacheControl) {
	l.lifetime.Stale, l.forError = rt.class.StaleWhileRevalidate, rt.class.StaleIfError
	if gone(status) && !l.stated {
		l.lifetime.Stale, l.forError = 0, 0
	}
	if cc.StaleWhileRevalidate.Present {
		l.lifetime.Stale = min(cc.StaleWhileRevalidate.Duration(), core.MaxDuration)
	}
	if cc.StaleIfError.Present {
		l.forError = min(cc.StaleIfError.Duration(), core.MaxDuration)
	}
}

// hasValidator reports whether the handler gave something to validate by.
func hasValidator(h Header) bool {
	return field.Valid(first(h.Values("Etag"))) || validDate(first(h.Values("Last-Modified")))
}

func validDate(s string) bool {
	_, ok := field.ParseDate(s)
	return ok
}

// byDefault are the statuses that the class's TTL applies to. With the lasting errors they are
// the ones that RFC 9110 section 15.1 calls heuristically cacheable, but for 206. Of
// errors the class's NegativeTTL applies to 404 and 410 only: a request can provoke
// the others.
var (
	byDefault = map[int]bool{ //nolint:gochecknoglobals // a constant
		http.StatusOK: true, http.StatusNonAuthoritativeInfo: true, http.StatusNoContent: true,
		http.StatusMultipleChoices: true, http.StatusMovedPermanently: true, http.StatusPermanentRedirect: true,
	}
	lasting = map[int]bool{ //nolint:gochecknoglobals // a constant
		http.StatusNotFound: true, http.StatusMethodNotAllowed: true, http.StatusGone: true,
		http.StatusRequestURITooLong: true, http.StatusNotImplemented: true,
	}
)
