package httpcache

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/larderhq/larder/core/internal/coherence"
	"github.com/larderhq/larder/core/internal/loadscope"
	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/waitgraph"
)

// cacheRequest is one request as the cache sees it.
type cacheRequest struct {
	rt         *routeSnapshot
	ex         Exchange
	line       Line
	key        string // of the resource
	creds      credentials
	directives requestDirectives
	// deferred says that the load of the request ends when its answer has been sent.
	deferred bool
}

// Serve answers one request: from the store, from the load of another request, or by
// running the handler. It returns the handler's error.
func (rt *Route) Serve(ex Exchange) error {
	switch r := ex.Context().Value(RefreshKey).(type) {
	case *refreshing:
		if r != nil && r.route.Route == rt {
			r.load(ex)
			return nil
		}
	case *warmRequest:
		if r.engine == rt.engine {
			return rt.snapshot().keepWarm(ex, r)
		}
	}
	sn := rt.snapshot()
	line := sn.lineOf(ex)
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
	return sn.serve(ex, &line)
}

// serve answers a request of a method whose responses are cached.
func (rt *routeSnapshot) serve(ex Exchange, line *Line) error {
	buf := keyBuffers.Get().(*[]byte)
	defer putKeyBuffer(buf)
	key, creds, w, fwd, reason := rt.identify((*buf)[:0], ex, line)
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
	creds.identity = strings.Clone(creds.identity) // it may be a view of the request
	return rt.serveMiss(&cacheRequest{rt: rt, ex: ex, line: line.Clone(), key: string(key), creds: creds, directives: w})
}

// keyBuffers are scratch space for keys. A key that is kept is copied.
var keyBuffers = sync.Pool{New: func() any { b := make([]byte, 0, 512); return &b }} //nolint:gochecknoglobals // shared scratch

// putKeyBuffer keeps a buffer for the next request, unless this one made it large.
func putKeyBuffer(buf *[]byte) {
	if cap(*buf) <= maxKey {
		keyBuffers.Put(buf)
	}
}

// identify makes the key of a request, or returns the reason why it bypasses the cache.
func (rt *routeSnapshot) identify(dst []byte, ex Exchange, line *Line) (key []byte, creds credentials, w requestDirectives, fwd, reason string) {
	switch {
	case rt.skip != nil && rt.skip(ex):
		return nil, creds, w, fwdBypass, "skipped"
	case line.HasBody && line.Method != methodQuery:
		return nil, creds, w, fwdBypass, "request-has-content"
	}
	lacks := line.Lacks
	if line.posted {
		lacks = lacking(ex) // Reads may have changed the request
	}
	if rt.skip != nil {
		lacks = lacking(ex) // it may have changed the request
	}
	switch {
	case lacks.has(upgradeName):
	case len(ex.Values("Upgrade")) > 0:
		return nil, creds, w, fwdBypass, "upgrade"
	}
	if line.posted && !lacks.has(conditionName) {
		if slices.ContainsFunc(conditionalFields, func(name string) bool { return len(ex.Values(name)) > 0 }) {
			return nil, creds, w, fwdBypass, "conditional-post"
		}
	}
	var id string
	if rt.identity != nil {
		var ok bool
		if id, ok = rt.identity(ex); !ok {
			rt.warnUnknown(rt.credentialsOf(ex, lacking(ex)))
			return nil, creds, w, fwdBypass, "no-identity"
		}
		lacks = lacking(ex) // it may have changed the request
		if nobody(id) {
			if brings := rt.credentialsOf(ex, lacks); brings.any() {
				rt.warnUnknown(brings)
				return nil, creds, w, fwdBypass, "empty-identity"
			}
		}
		creds.lacks, creds.identity = lacks, id
	} else {
		creds = rt.credentialsOf(ex, lacks)
	}
	if !lacks.has(directiveName) {
		w = rt.requestDirectivesOf(ex)
	}
	key, reason = rt.appendKey(dst, ex, line, id)
	if reason == "" && line.Method == methodQuery {
		if line.posted {
			key = append(key, partEnd, partPosted)
		}
		key, reason = rt.appendQueryContent(key, ex)
	}
	if reason != "" {
		return nil, creds, w, fwdBypass, reason
	}
	return key, creds, w, "", ""
}

// lookup is the result of looking for a request's response in the store.
type lookup struct {
	entry       *local.Entry
	response    *response
	state       local.State
	index       *index     // of the resource's variants
	lists       [][]string // what responses of the resource have varied on: index.lists
	uncacheable bool
	parts       bool // the handler answers ranges itself
}

// lookup looks for the response in the store, among variants and parts as well.
func (rt *routeSnapshot) lookup(a *cacheRequest, now int64) (f lookup) {
	if en, state := rt.engine.LookupAt(a.key, now); state != local.Gone && !f.take(a, en, state) {
		switch v := en.Value.(type) {
		case *index:
			rt.lookupVariant(a, v, now, &f)
		case uncacheable:
			f.uncacheable = true
		}
	}
	if f.response != nil || rt.lookupPart(a, now, &f) {
		return f
	}
	if a.creds.any() {
		f.uncacheable = f.uncacheable || rt.remembered(a.key+credsSuffix, now)
	}
	if a.conditional() {
		f.uncacheable = f.uncacheable || rt.remembered(a.key+conditionSuffix, now)
	}
	return f
}

// take makes an entry the result of the lookup if it is a response that may be answered
// to the request.
func (f *lookup) take(a *cacheRequest, en *local.Entry, state local.State) bool {
	r, ok := en.Value.(*response)
	if !ok || !r.usable(a.ex, a.creds) {
		return false
	}
	f.entry, f.response, f.state = en, r, state
	return true
}

// lookupVariant looks among the variants of a resource.
func (rt *routeSnapshot) lookupVariant(a *cacheRequest, ix *index, now int64, f *lookup) {
	f.index, f.lists = ix, ix.lists
	for _, names := range ix.lists {
		if !ix.answers(names, a.ex) {
			continue
		}
		if en, state := rt.engine.LookupAt(rt.variantKey(a.key, names, a.ex), now); state != local.Gone && f.take(a, en, state) {
			return
		}
	}
	if rt.class.HTTP.RankLanguages {
		p := rt.preferred(a, ix, now)
		f.entry, f.response, f.state = p.entry, p.response, p.state
	}
}

// lookupPart looks for a stored part that covers a range request (RFC 9110 section
// 14.2).
func (rt *routeSnapshot) lookupPart(a *cacheRequest, now int64, f *lookup) bool {
	if a.line.Method != http.MethodGet || len(a.ex.Values("Range")) == 0 || f.varies(a.ex) {
		return false
	}
	en, state := rt.engine.LookupAt(a.key+partSuffix, now)
	if state == local.Gone {
		return false
	}
	r, ok := en.Value.(*response)
	f.parts = ok && r.part != nil
	return f.parts && r.covers(a.ex) && f.take(a, en, state)
}

// varies reports whether the request has a field that the resource is known to vary on.
func (f *lookup) varies(ex Exchange) bool { return f.index != nil && !f.index.answers(nil, ex) }

// serves reports whether the stored response may be answered without validation.
func (f *lookup) serves(a *cacheRequest, now int64) bool {
	return f.response != nil && a.directives.allows(f.response, f.entry, f.state, now)
}

// remembered reports whether key marks requests whose responses are uncacheable.
func (rt *routeSnapshot) remembered(key string, now int64) bool {
	en, state := rt.engine.LookupAt(key, now)
	if state == local.Gone {
		return false
	}
	_, ok := en.Value.(uncacheable)
	return ok
}

// credsSuffix separates the flights and marks of requests with credentials from those
// of other requests. conditionSuffix separates the marks of conditional and range
// requests: the handler answers their conditions itself, so that their answers suit no
// other request. partSuffix is the key of the latest partial response of a resource.
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

// flightKey returns the key of the flight that a request joins. Requests of one flight
// can be expected to share a response.
func (a *cacheRequest) flightKey(f *lookup) string {
	key := a.key
	if len(f.lists) > 0 {
		key = a.rt.variantKey(a.key, f.lists[0], a.ex)
	}
	if a.creds.any() {
		key += credsSuffix
	}
	if spec := rangeOf(a.ex); f.parts && spec != "" { // a request for another part joins no flight of this one
		key = string(appendPart([]byte(key+partSuffix), spec))
	}
	return key
}

// hit answers from the store, and refreshes an entry that is stale or chosen for early
// refresh.
func (rt *routeSnapshot) hit(ex Exchange, lacks FieldSet, method string, en *local.Entry, r *response, state local.State, now int64) {
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

// maxRounds is how many loads of other requests a request waits for, whose responses do
// not suit it, before it runs the handler alone.
const maxRounds = 3

// serveMiss answers a request that the first lookup did not.
func (rt *routeSnapshot) serveMiss(a *cacheRequest) error {
	m := miss{rt: rt, a: a, gate: rt.gate}
	m.gate.SkipSettled = a.directives.demandsNew()
	m.waited = rt.engine.Awaken(a.ex.Context())
	for round := 0; ; round++ {
		if answered, err := m.attempt(round); answered {
			return err
		}
	}
}

// miss is a request that the first lookup did not answer. It is served in rounds: each
// either answers it, or finds that there is reason to look again.
type miss struct {
	rt      *routeSnapshot
	a       *cacheRequest
	gate    local.Gate
	counted bool
	waited  time.Duration // for the shared tier, before the turn
}

// attempt is one round.
func (m *miss) attempt(round int) (answered bool, err error) {
	rt, a, ex := m.rt, m.a, m.a.ex
	f, hit := m.lookup()
	if hit {
		return true, nil
	}
	fwd := a.forwardReason(&f)
	if a.line.Method == http.MethodHead { // it stores nothing that a GET could use
		return true, rt.forwardHead(a, &f, fwd)
	}
	tags, missing := rt.tagsNow(a)
	if a.directives.onlyIfCached {
		if round < maxRounds && rt.importFromTier(a, &f, tags) {
			return false, nil
		}
		ex.Reply(notCached())
		return true, nil
	}
	flight := a.flightKey(&f)
	if f.uncacheable || f.response != nil && f.response.validate || round == maxRounds || loadscope.From(ex.Context()).Within(rt.engine, flight) {
		return true, rt.leadAlone(a, tags, fwd, missing)
	}
	outer := loadscope.From(ex.Context()) // of a handler that calls this one
	outer.ReadsReplica(m.gate.ReplicaLag)
	turn, out, err := rt.engine.Enter(ex.Context(), flight, tags, m.gate)
	outer.ReadsReplica(out.ReplicaLag)
	outer.Contains(out.Oldest)
	switch {
	case errors.Is(err, local.ErrCycle):
		return true, rt.leadAlone(a, tags, fwd, missing)
	case err != nil:
		// The client has gone, or the wait has reached its limit, 2×LoadTimeout. To run the
		// handler now would turn a herd that gave up waiting into a stampede.
		ex.Reply(unavailable())
		return true, nil //nolint:nilerr // it has been answered
	case turn == nil:
		return m.collapse(&out, fwd), nil
	}
	return m.lead(turn, &f, fwd, missing)
}

// lookup looks in the store, again when an answer that is being sent has ended, and
// answers a hit. The first time that it finds none it counts a miss.
func (m *miss) lookup() (f lookup, hit bool) {
	rt, a := m.rt, m.a
	now := rt.engine.Now()
	f = rt.lookup(a, now)
	if !f.serves(a, now) && !f.uncacheable && rt.waitSending(a) {
		now = rt.engine.Now()
		f = rt.lookup(a, now)
	}
	if f.serves(a, now) {
		rt.hit(a.ex, a.creds.lacks, a.line.Method, f.entry, f.response, f.state, now)
		return f, true
	}
	if !m.counted {
		rt.engine.Count.Misses.Add(1)
		m.counted = true
	}
	return f, false
}

// collapse answers the request from the load that it waited for, if that response suits
// it.
func (m *miss) collapse(out *local.Outcome, fwd string) (answered bool) {
	rt, a := m.rt, m.a
	r, ok := out.Entry.Value.(*response)
	if ok && out.Found && a.directives.restricts { // the response is older than the wait
		now := rt.engine.Now()
		ok = a.directives.allows(r, out.Entry, out.Entry.State(now), now)
	}
	if ok && r.fits(a) {
		rt.engine.Count.Hits.Add(1)
		a.ex.Reply(r.answer(a.ex, a.creds.lacks, a.line.Method, r.collapsedFields(rt.engine.Now(), fwd)))
		return true
	}
	m.gate.SkipSettled = true // a load that has ended will not suit it either
	return false
}

// lead answers the request that leads a flight: from the store, from the shared tier, or
// by running the handler.
func (m *miss) lead(turn *coherence.Turn, f *lookup, fwd, missing string) (answered bool, err error) {
	rt, a := m.rt, m.a
	turn.Runs(new(waitgraph.Load))
	turn.Spend(m.waited)
	if !a.directives.demandsNew() && rt.recheck(a, turn) {
		return true, nil
	}
	detached := newDetachedContext(a.ex.Context(), turn, rt.class.LoadTimeout)
	if answered, again := rt.fetch(detached.ctx, a, turn, f); answered || again {
		detached.end()
		return answered, nil
	}
	return true, rt.lead(a, turn, detached, fwd, missing)
}

// leadAlone runs the handler for this request only.
func (rt *routeSnapshot) leadAlone(a *cacheRequest, tags []string, fwd, missing string) error {
	turn := rt.engine.Alone(a.key, tags)
	return rt.lead(a, turn, newDetachedContext(a.ex.Context(), turn, rt.class.LoadTimeout), fwd, missing)
}

// recheck answers from an entry that was stored between the lookup and the turn.
func (rt *routeSnapshot) recheck(a *cacheRequest, turn *coherence.Turn) bool {
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

// fetch asks the shared tier before the handler runs. answered: the tier had the response.
// again: the tier had an index, by which the next round looks.
func (rt *routeSnapshot) fetch(ctx context.Context, a *cacheRequest, turn *coherence.Turn, f *lookup) (answered, again bool) {
	q := coherence.Query{Codec: codec{}, Key: entryKey(a, f), Wait: rt.class.LoadTimeout, LeaseOnly: a.directives.demandsNew(), Seen: f.entry}
	if loadscope.From(ctx).Loading() != nil { // a load within a load
		q.Wait = local.InstanceWait(q.Wait)
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

// fetchQuery is fetch with its query.
func (rt *routeSnapshot) fetchQuery(ctx context.Context, a *cacheRequest, turn *coherence.Turn, q coherence.Query) (answered, again bool) {
	ask := turn.Fetch
	if a.directives.noStore {
		ask = turn.Look // its response is not stored: it needs no lease
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

// importFromTier copies the shared tier's response for a request into this process. It
// takes no lease and runs no handler.
func (rt *routeSnapshot) importFromTier(a *cacheRequest, f *lookup, tags []string) bool {
	turn := rt.engine.Alone(a.key, tags)
	defer turn.Finish(local.Outcome{Verdict: local.Failed})
	got := turn.Look(a.ex.Context(), coherence.Query{Codec: codec{}, Key: entryKey(a, f), Seen: f.entry})
	if got.Entry != nil {
		rt.adopt(a.key, got.Entry)
	}
	return got.Entry != nil && got.State >= local.Stale
}

// unavailable answers a request whose wait for a load has ended without a response.
func unavailable() Answer {
	return ownAnswer(http.StatusServiceUnavailable, "the request waited for a load of the same response, until the client left or the wait reached 2×LoadTimeout",
		forwarded{detail: "gave-up-waiting"}.field())
}

// notCached answers a request with only-if-cached that no stored response satisfies
// (RFC 9111 section 5.2.1.7).
func notCached() Answer {
	return ownAnswer(http.StatusGatewayTimeout, "no stored response satisfies the request, and only-if-cached forbids to run the handler",
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

// fits reports whether a response to another request for the same resource may be
// answered to this one.
func (r *response) fits(a *cacheRequest) bool {
	if r.part != nil || !r.usable(a.ex, a.creds) || r.key != a.key && r.key != a.rt.variantKey(a.key, r.vary, a.ex) {
		return false
	}
	ix := a.rt.indexOf(a.key)
	return ix == nil || ix.answers(r.vary, a.ex)
}

// tagsNow returns the tags that are known before the handler runs: the path's,
// and the route's unless a parameter is missing so far.
func (rt *routeSnapshot) tagsNow(a *cacheRequest) (tags []string, missing string) {
	tags = pathTags(&a.line)
	own, missing := resolveAll(rt.tags, a.ex, a.creds.identity)
	return append(tags, own...), missing
}

// forward runs the handler and adds only Cache-Status to its answer.
func (rt *Route) forward(ex Exchange, fwd, detail string) error {
	rt.engine.Count.Bypassed.Add(1)
	c := &Capture{head: func(status int, h Header) (bool, []Field) {
		added := statusField(fwd, false, detail)
		if fwd == fwdMethod { // no cache stores answers to OPTIONS and TRACE
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

// conditionalFields are the request fields whose answer is for one request only. A refresh
// omits them.
var conditionalFields = []string{ //nolint:gochecknoglobals // a constant
	"If-None-Match", "If-Modified-Since", "If-Match", "If-Unmodified-Since", "If-Range", "Range",
}

// DropConditions calls del for each request field that makes a response conditional or
// partial (RFC 9110 sections 13 and 14.2). It is for adapters whose Detach copies requests
// that are not net/http's.
func DropConditions(del func(name string)) {
	for _, name := range conditionalFields {
		del(name)
	}
}
