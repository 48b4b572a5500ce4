package httpcache

import (
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/httpcache/internal/field"
	"github.com/larderhq/larder/core/internal/engine"
	"github.com/larderhq/larder/core/internal/scope"
)

// credentials says what a request brings that makes its response its own.
type credentials struct {
	authorization bool
	cookies       bool // that the class does not account for
}

func (c credentials) any() bool { return c.authorization || c.cookies }

// decision is what may be done with a response.
type decision struct {
	store       bool
	reason      string         // why not
	verdict     engine.Verdict // for those who wait, if not stored
	forget      bool           // not stored, but the next one may be: do not remember it as uncacheable
	conditional bool           // it is the answer to a condition or range

	lifetime engine.Lifetime
	stated   bool  // the response states its lifetime itself
	age      int64 // seconds it had when it came
	vary     []string

	forAuthorized, forCookies bool
}

func no(reason string) decision { return decision{reason: reason, verdict: engine.Unshareable} }

// decide says what may be done with a response. said is what the handler said of
// it so far.
func (rt *Route) decide(status int, h Header, creds credentials, said scope.Said) decision {
	d := rt.storable(status, h, creds, said)
	if !d.store && status >= 500 {
		// Whatever else it is, it is a failure: it does not let everybody go on at
		// once, and the next one may be different.
		d.verdict, d.forget = engine.Failed, true
	}
	return d
}

// storable applies RFC 9111 section 3, for a shared cache, and the class.
func (rt *Route) storable(status int, h Header, creds credentials, said scope.Said) decision {
	switch {
	case said.NoStore || said.TTLSet && said.TTL == 0:
		return no("handler-said-no-store")
	case status == http.StatusPartialContent, status == http.StatusNotModified,
		status == http.StatusPreconditionFailed, status == http.StatusRequestedRangeNotSatisfiable:
		// It answers this request's condition or range, not everybody's.
		return decision{reason: "partial-or-conditional", verdict: engine.Failed, conditional: true}
	case len(h.Values("Set-Cookie")) > 0:
		return no("set-cookie")
	case len(h.Values("Trailer")) > 0, len(h.Values("Transfer-Encoding")) > 0:
		return no("trailer-or-transfer-coding")
	case len(h.Values("Content-Range")) > 0:
		return no("content-range")
	}
	cc := field.ParseCacheControl(h.Values("Cache-Control"))
	switch {
	case cc.NoStore:
		return no("no-store")
	case cc.NoCache || len(cc.NoCacheFields) > 0:
		return no("no-cache")
	case (cc.Private || len(cc.PrivateFields) > 0) && rt.identity == nil:
		return no("private")
	}
	d := decision{
		forAuthorized: cc.Public || cc.SMaxAge.Present || cc.MustRevalidate,
		forCookies:    cc.Public,
	}
	switch {
	case creds.authorization && !d.forAuthorized: // RFC 9111 section 3.5
		return no("authorization")
	case creds.cookies && !d.forCookies:
		return no("cookie")
	}
	names, star := field.ParseVary(h.Values("Vary"))
	if star {
		return no("vary-star")
	}
	if len(h.Values("Content-Encoding")) > 0 {
		// An encoded response varies on what the client accepts, said or not.
		if i, ok := slices.BinarySearch(names, "Accept-Encoding"); !ok {
			names = slices.Insert(names, i, "Accept-Encoding")
		}
	}
	d.vary = names
	reason := rt.setLifetime(&d, status, h, cc)
	if said.TTLSet {
		reason, d.lifetime.Fresh = "", said.TTL
	}
	d.store, d.reason, d.verdict = reason == "", reason, engine.Unshareable
	return d
}

// setLifetime finds how long the response is fresh (RFC 9111 section 4.2.1) and
// how long it may be used after that (RFC 5861).
func (rt *Route) setLifetime(d *decision, status int, h Header, cc field.CacheControl) (reason string) {
	life := &d.lifetime
	d.stated = true
	switch expires := h.Values("Expires"); {
	case cc.SMaxAge.Present:
		life.Fresh = cc.SMaxAge.Duration()
	case cc.MaxAge.Present:
		life.Fresh = cc.MaxAge.Duration()
	case len(expires) > 0:
		at, ok := field.ParseDate(expires[0])
		if !ok {
			return "expired"
		}
		from, ok := field.ParseDate(first(h.Values("Date")))
		if !ok {
			from = time.Now()
		}
		life.Fresh = at.Sub(from)
	default:
		d.stated = false
		switch {
		case byDefault[status]:
			life.Fresh = rt.class.JitteredTTL()
		case negative[status]:
			life.Fresh = rt.class.NegativeTTL
		default:
			return "status-" + strconv.Itoa(status)
		}
		if life.Fresh == 0 {
			return "no-lifetime"
		}
	}
	age := field.ParseAge(h.Values("Age"))
	d.age = age.Value
	life.Fresh -= age.Duration()
	life.Fresh = min(life.Fresh, core.MaxDuration)
	if life.Fresh <= 0 {
		return "expired"
	}
	if cc.MustRevalidate || cc.ProxyRevalidate || cc.SMaxAge.Present { // RFC 9111 sections 5.2.2.2, 5.2.2.8, 5.2.2.10
		return ""
	}
	life.Stale, life.Spare = rt.class.Stale, rt.class.StaleIfError
	if negative[status] && !d.stated {
		life.Stale, life.Spare = 0, 0
	}
	if cc.StaleWhileRevalidate.Present {
		life.Stale = min(cc.StaleWhileRevalidate.Duration(), core.MaxDuration)
	}
	if cc.StaleIfError.Present {
		life.Spare = min(cc.StaleIfError.Duration(), core.MaxDuration)
	}
	return ""
}

// byDefault are the statuses that the class's TTL applies to, negative those of
// its NegativeTTL: together the ones that RFC 9110 section 15.1 calls
// heuristically cacheable, but for 206.
var (
	byDefault = map[int]bool{200: true, 203: true, 204: true, 300: true, 301: true, 308: true} //nolint:gochecknoglobals // a constant
	negative  = map[int]bool{404: true, 405: true, 410: true, 414: true, 501: true}            //nolint:gochecknoglobals // a constant
)

// usable reports whether a stored response may be answered to this request.
func (r *response) usable(ex Exchange, creds credentials) bool {
	return (!creds.authorization || r.forAuthorized) && (!creds.cookies || r.forCookies) && r.accepts(ex)
}
