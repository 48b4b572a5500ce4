package httpcache

import (
	"net/http"
	"slices"
	"strconv"

	"github.com/larderhq/larder/core/httpcache/internal/field"
	"github.com/larderhq/larder/core/internal/loadscope"

	"github.com/larderhq/larder/core/internal/local"
)

// decision is what may be done with a response.
type decision struct {
	store       bool
	reason      string        // why not
	verdict     local.Verdict // for waiting requests, if not stored
	forget      bool          // not stored, but the next one may be: do not remember it as uncacheable
	conditional bool          // it is the answer to a condition or range
	provoked    bool          // by the request, perhaps: it says nothing of what is stored

	life
	vary []string
	// implied says that Accept-Encoding is in vary only because the response is encoded.
	implied bool
	strip   []string // the fields that are for this client only
	// withoutCookie says that it may stay where it sets a cookie, without that.
	withoutCookie bool
	part          *field.Span // what a 206 holds of the whole
	whole         int64       // how long that is, -1: unknown

	forAuthorized, forCookies bool
}

// setCookie is the reason not to store a response that sets a cookie, by the handler or by
// outer middleware.
const setCookie = "set-cookie"

func no(reason string) decision { return decision{reason: reason, verdict: local.Unshareable} }

// decide says what may be done with a response. said is what the handler said of
// it so far.
func (rt *routeSnapshot) decide(status int, h Header, creds credentials, said loadscope.Said) decision {
	d := rt.storable(status, h, creds, said)
	if !d.store && status >= 500 {
		// It is a failure: the waiting requests do not all run the handler at once, and
		// the next response may be different.
		d.verdict, d.forget = local.Failed, true
	}
	d.provoked = status >= 400 && status < 500 && !gone(status)
	return d
}

// gone reports whether a status says that the resource is no more, to everybody.
func gone(status int) bool { return status == http.StatusNotFound || status == http.StatusGone }

// storable applies RFC 9111 section 3, for a shared cache, and the class.
func (rt *routeSnapshot) storable(status int, h Header, creds credentials, said loadscope.Said) decision {
	switch {
	case said.TooManyTags:
		return no("too-many-tags")
	case said.NoStore || said.TTLSet && said.TTL == 0:
		return no("handler-said-no-store")
	case status == http.StatusNotModified, status == http.StatusPreconditionFailed, status == http.StatusRequestedRangeNotSatisfiable:
		// It answers this request's condition, not everybody's.
		return conditional()
	case len(h.Values("Trailer")) > 0, len(h.Values("Transfer-Encoding")) > 0:
		return no("trailer-or-transfer-coding")
	}
	dir := readDirectives(h)
	if reason := rt.forbids(status, &dir.cc); reason != "" {
		return no(reason)
	}
	d, reason := rt.clients(h, &dir, creds)
	if reason != "" {
		return no(reason)
	}
	names, star := variesOn(h)
	if star {
		return no("vary-star")
	}
	d.vary, d.implied = names, impliesEncoding(h)
	if _, _, part := field.ParseContentRange(h.Values("Content-Range")); part && status == http.StatusOK {
		return no("content-range") // it means nothing there, but the handler may have meant 206
	}
	if status == http.StatusPartialContent {
		span, size, ok := field.ParseContentRange(h.Values("Content-Range"))
		if !ok || len(names) > 0 {
			return conditional()
		}
		d.part, d.whole = &span, size
	}
	d.life, reason = rt.lifetime(status, h, &dir, said)
	d.store, d.reason, d.verdict = reason == "", reason, local.Unshareable
	if !d.store && d.part != nil {
		return conditional()
	}
	return d
}

// forbids returns the directive that forbids a shared cache to store a response, or "".
func (rt *routeSnapshot) forbids(status int, cc *field.CacheControl) (reason string) {
	known := understood(status)
	switch {
	case cc.NoStore && (!cc.MustUnderstand || !known): // RFC 9111 section 5.2.2.3
		return "no-store"
	case cc.MustUnderstand && !known:
		return "must-understand"
	case cc.Private && rt.identity == nil:
		return "private"
	}
	return ""
}

// clients decides which clients a response is for. It returns a reason if that is only the
// client whose request has led to the response.
func (rt *routeSnapshot) clients(h Header, dir *directives, creds credentials) (d decision, reason string) {
	cc := &dir.cc
	d = decision{
		forAuthorized: cc.Public || cc.SMaxAge.Present || cc.MayShare,
		forCookies:    cc.Public,
	}
	// RFC 9111 sections 5.2.2.4 and 5.2.2.7: the fields are for this client.
	d.strip = cc.NoCacheFields
	if rt.identity == nil {
		d.strip = append(d.strip[:len(d.strip):len(d.strip)], cc.PrivateFields...)
	}
	d.withoutCookie = rt.mayStayWithoutCookie(h, dir)
	switch {
	case len(h.Values("Set-Cookie")) > 0 && !rt.class.HTTP.AllowSetCookie && !d.withoutCookie:
		reason = setCookie
	case creds.authorization && !d.forAuthorized: // RFC 9111 section 3.5
		reason = creds.reason()
	case creds.cookies && !d.forCookies:
		reason = "cookie"
	}
	return d, reason
}

// oversize turns down a response that is larger than its class allows.
func (d *decision) oversize(status int) {
	d.store, d.reason, d.verdict = false, Oversized, local.Unshareable
	if status >= 500 { // it is a failure all the same
		d.verdict, d.forget = local.Failed, true
	}
}

func conditional() decision {
	return decision{reason: "partial-or-conditional", verdict: local.Failed, conditional: true}
}

// shared reports whether waiting requests may be answered from it as well: a response that
// is stored only to be validated may not.
func (d *decision) shared() bool { return d.part == nil && !d.validate && d.lifetime.Fresh > 0 }

// understood reports whether a status is one whose meaning for caches is known
// here (RFC 9111 section 5.2.2.3): those of RFC 9110 section 15.
func understood(status int) bool {
	switch {
	case status >= 200 && status <= 206, status >= 300 && status <= 305, status == 307, status == 308,
		status >= 400 && status <= 417, status == 421, status == 422, status == 426,
		status >= 500 && status <= 505:
		return true
	}
	return false
}

func statusReason(status int) string { return "status-" + strconv.Itoa(status) }

// usable reports whether a stored response may be answered to this request.
func (r *response) usable(ex Exchange, creds credentials) bool {
	return (!creds.authorization || r.forAuthorized) && (!creds.cookies || r.forCookies) &&
		(r.forOrigins || creds.lacks.has(originName) || len(ex.Values(originField)) == 0) && r.accepts(ex)
}

// originField is the field of cross-origin requests. Several CORS middlewares vary on it only
// where a request has it: a response that such a middleware passes on for a request without it
// does not show that, and must not be answered to a request with it.
const originField = "Origin"

// suitsOrigins reports whether a response that came of the request is one for requests
// with an Origin: the handler has seen one, or varies on it.
func (r *response) suitsOrigins(ex Exchange) bool {
	return len(ex.Values(originField)) > 0 || slices.Contains(r.vary, originField)
}

// readable reports whether an answer, or outer middleware, has fields of CORS.
func readable(h Header) bool {
	theirs, _ := field.ParseVary(outer(h, "Vary"))
	return len(h.Values("Access-Control-Allow-Origin")) > 0 || len(outer(h, "Access-Control-Allow-Origin")) > 0 || slices.Contains(theirs, originField)
}
