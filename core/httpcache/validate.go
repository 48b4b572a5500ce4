package httpcache

import (
	"net/http"
	"slices"

	"github.com/larderhq/larder/core/httpcache/internal/field"
	"github.com/larderhq/larder/core/internal/coherence"
	"github.com/larderhq/larder/core/internal/loadscope"
	"github.com/larderhq/larder/core/internal/local"
)

// Validation (RFC 9111 section 4.3): the handler is asked whether what it answered
// before still holds, by the validator that it gave. It is asked after the load has been
// registered, about a response that is valid then: an invalidated response is never
// freshened, even where the validator is too coarse to show the change.

// findPrior finds what the handler can be asked to validate. A request with a
// condition of the handler's own (RFC 9110 sections 13.1.1 and 13.1.4) is left to it.
func (l *loading) findPrior() {
	if l.rt.class.HTTP.NoValidation || l.a.line.posted || len(l.a.ex.Values("If-Match")) > 0 || len(l.a.ex.Values("If-Unmodified-Since")) > 0 {
		return
	}
	f := l.rt.lookup(l.a, l.rt.engine.Now())
	if f.response == nil || f.response.part != nil || len(f.response.conditions()) == 0 {
		return
	}
	// An entry that another instance has invalidated, while this one does not know of it yet,
	// must not be renewed: it would be valid again for all instances.
	if l.turn.StillValid(l.detached.ctx, f.entry, f.response.key, slices.Concat(f.response.tags, l.turn.Tags())) {
		l.prior = f
	}
}

// header is what the handler said of the response.
func (r *response) header() storedHeader { return storedHeader(r.fields[:r.own]) }

// conditions are the fields that ask whether the response still holds: by the
// handler's own validators. Last-Modified is none where the content may have been
// modified again in the same second (RFC 9110 section 8.8.2.2).
func (r *response) conditions() []Field {
	fields := make([]Field, 0, 2)
	if etag := first(r.header().Values("Etag")); field.Valid(etag) {
		fields = append(fields, Field{Name: "If-None-Match", Values: []string{etag}})
	}
	if field.StrongDate(r.lastModified, r.date) {
		fields = append(fields, Field{Name: "If-Modified-Since", Values: []string{first(r.header().Values("Last-Modified"))}})
	}
	return fields
}

// validated reports whether a status says that the prior response holds.
func (l *loading) validated(status int) bool {
	return status == http.StatusNotModified && l.prior.response != nil
}

// freshen stores the prior response again, with the fields that a 304 brought, and
// answers it.
func (l *loading) freshen(by Header, said loadscope.Said) {
	old := l.prior.response
	r, lateTags := l.merge(by, said)
	status := forwarded{fwd: l.fwd, status: http.StatusNotModified}
	if l.d.store {
		l.storeAndAnswer(r, lateTags, status, outgoing{reply: l.reply(r, by)})
		return
	}
	r.born = l.turn.Began()
	l.turn.ForgetEntry(l.detached.ctx, old.key, l.prior.entry)
	l.turn.Finish(local.Outcome{Verdict: l.d.verdict})
	status.detail = l.d.reason
	(&outgoing{reply: l.reply(r, by)}).send(l.a.ex, status.field())
}

// merge makes a response of the prior one and the header of a newer answer, and
// decides what may be done with it.
func (l *loading) merge(by Header, said loadscope.Said) (r *response, lateTags []string) {
	old := l.prior.response
	l.freshened = true
	h := old.updated(by)
	l.d = l.rt.decide(int(old.status), h, l.a.creds, said)
	lateTags = l.completeDecision(int(old.status), h, said, old.tags)
	// Names that outer middleware had added to Vary are not among the response's own fields.
	l.d.vary = union(l.d.vary, old.vary)
	r, _ = l.rt.newResponse(int(old.status), h, old.body, &l.d, old.encodings().encoded, l.began())
	return r, lateTags
}

// forThisClient returns the fields of an answer that are for its own client only.
func (l *loading) forThisClient(h Header) []Field {
	var fields []Field
	for _, f := range h.Own() {
		if slices.Contains(l.d.strip, f.Name) {
			fields = append(fields, f)
		}
	}
	return fields
}

// keepsItsOwn are the fields of a stored response that speak of its content, which
// a 304 does not bring (RFC 9111 section 3.2).
var keepsItsOwn = []string{ //nolint:gochecknoglobals // a constant
	"Content-Encoding", "Content-Length", "Content-Md5", "Content-Range", "Etag",
}

// updated returns the response's header with the fields of a newer one in place of
// its own (RFC 9111 section 3.2).
func (r *response) updated(by Header) Header {
	fields := slices.Clone(r.header())
	if len(by.Values("Date")) == 0 { // the server gives it one: the old one is no more
		fields = slices.DeleteFunc(fields, func(f Field) bool { return f.Name == "Date" })
	}
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
	return mergedHeader{fields, by}
}

// mergedHeader is the header of a stored response as a newer one has changed it,
// over what outer middleware says now.
type mergedHeader struct {
	storedHeader
	newer Header
}

// Values implements Header.
func (h mergedHeader) Values(name string) []string {
	if values := h.storedHeader.Values(name); values != nil || slices.Contains(keepsItsOwn, name) {
		return values
	}
	return h.newer.Values(name)
}

// Before returns what outer middleware has set of a field for the newer answer.
func (h mergedHeader) Before(name string) []string { return outer(h.newer, name) }

// forwardHead runs the handler for a HEAD that no stored response answers. The answer updates
// the stored response to GET (RFC 9111 section 4.3.5).
func (rt *routeSnapshot) forwardHead(a *cacheRequest, f *lookup, fwd string) error {
	if a.directives.onlyIfCached {
		a.ex.Reply(notCached())
		return nil
	}
	if f.response == nil || f.response.status != http.StatusOK || f.response.part != nil {
		return rt.forward(a.ex, fwd, "")
	}
	tags, missing := rt.tagsNow(a)
	turn, ok := rt.engine.TryLead(a.flightKey(f), tags, rt.gate)
	if !ok { // a GET is under way: it says more
		return rt.forward(a.ex, fwd, "")
	}
	s := newDetachedContext(a.ex.Context(), turn, rt.class.LoadTimeout)
	defer turn.Finish(local.Outcome{Verdict: local.Again}) // it does not answer requests that wait for a GET
	defer s.end()
	turn.Fetch(s.ctx, coherence.Query{Codec: codec{}, Key: f.response.key, Seen: f.entry, LeaseOnly: true, Background: true})
	l := rt.newLoading(a, turn, s, fwd, missing)
	defer l.leave()
	l.c = &Capture{head: func(status int, h Header) (bool, []Field) {
		rt.engine.Count.Bypassed.Add(1)
		return false, unstored(status, h, statusField(fwd, l.freshenByHead(status, h), ""))
	}}
	err := a.ex.Run(loadscope.With(s.ctx, l.scope), l.c)
	if err != nil && l.c.Status == 0 {
		a.ex.Release(unanswered(statusField(fwd, false, handlerError)))
	}
	return err
}

// freshenByHead applies the answer to a HEAD to the stored response to GET. It returns
// whether that has been stored again.
func (l *loading) freshenByHead(status int, h Header) bool {
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
			l.turn.ForgetEntry(l.detached.ctx, old.key, l.prior.entry)
			return false
		}
		if name == "Etag" || name == "Last-Modified" && field.StrongDate(old.lastModified, old.date) {
			compared++
		}
	}
	if compared == 0 { // nothing says that it is the same
		return false
	}
	r, lateTags := l.merge(h, l.scope.Said())
	if !l.d.store {
		l.turn.ForgetEntry(l.detached.ctx, old.key, l.prior.entry)
		return false
	}
	l.assignKey(r, lateTags)
	return l.fillAndFinish(r, lateTags) == local.Stored
}
