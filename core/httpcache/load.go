package httpcache

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/coherence"
	"github.com/larderhq/larder/core/internal/loadscope"
	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/waitgraph"
)

// lead runs the handler in a turn, stores what it answered and sends it.
func (rt *routeSnapshot) lead(a *cacheRequest, turn *coherence.Turn, detached *detachedContext, fwd, missing string) error {
	defer func() {
		if !a.deferred {
			turn.Finish(local.Outcome{Verdict: local.Failed}) // whatever happened to the handler
			detached.end()
		}
	}()
	return rt.load(a, turn, detached, fwd, missing)
}

// load is lead without the leader's client: it also runs in the background.
func (rt *routeSnapshot) load(a *cacheRequest, turn *coherence.Turn, s *detachedContext, fwd, missing string) error {
	ex := a.ex
	rt.engine.Count.Loads.Add(1)
	l := rt.newLoading(a, turn, s, fwd, missing)
	defer l.leave()
	if turn.OverBudget() { // before the handler can change the request
		l.rerun = ex.Detach()
	}
	c := &Capture{Limit: rt.class.MaxEntryBytes, head: l.head, pass: l.pass, wantsErrorAnswer: l.wantsErrorAnswer, keepsErrorAnswer: l.keepsErrorAnswer}
	l.c = c
	if l.prior.response != nil {
		c.Conditions = l.prior.response.conditions()
	}
	err := ex.Run(loadscope.With(s.ctx, l.scope), c)
	switch {
	case err != nil:
		return l.failed(err)
	case c.Held:
		l.answered()
	case c.Status >= 500:
		rt.engine.Count.LoadErrors.Add(1)
	}
	return nil
}

// failed deals with an error that the handler has returned: a 304 freshens the prior
// response, an older response replaces a server error, and any other error is the
// framework's to answer.
func (l *loading) failed(err error) error {
	rt, a, c := l.rt, l.a, l.c
	status, unsent := errorStatus(err), c.Status == 0 || c.Held
	if unsent && l.validated(status) {
		if c.Header == nil {
			c.Header = storedHeader{}
		}
		l.freshen(c.Header, l.scope.Said())
		return nil
	}
	rt.engine.Count.LoadErrors.Add(1)
	if unsent && status >= 500 && rt.answerFallback(a, l.turn, status) {
		return nil
	}
	switch {
	case c.Status == 0:
		a.ex.Release(unanswered(statusField(l.fwd, false, handlerError)))
	case c.Held:
		a.ex.Release(l.unstored(handlerError))
	}
	return err
}

// answered deals with an answer that has been held back whole.
func (l *loading) answered() {
	rt, a, turn, c := l.rt, l.a, l.turn, l.c
	if l.d.store && wrongLength(c) {
		c.AbortStatus = http.StatusInternalServerError
	}
	said := l.scope.Said()
	turn.ReadsReplica(said.ReplicaLag)
	turn.Contains(said.Oldest)
	l.scope.Outer.Inherit(said)
	switch {
	case c.AbortStatus != 0:
		rt.engine.Count.LoadErrors.Add(1)
		if c.AbortStatus < 500 || !rt.answerFallback(a, turn, c.AbortStatus) {
			turn.Finish(local.Outcome{Verdict: local.Failed}) // waiting requests do not wait for this client
			a.ex.Release(l.unstored(incomplete))
		}
	case l.validated(c.Status):
		l.freshen(c.Header, said)
	case !l.d.store: // a 5xx that was held back because an older response may replace it
		rt.engine.Count.LoadErrors.Add(1)
		if !rt.answerFallback(a, turn, c.Status) {
			a.ex.Release(l.unstored(l.d.reason))
		}
	case l.detached.ctx.Err() != nil:
		// The handler was cancelled: its answer may be incomplete.
		a.ex.Release(l.unstored("cancelled"))
	default:
		l.store(said)
	}
}

// loading is one run of a handler for a response that may be stored.
type loading struct {
	rt            *routeSnapshot
	a             *cacheRequest
	turn          *coherence.Turn
	detached      *detachedContext
	fwd, missing  string
	scope         *loadscope.Scope
	c             *Capture
	d             decision
	prior         lookup // what the handler is asked to validate, if response is set
	replaces      bool   // it was asked, and has answered something else
	freshened     bool   // it was asked, and has said that the prior response holds
	errorCaptured bool   // the framework, for its answer to an error
	passed        bool   // the answer goes out as it comes
	leave         func() // ends the wait of the load that this one is part of
	// rerun runs the handler for the same request behind the response, nil if there was
	// time to ask the shared tier.
	rerun    func(context.Context, func(Exchange))
	existing lookup // what was there before it was stored
	filled   *local.Entry
}

// newLoading prepares a run in a turn that may fill in what it answers. The request
// is snapshot, and what the handler can be asked about is looked for.
func (rt *routeSnapshot) newLoading(a *cacheRequest, turn *coherence.Turn, s *detachedContext, fwd, missing string) *loading {
	if f, ok := a.ex.(FieldSnapshotter); ok {
		f.SnapshotFields()
	}
	l := &loading{rt: rt, a: a, turn: turn, detached: s, fwd: fwd, missing: missing, scope: rt.parts.NewScope()}
	if turn.Running() == nil {
		turn.Runs(new(waitgraph.Load))
	}
	l.scope.Leads, l.scope.Load, l.leave = turn.Key(), turn.Running(), func() {}
	if s.client != nil { // no request waits for a refresh
		l.scope.Outer = loadscope.From(s.ctx)
		l.leave = l.scope.Outer.Begins(l.scope.Load)
	}
	l.findPrior()
	return l
}

// head decides what to do with an answer when its header is final.
func (l *loading) head(status int, h Header) (hold bool, add []Field) {
	if l.validated(status) {
		return true, nil
	}
	l.d = l.rt.decide(status, h, l.a.creds, l.scope.Said())
	if l.d.store || l.errorCaptured || status >= 500 && l.rt.hasFallback(l.a) {
		return true, nil
	}
	l.rt.notStored(l.a, l.turn, l.d)
	l.detached.cancelIfClientLeft()
	return false, l.unstored(l.d.reason)
}

// unstored returns what is added to the answer where it is not stored. Its Date is as
// early as that of a stored response would be: a date that a client has is never later
// than that of what it has not seen.
func (l *loading) unstored(reason string) []Field {
	add := unstored(l.c.Status, l.c.Header, statusField(l.fwd, false, reason))
	if h := l.c.Header; h != nil && len(h.Values("Date")) == 0 {
		add = append(add, dateField(l.began()))
	}
	return add
}

// began is when the load began, by this machine's clock.
func (l *loading) began() time.Time {
	return time.Now().Add(time.Duration(l.turn.Began() - l.rt.engine.Now()))
}

// wantsErrorAnswer reports whether the framework's answer to an error is to be captured: that of a "not
// found" in a class that remembers it. Middleware outside finds every other error as
// without a cache, and the error handler is asked once.
func (l *loading) wantsErrorAnswer(status int) bool {
	l.errorCaptured = l.rt.class.NegativeTTL > 0 && gone(status)
	return l.errorCaptured
}

// keepsErrorAnswer reports whether the framework's answer to an error is remembered, or has gone out.
// The client is then answered by it, as later requests will be from the store.
func (l *loading) keepsErrorAnswer() bool {
	return l.passed || l.c.AbortStatus == 0 && gone(l.c.Status) && l.d.store
}

// pass lets through what cannot be held back.
func (l *loading) pass(reason string) []Field {
	l.passed = true
	l.d = no(reason)
	if l.c.Status >= 500 {
		l.d.verdict, l.d.forget = local.Failed, true
	}
	l.rt.notStored(l.a, l.turn, l.d)
	l.detached.cancelIfClientLeft()
	return l.unstored(reason)
}

// completeDecision completes the decision with what the handler has said until its end, and
// returns the tags that have become known since the load began, and those that the
// response had before.
func (l *loading) completeDecision(status int, h Header, said loadscope.Said, before []string) (lateTags []string) {
	rt, a := l.rt, l.a
	if said.NoStore || said.TTLSet {
		l.d = rt.decide(status, h, a.creds, said)
	}
	d := &l.d
	if d.stated { // RFC 9111 section 4.2.3: the time it took counts
		d.lifetime.Since = l.turn.Began()
	}
	lateTags = append(append(said.Tags, groupTags(&a.line, h)...), before...)
	if d.store && l.missing != "" {
		// Outside the router the parameters appear only now.
		own, still := resolveAll(rt.tags, a.ex, a.creds.identity)
		if still != "" {
			rt.warnMissing(still, &a.line)
			d.store, d.reason, d.verdict = false, "missing-parameter", local.Unshareable
		}
		lateTags = append(lateTags, own...)
	}
	if d.store {
		f := rt.lookup(a, rt.engine.Now())
		l.varied(&f)
	}
	slices.Sort(lateTags)
	lateTags = slices.Compact(lateTags)
	if d.store && len(rt.tags)+len(lateTags) > core.MaxTagsPerEntry {
		d.store, d.reason, d.verdict = false, "too-many-tags", local.Unshareable
	}
	return lateTags
}

// varied applies to a response what others of its resource have varied on.
func (l *loading) varied(f *lookup) {
	switch d := &l.d; {
	case f.index == nil:
	case d.part != nil && f.varies(l.a.ex): // it may suit no other request
		l.d = conditional()
	case len(f.index.varied(d.vary)) > maxVaried:
		d.store, d.reason, d.verdict = false, "varies-on-too-much", local.Unshareable
	}
}

// store stores the captured response, wakes the requests that wait for it, and answers.
func (l *loading) store(said loadscope.Said) {
	rt, a, c := l.rt, l.a, l.c
	lateTags := l.completeDecision(c.Status, c.Header, said, nil)
	if l.d.store && l.d.part != nil && !partLength(c, &l.d) {
		l.d.store, l.d.reason, l.d.verdict, l.d.forget = false, incomplete, local.Unshareable, true
	}
	var r *response
	var add []Field
	if l.d.store {
		r, add = rt.newResponse(c.Status, c.Header, c.Body, &l.d, nil, l.began())
	}
	if !l.d.store {
		rt.notStored(a, l.turn, l.d)
		a.ex.Release(l.unstored(l.d.reason))
		return
	}
	l.replaces = c.Conditions != nil
	r.failure = c.ErrorMessage
	out := outgoing{add: add}
	if outsideOf(a.ex).encodesContent(r.header()) {
		out.add = forAnyCoding(add, 0)
	}
	if a.conditional() && (c.Conditions != nil || hasField(add, "Etag")) {
		// The handler was asked the cache's conditions in place of the client's, or does
		// not know the validator that the client's are about.
		out.reply = l.reply(r, c.Header)
	}
	l.storeAndAnswer(r, lateTags, forwarded{fwd: l.fwd}, out)
}

// reply is the answer to the client whose request was run, from the response that came
// of it. by is what the handler answered now.
func (l *loading) reply(r *response, by Header) *Answer {
	extra := l.forThisClient(by)
	if r.initialAge > 0 {
		extra = append(extra, ageField(r.initialAge))
	}
	answer := r.answer(l.a.ex, l.a.creds.lacks, l.a.line.Method, extra)
	return &answer
}

// assignKey finds where a response is to be stored.
func (l *loading) assignKey(r *response, lateTags []string) {
	rt, a := l.rt, l.a
	r.born, r.key, r.tags = l.turn.Began(), a.key, lateTags
	l.existing = rt.lookup(a, rt.engine.Now())
	switch {
	case r.part != nil:
		r.key, r.part.asked = a.key+partSuffix, strings.Clone(rangeOf(a.ex))
	case len(l.d.vary) > 0 || len(l.existing.lists) > 0:
		r.vary = l.existing.index.varied(l.d.vary)
		r.key = rt.variantKey(a.key, r.vary, a.ex)
	}
	r.forOrigins = r.forOrigins || r.suitsOrigins(a.ex) || l.freshened && l.prior.response.forOrigins
}

func (l *loading) fill(r *response, lateTags []string) local.Fill {
	refuse := local.Stored
	if l.a.directives.noStore { // waiting requests are answered from it, later ones are not
		refuse = local.Unwanted
	}
	said := l.scope.Said()
	lag := max(l.rt.class.ReplicaLag, said.ReplicaLag)
	l.turn.ReadsReplica(lag)
	l.turn.Contains(said.Oldest)
	return local.Fill{
		Refuse: refuse, Codec: codec{}, Key: r.key, Value: r, Size: r.size(), Lifetime: l.d.lifetime, Tags: lateTags, ReplicaLag: lag,
	}
}

// fillAndFinish stores a response that has its place, and ends the turn with it.
func (l *loading) fillAndFinish(r *response, lateTags []string) local.Refusal {
	rt, a, d, there := l.rt, l.a, &l.d, &l.existing
	en, refusal := l.turn.Fill(context.WithoutCancel(l.detached.ctx), l.fill(r, lateTags))
	l.filled = en
	switch {
	case (refusal == local.Stored || refusal == local.Deferred) && r.key != a.key && r.part == nil:
		rt.addVariant(a.key, r, d)
	case refusal == local.NoLease && l.replaces:
		l.turn.ForgetEntry(l.detached.ctx, l.prior.response.key, l.prior.entry) // it is like that no more
	case refusal == local.NoLease && there.uncacheable:
		// The mark is outdated. The next request takes the lease again.
		rt.engine.Forget([]string{a.key, a.key + credsSuffix, a.key + conditionSuffix})
	}
	defer l.reloadLater(refusal)
	switch {
	case d.shared():
		l.turn.Finish(local.Outcome{Verdict: local.Shared, Entry: en, Tags: lateTags})
	case r.part != nil: // waiting requests find it in the store
		l.turn.Finish(local.Outcome{Verdict: local.Again})
	case r.status >= 500:
		l.turn.Finish(local.Outcome{Verdict: local.Failed})
	default:
		l.turn.Finish(local.Outcome{Verdict: local.Unshareable})
	}
	return refusal
}

// reloadLater has the handler run again behind the response if what it answered could not be
// stored for want of time to ask the shared tier.
func (l *loading) reloadLater(refusal local.Refusal) {
	rt, key, run := l.rt, l.a.key, l.rerun
	if run == nil || refusal != local.NoLease {
		return
	}
	rt.engine.Later(l.detached.ctx, l.turn.Key(), l.turn.Tags(), rt.gate, 2*rt.class.LoadTimeout, func(ctx context.Context, turn *coherence.Turn) {
		rt.refreshNow(ctx, key, turn, run)
	})
}

// notStored gives waiting requests the outcome and marks an uncacheable resource.
func (rt *routeSnapshot) notStored(a *cacheRequest, turn *coherence.Turn, d decision) {
	if d.conditional {
		rt.engine.Note(a.key+conditionSuffix, uncacheable{}, 0, rememberUncacheable, codec{})
	}
	if !d.forget && d.verdict == local.Unshareable {
		key := a.key
		if a.creds.any() {
			key += credsSuffix
		}
		f := rt.lookup(a, rt.engine.Now())
		switch {
		case f.response == nil && len(f.lists) == 0:
			rt.engine.Note(key, uncacheable{}, 0, rememberUncacheable, codec{})
		case f.response != nil && f.state != local.Fresh && !a.creds.any() && !d.provoked && d.reason != Streamed && d.reason != Oversized:
			turn.ForgetEntry(a.ex.Context(), f.response.key, f.entry) // it is like that no more
		}
	}
	if d.verdict == local.Unshareable {
		turn.Finish(local.Outcome{Verdict: local.Unshareable})
	}
	// Failed waits for the handler's end: until then it counts against MaxLoadsAfterError.
}

// hasFallback reports whether an older response may stand in for an error.
func (rt *routeSnapshot) hasFallback(a *cacheRequest) bool {
	now := rt.engine.Now()
	f := rt.lookup(a, now)
	return f.response != nil && f.response.mayReplaceError(f.entry, now) && !a.directives.demandsNew()
}

// answerFallback answers with an older response in place of an error (RFC 5861
// section 4). Waiting requests get it as well: it is as valid as a hit.
func (rt *routeSnapshot) answerFallback(a *cacheRequest, turn *coherence.Turn, status int) bool {
	now := rt.engine.Now()
	f := rt.lookup(a, now)
	if f.response == nil || !f.response.mayReplaceError(f.entry, now) || a.directives.demandsNew() {
		return false
	}
	rt.engine.Count.StaleHits.Add(1)
	turn.Finish(local.Outcome{Verdict: local.Shared, Entry: f.entry, Found: true})
	a.ex.Reply(f.response.answer(a.ex, a.creds.lacks, a.line.Method, []Field{
		ageField(f.response.age(now)),
		forwarded{fwd: fwdStale, status: status, detail: "stale-if-error"}.field(),
	}))
	return true
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

// partLength reports whether a partial response has no more content than it says.
func partLength(c *Capture, d *decision) bool {
	n := int64(len(c.Body))
	return n > 0 && n <= d.part.Last-d.part.First+1
}
