package httpcache

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/larderhq/larder/core/httpcache/internal/field"
	"github.com/larderhq/larder/core/internal/engine"
	"github.com/larderhq/larder/core/internal/scope"
)

// ask is one request as the cache sees it.
type ask struct {
	ex    Exchange
	line  Line
	key   string // of the resource
	creds credentials
	fresh bool // the client asked for a response from the handler (no-cache)
}

// Serve answers one request: from the store, from somebody else's run of the
// handler, or by running it. The error is the handler's own.
func (rt *Route) Serve(ex Exchange) error {
	if r := refreshOf(ex.Context(), rt); r != nil {
		r.load(ex)
		return nil
	}
	line := ex.Line()
	if !safe(line.Method) { // switched off or not, it invalidates
		return rt.serveUnsafe(ex, &line)
	}
	if !rt.cache.Enabled() {
		rt.engine.Count.Bypassed.Add(1)
		return ex.Run(ex.Context(), nil)
	}
	if line.Method != http.MethodGet && line.Method != http.MethodHead {
		return rt.forward(ex, fwdMethod, "")
	}
	buf := keyBuffers.Get().(*[]byte)
	defer putKeyBuffer(buf)
	key, creds, fwd, reason := rt.identify((*buf)[:0], ex, &line)
	if reason != "" {
		return rt.forward(ex, fwd, reason)
	}
	*buf = key
	fresh := fwd == fwdRequest
	now := rt.engine.Now()
	if !fresh {
		// The key is a view of the buffer: it is looked up, not kept.
		if en, state := rt.engine.LookupAt(view(key), now); state >= engine.Stale {
			if r, ok := en.Value.(*response); ok && r.usable(ex, creds) {
				rt.hit(ex, line.Method, en, r, state, now)
				return nil
			}
		}
	}
	return rt.serveMiss(&ask{ex: ex, line: line, key: string(key), creds: creds, fresh: fresh})
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
func (rt *Route) identify(dst []byte, ex Exchange, line *Line) (key []byte, creds credentials, fwd, reason string) {
	switch {
	case rt.skip != nil && rt.skip(ex):
		return nil, creds, fwdBypass, "skipped"
	case line.HasBody:
		return nil, creds, fwdBypass, "request-has-content"
	case len(ex.Values("Upgrade")) > 0:
		return nil, creds, fwdBypass, "upgrade"
	}
	var id string
	if rt.identity != nil {
		var ok bool
		if id, ok = rt.identity(ex); !ok {
			return nil, creds, fwdBypass, "no-identity"
		}
	} else {
		creds.authorization = len(ex.Values("Authorization")) > 0
		creds.cookies = rt.class.HTTP.Cookies == nil && len(ex.Values("Cookie")) > 0
	}
	if !rt.class.HTTP.IgnoreRequestDirectives {
		values := ex.Values("Cache-Control")
		if len(values) > 0 {
			switch cc := field.ParseCacheControl(values); {
			case cc.NoStore:
				return nil, creds, fwdRequest, "no-store"
			case cc.NoCache:
				fwd = fwdRequest
			}
		} else if slices.ContainsFunc(ex.Values("Pragma"), func(v string) bool {
			return strings.EqualFold(strings.TrimSpace(v), "no-cache") // RFC 9111 section 5.4
		}) {
			fwd = fwdRequest
		}
	}
	key, reason = rt.appendKey(dst, ex, line, id)
	if reason != "" {
		return nil, creds, fwdBypass, reason
	}
	return key, creds, fwd, ""
}

// found is what the store has for a request.
type found struct {
	entry       *engine.Entry
	response    *response
	state       engine.State
	lists       [][]string // what responses of the resource have varied on
	uncacheable bool
}

// find looks in the store, variants included.
func (rt *Route) find(a *ask, now int64) (f found) {
	take := func(en *engine.Entry, state engine.State) bool {
		r, ok := en.Value.(*response)
		if !ok || !r.usable(a.ex, a.creds) {
			return false
		}
		f.entry, f.response, f.state = en, r, state
		return true
	}
	if en, state := rt.engine.LookupAt(a.key, now); state != engine.Gone && !take(en, state) {
		switch v := en.Value.(type) {
		case *index:
			f.lists = v.lists
			for _, names := range v.lists {
				if en, state := rt.engine.LookupAt(variantKey(a.key, names, a.ex), now); state != engine.Gone && take(en, state) {
					break
				}
			}
		case uncacheable:
			f.uncacheable = true
		}
	}
	if f.response == nil && a.creds.any() {
		f.uncacheable = f.uncacheable || rt.remembered(a.key+credsSuffix, now)
	}
	if f.response == nil && a.conditional() {
		f.uncacheable = f.uncacheable || rt.remembered(a.key+conditionSuffix, now)
	}
	return f
}

// remembered reports whether key stands for requests that nobody queues for.
func (rt *Route) remembered(key string, now int64) bool {
	en, state := rt.engine.LookupAt(key, now)
	if state == engine.Gone {
		return false
	}
	_, ok := en.Value.(uncacheable)
	return ok
}

// credsSuffix keeps the flights of requests that bring credentials, and what is
// remembered of them, apart from the others'. conditionSuffix keeps apart what is
// remembered of conditional and range requests: that the handler answers their
// conditions itself, so that their answers are for nobody else.
const (
	credsSuffix     = string(rune(partEnd)) + string(rune(partCreds))
	conditionSuffix = string(rune(partEnd)) + string(rune(partCondition))
)

func (a *ask) conditional() bool {
	for _, name := range conditionalFields {
		if len(a.ex.Values(name)) > 0 {
			return true
		}
	}
	return false
}

// flightKey is what requests queue by: those that can be expected to share.
func (a *ask) flightKey(f *found) string {
	key := a.key
	if len(f.lists) > 0 {
		key = variantKey(a.key, f.lists[0], a.ex)
	}
	if a.creds.any() {
		key += credsSuffix
	}
	return key
}

// hit answers from the store, and has a stale or early chosen entry refreshed.
func (rt *Route) hit(ex Exchange, method string, en *engine.Entry, r *response, state engine.State, now int64) {
	if state == engine.Fresh {
		rt.engine.Count.Hits.Add(1)
	} else {
		rt.engine.Count.StaleHits.Add(1)
	}
	if state == engine.Stale || en.Early(now) {
		rt.refresh(ex)
	}
	ex.Reply(r.answer(ex, method, r.hitFields(now, en.FreshUntil)))
}

// maxRounds is how often a request waits for somebody else's run that turns out
// not to be for it, before it goes on by itself.
const maxRounds = 3

// serveMiss answers a request that the first look did not.
func (rt *Route) serveMiss(a *ask) error {
	ex, e := a.ex, rt.engine
	counted := false
	for round := 0; ; round++ {
		now := e.Now()
		f := rt.find(a, now)
		if f.response != nil && f.state >= engine.Stale && !a.fresh {
			rt.hit(ex, a.line.Method, f.entry, f.response, f.state, now)
			return nil
		}
		fwd := a.forwardReason(&f)
		if !counted {
			e.Count.Misses.Add(1)
			counted = true
		}
		if a.line.Method == http.MethodHead { // it stores nothing that a GET could use
			return rt.forward(ex, fwd, "")
		}
		tags, missing := rt.tagsNow(ex, &a.line)
		flight := a.flightKey(&f)
		if f.uncacheable || round == maxRounds || scope.From(ex.Context()).Within(flight) {
			turn := e.Alone(a.key, tags)
			return rt.lead(a, turn, newShield(ex.Context(), turn, rt.class.LoadTimeout), fwd, missing)
		}
		turn, out, err := e.Enter(ex.Context(), flight, tags, rt.gate)
		switch {
		case err != nil:
			// The client has gone, its time is up, or it waited for twice LoadTimeout. To run the handler now would
			// turn a herd that gave up waiting into a stampede.
			ex.Reply(unavailable(fwd))
			return nil //nolint:nilerr // it has been answered
		case turn == nil:
			if r, ok := out.Entry.Value.(*response); ok && r.fits(a) {
				a.fresh = false
				e.Count.Hits.Add(1)
				ex.Reply(r.answer(ex, a.line.Method, r.collapsedFields(e.Now(), fwd)))
				return nil
			}
			continue
		}
		if !a.fresh && rt.lookAgain(a, turn) {
			return nil
		}
		shield := newShield(ex.Context(), turn, rt.class.LoadTimeout)
		if answered, again := rt.fetch(shield.ctx, a, turn, &f); answered {
			shield.end()
			return nil
		} else if again {
			shield.end()
			continue
		}
		return rt.lead(a, turn, shield, fwd, missing)
	}
}

// lookAgain answers what somebody may have filled in between the look and the turn.
func (rt *Route) lookAgain(a *ask, turn *engine.Turn) bool {
	looked := false
	defer func() {
		if !looked { // an adapter's Values panicked
			turn.Finish(engine.Outcome{Verdict: engine.Failed})
		}
	}()
	now := rt.engine.Now()
	f := rt.find(a, now)
	looked = true
	if f.response == nil || f.state != engine.Fresh {
		return false
	}
	turn.Finish(engine.Outcome{Verdict: engine.Shared, Entry: f.entry})
	rt.hit(a.ex, a.line.Method, f.entry, f.response, f.state, now)
	return true
}

// fetch asks the shared tier, before the handler is run. answered: it had the
// response. again: it had what says where to look.
func (rt *Route) fetch(ctx context.Context, a *ask, turn *engine.Turn, f *found) (answered, again bool) {
	q := engine.Query{Codec: codec{}, Key: entryKey(a, f), Wait: rt.class.LoadTimeout, Anew: a.fresh, Seen: f.entry}
	returned := false
	defer func() {
		if !returned { // an adapter's Values panicked
			turn.Finish(engine.Outcome{Verdict: engine.Failed})
		}
	}()
	defer func() { returned = true }()
	got := turn.Fetch(ctx, q)
	if got.Entry == nil || got.State < engine.Stale {
		return false, false
	}
	if r, ok := got.Entry.Value.(*response); ok && !r.fits(a) {
		turn.Refuse(got.Entry)
		turn.Fetch(ctx, q)
		return false, false
	} else if ok {
		turn.Finish(engine.Outcome{Verdict: engine.Shared, Entry: got.Entry})
		rt.hit(a.ex, a.line.Method, got.Entry, r, got.State, rt.engine.Now())
		return true, false
	}
	turn.Finish(engine.Outcome{Verdict: engine.Shared, Entry: got.Entry})
	return false, true
}

// unavailable answers a request whose context ended while it waited. Nobody is
// expected to see it.
func unavailable(fwd string) Answer {
	return Answer{
		Status: http.StatusServiceUnavailable,
		Fields: []Field{{Name: "Content-Type", Values: []string{"text/plain; charset=utf-8"}}},
		Extra:  []Field{statusField(fwd, false, "gave-up-waiting")},
		Body:   []byte("larder: the request ended while it waited for another one's response\n"),
	}
}

func (a *ask) forwardReason(f *found) string {
	switch {
	case a.fresh:
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
func (r *response) fits(a *ask) bool {
	return r.usable(a.ex, a.creds) && (r.key == a.key || r.key == variantKey(a.key, r.vary, a.ex))
}

// tagsNow returns the tags that are known before the handler runs: the path's,
// and the route's unless a parameter is missing so far.
func (rt *Route) tagsNow(ex Exchange, line *Line) (tags []string, missing string) {
	tags = pathTags(line)
	own, missing := resolveAll(rt.tags, ex)
	return append(tags, own...), missing
}

// lead runs the handler in a turn, stores what it answered and sends it.
func (rt *Route) lead(a *ask, turn *engine.Turn, shield *shield, fwd, missing string) error {
	defer turn.Finish(engine.Outcome{Verdict: engine.Failed}) // whatever happens to the handler
	defer shield.end()
	return rt.load(a, turn, shield, fwd, missing)
}

// load is lead without the leader's client: it also runs in the background.
func (rt *Route) load(a *ask, turn *engine.Turn, s *shield, fwd, missing string) error {
	ex := a.ex
	rt.engine.Count.Loads.Add(1)
	if f, ok := ex.(Freezer); ok {
		f.Freeze()
	}
	sc := rt.cache.Scope()
	sc.Leads, sc.Outer = turn.Key(), scope.From(s.ctx)
	var d decision
	c := &Capture{Limit: rt.class.MaxBytes}
	c.head = func(status int, h Header) (bool, []Field) {
		d = rt.decide(status, h, a.creds, sc.Said())
		if d.store || status >= 500 && rt.hasSpare(a) {
			return true, nil
		}
		rt.notStored(a, turn, d)
		s.expose()
		return false, []Field{statusField(fwd, false, d.reason)}
	}
	c.pass = func(reason string) []Field {
		d = no(reason)
		if c.Status >= 500 {
			d.verdict, d.forget = engine.Failed, true
		}
		rt.notStored(a, turn, d)
		s.expose()
		return []Field{statusField(fwd, false, reason)}
	}
	err := ex.Run(scope.With(s.ctx, sc), c)
	if err != nil {
		rt.engine.Count.LoadErrors.Add(1)
		if (c.Status == 0 || c.Held) && errorStatus(err) >= 500 && rt.answerSpare(a, turn) {
			return nil
		}
		if c.Held {
			ex.Release([]Field{statusField(fwd, false, "handler-error")})
		}
		return err
	}
	if !c.Held {
		if c.Status >= 500 {
			rt.engine.Count.LoadErrors.Add(1)
		}
		return nil
	}
	if !d.store { // a 5xx that was held back because an older response can stand in
		rt.engine.Count.LoadErrors.Add(1)
		if rt.answerSpare(a, turn) {
			return nil
		}
		ex.Release([]Field{statusField(fwd, false, d.reason)})
		return nil
	}
	if s.ctx.Err() != nil {
		// The handler was told to stop. What it answered may be the half of it.
		ex.Release([]Field{statusField(fwd, false, "cancelled")})
		return nil //nolint:nilerr // it has been answered
	}
	ex.Release(rt.store(s.ctx, a, turn, c, d, sc.Said(), fwd, missing))
	return nil
}

// store fills in what was captured, wakes who waits for it, and returns what to
// add to the answer.
func (rt *Route) store(ctx context.Context, a *ask, turn *engine.Turn, c *Capture, d decision, said scope.Said, fwd, missing string) []Field {
	late := said.Tags
	switch {
	case said.NoStore:
		d.store, d.reason = false, "handler-said-no-store"
	case said.TTLSet:
		d.lifetime.Fresh, d.stated = said.TTL, false
		if said.TTL == 0 {
			d.store, d.reason = false, "handler-said-no-store"
		}
	}
	if d.stated { // RFC 9111 section 4.2.3: the time it took counts
		d.lifetime.Since = turn.Began()
	}
	if d.store && missing != "" {
		// Outside the router the parameters appear only now.
		own, still := resolveAll(rt.tags, a.ex)
		if still != "" {
			rt.warnMissing(still, &a.line)
			d.store, d.reason = false, "missing-parameter"
		}
		late = append(late, own...)
	}
	if d.store && wrongLength(c) {
		d.store, d.reason, d.forget = false, "incomplete", true
	}
	if !d.store {
		d.verdict = engine.Unshareable
		rt.notStored(a, turn, d)
		return []Field{statusField(fwd, false, d.reason)}
	}
	r, add := newResponse(c, d, !rt.class.HTTP.NoETag)
	r.born, r.vary, r.key = turn.Began(), d.vary, a.key
	if prior := rt.find(a, rt.engine.Now()); len(d.vary) > 0 || len(prior.lists) > 0 {
		r.key = variantKey(a.key, d.vary, a.ex)
	}
	en, refusal := turn.Fill(context.WithoutCancel(ctx), engine.Fill{
		Codec: codec{}, Key: r.key, Value: r, Size: r.size(), Lifetime: d.lifetime, Tags: late, ReplicaLag: rt.class.ReplicaLag,
	})
	if refusal == engine.Stored && r.key != a.key {
		rt.addVariant(a.key, r, d.lifetime)
	}
	turn.Finish(engine.Outcome{Verdict: engine.Shared, Entry: en, Tags: late})
	return append(add, statusField(fwd, refusal == engine.Stored, string(refusal)))
}

// addVariant puts a variant into the resource's index. Two at a time may lose one
// of them from the index: that is a miss, and the next store mends it.
func (rt *Route) addVariant(resource string, r *response, life engine.Lifetime) {
	ix := &index{}
	if en, state := rt.engine.Lookup(resource); state != engine.Gone {
		if old, ok := en.Value.(*index); ok {
			ix = old
		}
	}
	next, gone := ix.with(r.vary, r.key, rt.class.HTTP.MaxVariants)
	rt.engine.Forget(gone)
	keep := life.Fresh + max(life.Stale, life.Spare)
	rt.engine.Note(resource, next, next.size(), max(keep, time.Minute), codec{})
}

// notStored tells those who wait how it ended and remembers what is uncacheable.
func (rt *Route) notStored(a *ask, turn *engine.Turn, d decision) {
	if d.conditional {
		rt.engine.Note(a.key+conditionSuffix, uncacheable{}, 0, rememberUncacheable, codec{})
	}
	if !d.forget && d.verdict == engine.Unshareable {
		key := a.key
		if a.creds.any() {
			key += credsSuffix
		}
		f := rt.find(a, rt.engine.Now())
		switch {
		case f.response == nil && len(f.lists) == 0:
			rt.engine.Note(key, uncacheable{}, 0, rememberUncacheable, codec{})
		case f.response != nil && f.state != engine.Fresh && !a.creds.any() && d.reason != Streamed && d.reason != Oversized:
			rt.engine.ForgetEntry(f.response.key, f.entry) // it is like that no more
		}
	}
	if d.verdict == engine.Unshareable {
		turn.Finish(engine.Outcome{Verdict: engine.Unshareable})
	}
	// Failed waits for the handler's end: until then it counts against MaxLoads.
}

// hasSpare reports whether an older response may stand in for an error.
func (rt *Route) hasSpare(a *ask) bool {
	f := rt.find(a, rt.engine.Now())
	return f.response != nil && f.entry.KeepUntil > f.entry.FreshUntil
}

// answerSpare answers with an older response in place of an error (RFC 5861
// section 4). Those who wait get it as well: it is as valid as a hit.
func (rt *Route) answerSpare(a *ask, turn *engine.Turn) bool {
	now := rt.engine.Now()
	f := rt.find(a, now)
	if f.response == nil || f.entry.KeepUntil <= f.entry.FreshUntil {
		return false
	}
	rt.engine.Count.StaleHits.Add(1)
	turn.Finish(engine.Outcome{Verdict: engine.Shared, Entry: f.entry})
	a.ex.Reply(f.response.answer(a.ex, a.line.Method, f.response.hitFields(now, f.entry.FreshUntil)))
	return true
}

// forward runs the handler and leaves its answer alone, but for saying so.
func (rt *Route) forward(ex Exchange, fwd, detail string) error {
	rt.engine.Count.Bypassed.Add(1)
	c := &Capture{head: func(int, Header) (bool, []Field) {
		return false, []Field{statusField(fwd, false, detail)}
	}}
	return ex.Run(ex.Context(), c)
}

// conditionalFields make a response that answers this request only. A refresh
// leaves them out.
var conditionalFields = []string{ //nolint:gochecknoglobals // a constant
	"If-None-Match", "If-Modified-Since", "If-Match", "If-Unmodified-Since", "If-Range", "Range",
}

// DropConditional removes them from a request: del removes a field. It is for an
// adapter whose Detach copies requests that are not net/http's.
func DropConditional(del func(name string)) {
	for _, name := range conditionalFields {
		del(name)
	}
}

func statusField(fwd string, stored bool, detail string) Field {
	return Field{Name: cacheStatus, Values: []string{statusForward(fwd, stored, detail)}, Mode: Append}
}

func (r *response) collapsedFields(now int64, fwd string) []Field {
	return []Field{
		{Name: "Age", Values: []string{strconv.FormatInt(r.initialAge+seconds(now-r.born), 10)}},
		{Name: cacheStatus, Values: []string{statusCollapsed(fwd)}, Mode: Append},
	}
}

// errorStatus returns the status of the answer that the framework will make of
// an error.
func errorStatus(err error) int {
	if he, ok := err.(*HandlerError); ok && he.Status != 0 { //nolint:errorlint // made by the adapter itself, never wrapped
		return he.Status
	}
	return http.StatusInternalServerError
}

// wrongLength reports whether the handler stated another length than it wrote.
func wrongLength(c *Capture) bool {
	stated := c.Header.Values("Content-Length")
	return len(stated) > 0 && c.Status != http.StatusNoContent && first(stated) != strconv.Itoa(len(c.Body))
}
