package httpcache

import (
	"slices"
	"strings"
	"time"

	"github.com/larderhq/larder/core/httpcache/internal/field"

	"github.com/larderhq/larder/core/internal/local"
)

// requestDirectives are a request's cache directives (RFC 9111 section 5.2.1) that the
// class honours (HTTPPolicy.RequestDirectives). The zero value restricts nothing.
type requestDirectives struct {
	restricts                  bool // the responses that it allows
	noCache                    bool
	noStore                    bool // its response is not stored; it allows any
	onlyIfCached               bool
	maxAge, minFresh, maxStale field.Seconds
	maxStaleAny                bool
}

func (rt *routeSnapshot) honours(directive string) bool {
	list := rt.class.HTTP.RequestDirectives
	if list == nil {
		return directive != "only-if-cached"
	}
	return slices.Contains(list, directive)
}

// requestDirectivesOf reads a request's directives.
func (rt *routeSnapshot) requestDirectivesOf(ex Exchange) (w requestDirectives) {
	if list := rt.class.HTTP.RequestDirectives; list != nil && len(list) == 0 {
		return w
	}
	values := ex.Values("Cache-Control")
	if len(values) == 0 {
		if pragmaNoCache(ex.Values("Pragma")) && rt.honours("no-cache") { // RFC 9111 section 5.4
			w.restricts, w.noCache = true, true
		}
		return w
	}
	cc := field.ParseCacheControl(values)
	w = requestDirectives{
		noCache:      (cc.NoCache || len(cc.NoCacheFields) > 0) && rt.honours("no-cache"),
		onlyIfCached: cc.OnlyIfCached && rt.honours("only-if-cached"),
	}
	if rt.honours("max-age") {
		w.maxAge = cc.MaxAge
	}
	if rt.honours("min-fresh") {
		w.minFresh = cc.MinFresh
	}
	if rt.honours("max-stale") {
		w.maxStale, w.maxStaleAny = cc.MaxStale, cc.MaxStaleAny
	}
	w.restricts = w != requestDirectives{}
	w.noStore = cc.NoStore && rt.honours("no-store") // RFC 9111 section 5.2.1.5
	return w
}

func pragmaNoCache(values []string) bool {
	return slices.ContainsFunc(values, func(line string) bool {
		for v := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.Trim(v, " \t"), "no-cache") {
				return true
			}
		}
		return false
	})
}

// demandsNew reports whether no stored response is allowed.
func (w *requestDirectives) demandsNew() bool {
	return w.noCache || w.maxAge.Present && w.maxAge.Value == 0 && !w.acceptsStale()
}

func (w *requestDirectives) acceptsStale() bool { return w.maxStale.Present || w.maxStaleAny }

// allows reports whether a stored response may be answered without validation, by its
// freshness (RFC 9111 section 4.2) and the request's directives (section 5.2.1).
func (w *requestDirectives) allows(r *response, en *local.Entry, state local.State, now int64) bool {
	if !w.restricts {
		return state >= local.Stale && !r.validate
	}
	if w.noCache || r.validate {
		return false
	}
	staleness := now - en.FreshUntil // negative while it is fresh
	if w.minFresh.Present && -staleness < int64(w.minFresh.Duration()) {
		return false
	}
	if w.maxAge.Present {
		over := (r.initialAge-w.maxAge.Value)*int64(time.Second) + now - r.born
		staleness = max(staleness, over)
	}
	switch {
	case staleness <= 0 && state == local.Fresh: // RFC 9111 section 4.2: not at the moment itself
		return true
	case r.strict && state != local.Fresh:
		return false
	case w.maxStaleAny:
		return true
	case w.maxStale.Present && staleness <= int64(w.maxStale.Duration()):
		return true
	default: // RFC 9111 section 5.2.1.1: with max-age alone nothing stale is wanted
		return !w.maxAge.Present && !w.minFresh.Present && state >= local.Stale
	}
}
