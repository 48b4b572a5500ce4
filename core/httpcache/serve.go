package httpcache

import (
	"context"
	"errors"
	"net/http"
	"sync"

	"github.com/larderhq/larder/core/internal/coherence"
	"github.com/larderhq/larder/core/internal/loadscope"
	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/waitgraph"
)

// cacheRequest is one request as the cache sees it.
type cacheRequest struct {
	rt         *Route
	ex         Exchange
	line       Line
	key        string // of the resource
	creds      credentials
	directives requestDirectives
	// deferred says that the load that it has led to ends when its answer has been sent.
	deferred bool
}

// Serve answers one request: from the store, from somebody else's run of the
// handler, or by running it. The error is the handler's own.
func (rt *Route) Serve(ex Exchange) error {
	switch r := ex.Context().Value(RefreshKey).(type) {
	case *refreshing:
		if r != nil && r.route.same(rt) {
			r.load(ex)
			return nil
		}
	case *warmRequest:
		if r.engine == rt.engine {
			return rt.now().keepWarm(ex, r)
		}
	}
	line := ex.Line()
	if !safe(line.Method) { // switched off or not, it invalidates
		return rt.serveUnsafe(ex, &line)
	}
	if !rt.cache.Enabled() {
		if rt.engine.Closed() { // it has no more to say
			rt.engine.Count.Bypassed.Add(1)
			return ex.Run(ex.Context(), nil)
		}
		return rt.forward(ex, fwdBypass, disabled)
	}
	if line.Method != http.MethodGet && line.Method != http.MethodHead && line.Method != methodQuery {
		return rt.forward(ex, fwdMethod, "")
	}
	rt = rt.now()
	buf := keyBuffers.Get().(*[]byte)
	defer putKeyBuffer(buf)
	key, creds, w, fwd, reason := rt.identify((*buf)[:0], ex, &line)
	if reason != "" {
		return rt.forward(ex, fwd, reason)
	}
	*buf = key
	now := rt.engine.Now()
	if !w.restricts {
		// The key is a view of the buffer: it is looked up, not kept.
		if en, state := rt.engine.LookupAt(view(key), now); state >= local.Stale {
			if r, ok := en.Value.(*response); ok && !r.validate && r.usable(ex, creds) {
				rt.hit(ex, creds.lacks, line.Method, en, r, state, now)
				return nil
			}
		}
	}
	return rt.serveMiss(&cacheRequest{rt: rt, ex: ex, line: line.clone(), key: string(key), creds: creds, directives: w})
}

// keyBuffers are where keys are made. What is kept of them is copied.
var keyBuffers = sync.Pool{New: func() any { b := make([]byte, 0, 512); return &b }} //nolint:gochecknoglobals // shared scratch

// putKeyBuffer keeps a buffer for the next request, unless this one made it large.
func putKeyBuffer(buf *[]byte) {
	if cap(*buf) <= maxKey {
		keyBuffers.Put(buf)
	}
}

// identify makes the key of a request, or says why it is left alone.
func (rt *Route) identify(dst []byte, ex Exchange, line *Line) (key []byte, creds credentials, w requestDirectives, fwd, reason string) {
	switch {
	case rt.skip != nil && rt.skip(ex):
		return nil, creds, w, fwdBypass, "skipped"
	case line.HasBody && line.Method != methodQuery:
		return nil, creds, w, fwdBypass, "request-has-content"
	}
	lacks := lacking(ex)
	switch {
	case lacks.has(upgradeName):
	case len(ex.Values("Upgrade")) > 0:
		return nil, creds, w, fwdBypass, "upgrade"
	}
	var id string
	if rt.identity != nil {
		var ok bool
		if id, ok = rt.identity(ex); !ok {
			return nil, creds, w, fwdBypass, "no-identity"
		}
		lacks = lacking(ex) // it may have changed the request
		creds.lacks = lacks
	} else {
		creds = rt.credentialsOf(ex, lacks)
	}
	if !lacks.has(directiveName) {
		w = rt.requestDirectivesOf(ex)
	}
	key, reason = rt.appendKey(dst, ex, line, id)
	if reason == "" && line.Method == methodQuery {
		key, reason = rt.appendQueryContent(key, ex)
	}
	if reason != "" {
		return nil, creds, w, fwdBypass, reason
	}
	return key, creds, w, "", ""
}

// lookup is what the store has for a request.
type lookup struct {
	entry       *local.Entry
	response    *response
	state       local.State
	index       *index     // of the resource's variants
	lists       [][]string // what responses of the resource have varied on: index.lists
	uncacheable bool
	parts       bool // the handler answers ranges itself
}

// lookup looks in the store, variants and parts included.
func (rt *Route) lookup(a *cacheRequest, now int64) (f lookup) {
	take := func(en *local.Entry, state local.State) bool {
		r, ok := en.Value.(*response)
		if !ok || !r.usable(a.ex, a.creds) {
			return false
		}
		f.entry, f.response, f.state = en, r, state
		return true
	}
	if en, state := rt.engine.LookupAt(a.key, now); state != local.Gone && !take(en, state) {
		switch v := en.Value.(type) {
		case *index:
			f.index, f.lists = v, v.lists
			for _, names := range v.lists {
				if !v.answers(names, a.ex) {
					continue
				}
				if en, state := rt.engine.LookupAt(rt.variantKey(a.key, names, a.ex), now); state != local.Gone && take(en, state) {
					break
				}
			}
			if f.response == nil && rt.class.HTTP.RankLanguages {
				p := rt.preferred(a, v, now)
				f.entry, f.response, f.state = p.entry, p.response, p.state
			}
		case uncacheable:
			f.uncacheable = true
		}
	}
	if f.response != nil {
		return f
	}
	if a.line.Method == http.MethodGet && len(a.ex.Values("Range")) > 0 && !f.varies(a.ex) { // RFC 9110 section 14.2
		if en, state := rt.engine.LookupAt(a.key+partSuffix, now); state != local.Gone {
			r, ok := en.Value.(*response)
			if f.parts = ok && r.part != nil; f.parts && r.covers(a.ex) && take(en, state) {
				return f
			}
		}
	}
	if a.creds.any() {
		f.uncacheable = f.uncacheable || rt.remembered(a.key+credsSuffix, now)
	}
	if a.conditional() {
		f.uncacheable = f.uncacheable || rt.remembered(a.key+conditionSuffix, now)
	}
	return f
}

// varies reports whether the request has a field that the resource is known to vary on.
func (f *lookup) varies(ex Exchange) bool { return f.index != nil && !f.index.answers(nil, ex) }

// serves reports whether what was found may be answered as it is.
func (f *lookup) serves(a *cacheRequest, now int64) bool {
	return f.response != nil && a.directives.allows(f.response, f.entry, f.state, now)
}

// remembered reports whether key stands for requests that nobody queues for.
func (rt *Route) remembered(key string, now int64) bool {
	en, state := rt.engine.LookupAt(key, now)
	if state == local.Gone {
		return false
	}
	_, ok := en.Value.(uncacheable)
	return ok
}

// credsSuffix keeps the flights of requests that bring credentials, and what is
// remembered of them, apart from the others'. conditionSuffix keeps apart what is
// remembered of conditional and range requests: that the handler answers their
// conditions itself, so that their answers are for nobody else. partSuffix is
// where the latest partial response of a resource is kept.
const (
	credsSuffix     = string(rune(partEnd)) + string(rune(partCreds))
	conditionSuffix = string(rune(partEnd)) + string(rune(partCondition))
	partSuffix      = string(rune(partEnd)) + string(rune(partOfWhole))
)

func (a *cacheRequest) conditional() bool {
	for _, name := range conditionalFields {
		if len(a.ex.Values(name)) > 0 {
			return true
		}
	}
	return false
}

// flightKey is what requests queue by: those that can be expected to share.
func (a *cacheRequest) flightKey(f *lookup) string {
	key := a.key
	if len(f.lists) > 0 {
		key = a.rt.variantKey(a.key, f.lists[0], a.ex)
	}
	if a.creds.any() {
		key += credsSuffix
	}
	if spec := rangeOf(a.ex); f.parts && spec != "" { // who asks for another part waits for nothing
		key = string(appendPart([]byte(key+partSuffix), spec))
	}
	return key
}

// hit answers from the store, and has a stale or early chosen entry refreshed.
func (rt *Route) hit(ex Exchange, lacks FieldSet, method string, en *local.Entry, r *response, state local.State, now int64) {
	if state == local.Fresh {
		rt.engine.Count.Hits.Add(1)
	} else {
		rt.engine.Count.StaleHits.Add(1)
	}
	if s := rt.engine.Pages.Load(); s != nil && s.Sampled() {
		rt.recordHit(s, ex, lacks, r)
	}
	if state == local.Stale || en.Early(now) {
		rt.refresh(ex)
	}
	ex.Reply(r.answer(ex, lacks, method, r.hitFields(now, en.FreshUntil)))
}

// maxRounds is how often a request waits for somebody else's run that turns out
// not to be for it, before it goes on by itself.
const maxRounds = 3

// serveMiss answers a request that the first look did not.
func (rt *Route) serveMiss(a *cacheRequest) error {
	ex, e := a.ex, rt.engine
	counted, gate := false, rt.gate
	gate.Anew = a.directives.demandsNew()
	for round := 0; ; round++ {
		now := e.Now()
		f := rt.lookup(a, now)
		if !f.serves(a, now) && !f.uncacheable && rt.waitSending(a) {
			now = e.Now()
			f = rt.lookup(a, now)
		}
		if f.serves(a, now) {
			rt.hit(ex, a.creds.lacks, a.line.Method, f.entry, f.response, f.state, now)
			return nil
		}
		fwd := a.forwardReason(&f)
		if !counted {
			e.Count.Misses.Add(1)
			counted = true
		}
		if a.line.Method == http.MethodHead { // it stores nothing that a GET could use
			return rt.forwardHead(a, &f, fwd)
		}
		tags, missing := rt.tagsNow(ex, &a.line)
		flight := a.flightKey(&f)
		if a.directives.onlyIfCached {
			if round < maxRounds && rt.importFromTier(a, &f, tags) {
				continue
			}
			ex.Reply(notCached())
			return nil
		}
		if f.uncacheable || f.response != nil && f.response.validate || round == maxRounds || loadscope.From(ex.Context()).Within(e, flight) {
			return rt.leadAlone(a, tags, fwd, missing)
		}
		turn, out, err := e.Enter(ex.Context(), flight, tags, gate)
		switch {
		case errors.Is(err, local.ErrCircle):
			return rt.leadAlone(a, tags, fwd, missing)
		case err != nil:
			// The client has gone, its time is up, or it waited for twice LoadTimeout. To run the handler now would
			// turn a herd that gave up waiting into a stampede.
			ex.Reply(unavailable())
			return nil //nolint:nilerr // it has been answered
		case turn == nil:
			r, ok := out.Entry.Value.(*response)
			if ok && out.Found && a.directives.restricts { // it was there before, and need not be what this one wants
				now := e.Now()
				ok = a.directives.allows(r, out.Entry, out.Entry.State(now), now)
			}
			if ok && r.fits(a) {
				e.Count.Hits.Add(1)
				ex.Reply(r.answer(ex, a.creds.lacks, a.line.Method, r.collapsedFields(e.Now(), fwd)))
				return nil
			}
			gate.Anew = true // nor is one that has ended
			continue
		}
		turn.Runs(new(waitgraph.Load))
		if !a.directives.demandsNew() && rt.recheck(a, turn) {
			return nil
		}
		detached := newDetachedContext(ex.Context(), turn, rt.class.LoadTimeout)
		if answered, again := rt.fetch(detached.ctx, a, turn, &f); answered {
			detached.end()
			return nil
		} else if again {
			detached.end()
			continue
		}
		return rt.lead(a, turn, detached, fwd, missing)
	}
}

// leadAlone runs the handler for this request only.
func (rt *Route) leadAlone(a *cacheRequest, tags []string, fwd, missing string) error {
	turn := rt.engine.Alone(a.key, tags)
	return rt.lead(a, turn, newDetachedContext(a.ex.Context(), turn, rt.class.LoadTimeout), fwd, missing)
}

// recheck answers what somebody may have filled in between the look and the turn.
func (rt *Route) recheck(a *cacheRequest, turn *coherence.Turn) bool {
	looked := false
	defer func() {
		if !looked { // an adapter's Values panicked
			turn.Finish(local.Outcome{Verdict: local.Failed})
		}
	}()
	now := rt.engine.Now()
	f := rt.lookup(a, now)
	looked = true
	if f.state != local.Fresh || !f.serves(a, now) {
		return false
	}
	turn.Finish(local.Outcome{Verdict: local.Shared, Entry: f.entry, Found: true})
	rt.hit(a.ex, a.creds.lacks, a.line.Method, f.entry, f.response, f.state, now)
	return true
}

// fetch asks the shared tier, before the handler is run. answered: it had the
// response. again: it had what says where to look.
func (rt *Route) fetch(ctx context.Context, a *cacheRequest, turn *coherence.Turn, f *lookup) (answered, again bool) {
	q := coherence.Query{Codec: codec{}, Key: entryKey(a, f), Wait: rt.class.LoadTimeout, Anew: a.directives.demandsNew(), Seen: f.entry}
	if loadscope.From(ctx).Loading() != nil { // a load within a load
		q.Wait = local.Abroad(q.Wait)
	}
	settled := false
	defer func() {
		if !settled { // an adapter's Values panicked, or the tier
			turn.Finish(local.Outcome{Verdict: local.Failed})
		}
	}()
	answered, again = rt.fetchQuery(ctx, a, turn, q)
	settled = true
	return answered, again
}

// fetchQuery is fetch, with the question.
func (rt *Route) fetchQuery(ctx context.Context, a *cacheRequest, turn *coherence.Turn, q coherence.Query) (answered, again bool) {
	ask := turn.Fetch
	if a.directives.noStore {
		ask = turn.Look // it has nothing to fill in, and takes no lease from who has
	}
	got := ask(ctx, q)
	if got.Entry == nil || got.State < local.Stale {
		return false, false
	}
	rt.adopt(a.key, got.Entry)
	if r, ok := got.Entry.Value.(*response); ok {
		now := rt.engine.Now()
		if r.fits(a) && a.directives.allows(r, got.Entry, got.State, now) {
			turn.Finish(local.Outcome{Verdict: local.Shared, Entry: got.Entry, Found: true})
			rt.hit(a.ex, a.creds.lacks, a.line.Method, got.Entry, r, got.State, now)
			return true, false
		}
		turn.Refuse(got.Entry)
		if !a.directives.noStore {
			turn.Fetch(ctx, q)
		}
		return false, false
	}
	turn.Finish(local.Outcome{Verdict: local.Shared, Entry: got.Entry})
	return false, true
}

// importFromTier brings what the shared tier has for a request into this process. It
// takes no lease and runs nothing.
func (rt *Route) importFromTier(a *cacheRequest, f *lookup, tags []string) bool {
	turn := rt.engine.Alone(a.key, tags)
	defer turn.Finish(local.Outcome{Verdict: local.Failed})
	got := turn.Look(a.ex.Context(), coherence.Query{Codec: codec{}, Key: entryKey(a, f), Seen: f.entry})
	if got.Entry != nil {
		rt.adopt(a.key, got.Entry)
	}
	return got.Entry != nil && got.State >= local.Stale
}

// unavailable answers a request whose context ended while it waited. Nobody is
// expected to see it.
func unavailable() Answer {
	return ownAnswer(http.StatusServiceUnavailable, "the request ended while it waited for another one's response",
		forwarded{detail: "gave-up-waiting"}.field())
}

// notCached answers a request that does not want the handler to run (RFC 9111
// section 5.2.1.7).
func notCached() Answer {
	return ownAnswer(http.StatusGatewayTimeout, "not in the cache, and the request asked for nothing else",
		forwarded{detail: "only-if-cached"}.field())
}

func (a *cacheRequest) forwardReason(f *lookup) string {
	switch {
	case a.directives.noCache, f.response != nil && f.state == local.Fresh:
		return fwdRequest
	case f.response != nil:
		return fwdStale
	case len(f.lists) > 0:
		return fwdVary
	default:
		return fwdMiss
	}
}

// fits reports whether a response that was made for another request, of the same
// resource, may be answered to this one.
func (r *response) fits(a *cacheRequest) bool {
	if r.part != nil || !r.usable(a.ex, a.creds) || r.key != a.key && r.key != a.rt.variantKey(a.key, r.vary, a.ex) {
		return false
	}
	ix := a.rt.indexOf(a.key)
	return ix == nil || ix.answers(r.vary, a.ex)
}

// tagsNow returns the tags that are known before the handler runs: the path's,
// and the route's unless a parameter is missing so far.
func (rt *Route) tagsNow(ex Exchange, line *Line) (tags []string, missing string) {
	tags = pathTags(line)
	own, missing := resolveAll(rt.tags, ex)
	return append(tags, own...), missing
}

// forward runs the handler and leaves its answer alone, but for saying so.
func (rt *Route) forward(ex Exchange, fwd, detail string) error {
	rt.engine.Count.Bypassed.Add(1)
	c := &Capture{head: func(status int, h Header) (bool, []Field) {
		added := statusField(fwd, false, detail)
		if fwd == fwdMethod { // nobody keeps what answers OPTIONS and TRACE
			return false, []Field{added}
		}
		return false, unstored(status, h, added)
	}}
	err := ex.Run(ex.Context(), c)
	if err != nil && c.Status == 0 {
		ex.Release(unanswered(statusField(fwd, false, detail)))
	}
	return err
}

// conditionalFields make a response that answers this request only. A refresh
// leaves them out.
var conditionalFields = []string{ //nolint:gochecknoglobals // a constant
	"If-None-Match", "If-Modified-Since", "If-Match", "If-Unmodified-Since", "If-Range", "Range",
}

// DropConditions removes them from a request: del removes a field. It is for an
// adapter whose Detach copies requests that are not net/http's.
func DropConditions(del func(name string)) {
	for _, name := range conditionalFields {
		del(name)
	}
}
