package httpcache

import (
	"net/http"
	"slices"

	"github.com/larderhq/larder/core/httpcache/internal/field"
	"github.com/larderhq/larder/core/internal/engine"
	"github.com/larderhq/larder/core/internal/scope"
)

// Validation (RFC 9111 section 4.3): the handler is asked whether what it answered
// before still holds, by the validator that it gave. It is asked after the load
// has been registered, about what is valid then: what an invalidation has taken
// out is never renewed, also where the validator is too coarse to tell.

// findPrior finds what the handler can be asked to validate.
func (l *loading) findPrior() {
	if l.rt.class.HTTP.NoValidation {
		return
	}
	f := l.rt.find(l.a, l.rt.engine.Now())
	if f.response != nil && f.response.part == nil && hasValidator(f.response.header()) {
		l.prior = f
	}
}

// header is what the handler said of the response.
func (r *response) header() storedHeader { return storedHeader(r.fields[:r.own]) }

// conditions are the fields that ask whether the response still holds.
func (r *response) conditions() []Field {
	h := r.header()
	fields := make([]Field, 0, 2)
	if field.Valid(r.etag) {
		fields = append(fields, Field{Name: "If-None-Match", Values: []string{r.etag}})
	}
	if !r.lastModified.IsZero() {
		fields = append(fields, Field{Name: "If-Modified-Since", Values: h.Values("Last-Modified")[:1]})
	}
	return fields
}

// validated reports whether a status says that the prior response holds.
func (l *loading) validated(status int) bool {
	return status == http.StatusNotModified && l.prior.response != nil
}

// renew stores the prior response again, with the fields that a 304 brought, and
// answers it.
func (l *loading) renew(said scope.Said) {
	rt, a, old := l.rt, l.a, l.prior.response
	h := old.updated(l.c.Header)
	l.d = rt.decide(old.status, h, a.creds, said)
	late := append(slices.Clone(old.tags), l.settle(old.status, h, said)...)
	slices.Sort(late)
	late = slices.Compact(late)
	r, _ := rt.newResponse(old.status, h, old.body, &l.d)
	status := forwarded{fwd: l.fwd, status: http.StatusNotModified}
	if l.d.store {
		refusal := l.keep(r, late)
		status.stored, status.detail = refusal == engine.Stored, string(refusal)
	} else {
		r.born = l.turn.Began()
		rt.engine.ForgetEntry(old.key, l.prior.entry)
		l.turn.Finish(engine.Outcome{Verdict: l.d.verdict})
		status.detail = l.d.reason
	}
	extra := []Field{status.field()}
	if r.initialAge > 0 {
		extra = append(extra, ageField(r.initialAge))
	}
	a.ex.Reply(r.answer(a.ex, a.line.Method, extra))
}

// keepsItsOwn are the fields of a stored response that speak of its content, which
// a 304 does not bring (RFC 9111 section 3.2).
var keepsItsOwn = []string{ //nolint:gochecknoglobals // a constant
	"Content-Encoding", "Content-Length", "Content-Md5", "Content-Range", "Etag",
}

// updated returns the response's header with the fields of a newer one in place of
// its own (RFC 9111 section 3.2).
func (r *response) updated(by Header) storedHeader {
	fields := slices.Clone(r.header())
	for _, f := range by.Own() {
		at := slices.IndexFunc(fields, func(g Field) bool { return g.Name == f.Name })
		switch {
		case slices.Contains(keepsItsOwn, f.Name), hopByHop[f.Name], f.Mode == Remove:
		case at >= 0:
			fields[at] = f
		default:
			fields = append(fields, f)
		}
	}
	return fields
}

// forwardHead runs the handler for a HEAD that no stored response answers. What it
// says of the response to GET, that is stored, counts (RFC 9111 section 4.3.5).
func (rt *Route) forwardHead(a *ask, f *found, fwd string) error {
	if a.wish.onlyIfCached {
		a.ex.Reply(notCached(fwd))
		return nil
	}
	if f.response == nil || f.response.status != http.StatusOK || f.response.part != nil {
		return rt.forward(a.ex, fwd, "")
	}
	tags, missing := rt.tagsNow(a.ex, &a.line)
	turn, ok := rt.engine.TryLead(a.flightKey(f), tags, rt.gate)
	if !ok { // a GET is under way: it says more
		return rt.forward(a.ex, fwd, "")
	}
	s := newShield(a.ex.Context(), turn, rt.class.LoadTimeout)
	defer turn.Finish(engine.Outcome{Verdict: engine.Failed})
	defer s.end()
	turn.Fetch(s.ctx, engine.Query{Codec: codec{}, Key: f.response.key, Seen: f.entry, Anew: true, Background: true})
	if fr, ok := a.ex.(Freezer); ok {
		fr.Freeze()
	}
	l := &loading{rt: rt, a: a, turn: turn, shield: s, fwd: fwd, missing: missing, scope: rt.cache.Scope()}
	l.findPrior()
	l.c = &Capture{head: func(status int, h Header) (bool, []Field) {
		rt.engine.Count.Bypassed.Add(1)
		return false, []Field{statusField(fwd, l.learn(status, h), "")}
	}}
	return a.ex.Run(scope.With(s.ctx, l.scope), l.c)
}

// learn applies the answer to a HEAD to the stored response to GET. It returns
// whether that has been stored anew.
func (l *loading) learn(status int, h Header) bool {
	old := l.prior.response
	if old == nil || status != http.StatusOK {
		return false
	}
	compared := 0
	for _, name := range []string{"Etag", "Last-Modified", "Content-Length"} {
		is, was := h.Values(name), old.header().Values(name)
		if name == "Content-Length" && len(was) == 0 {
			was = contentLength(len(old.body)).Values
		}
		if len(is) == 0 {
			continue
		}
		if first(is) != first(was) {
			l.rt.engine.ForgetEntry(old.key, l.prior.entry)
			return false
		}
		if name != "Content-Length" {
			compared++
		}
	}
	if compared == 0 { // nothing says that it is the same
		return false
	}
	merged := old.updated(h)
	said := l.scope.Said()
	l.d = l.rt.decide(old.status, merged, l.a.creds, said)
	late := append(slices.Clone(old.tags), l.settle(old.status, merged, said)...)
	slices.Sort(late)
	if !l.d.store {
		return false
	}
	r, _ := l.rt.newResponse(old.status, merged, old.body, &l.d)
	return l.keep(r, slices.Compact(late)) == engine.Stored
}
