package httpcache

import (
	"context"
	"strings"

	"github.com/larderhq/larder/core/internal/coherence"
	"github.com/larderhq/larder/core/internal/local"
)

// refresh loads the entry again in the background, unless a load is under way. It takes what it needs of the request before that ends.
func (rt *routeSnapshot) refresh(ex Exchange) {
	a, _ := rt.requestOf(ex)
	if a == nil {
		return
	}
	tags, _ := rt.tagsNow(a)
	f := rt.lookup(a, rt.engine.Now())
	if rt.engine.Distant() {
		if run := ex.Detach(); run != nil {
			rt.engine.Later(ex.Context(), a.flightKey(&f), tags, rt.gate, 2*rt.class.LoadTimeout, func(ctx context.Context, turn *coherence.Turn) {
				rt.refreshNow(ctx, a.key, turn, run)
			})
		}
		return
	}
	turn, ok := rt.engine.TryLead(a.flightKey(&f), tags, rt.gate)
	if !ok {
		return
	}
	led := false
	defer func() {
		if !led { // the adapter panicked, or there is no room
			turn.Finish(local.Outcome{Verdict: local.Failed})
		}
	}()
	run := ex.Detach()
	led = !(run == nil || !rt.engine.Refresh(ex.Context(), rt.class.LoadTimeout, turn, func(ctx context.Context) {
		rt.refreshNow(ctx, a.key, turn, run)
	}))
}

func (rt *routeSnapshot) refreshNow(ctx context.Context, key string, turn *coherence.Turn, run func(context.Context, func(Exchange))) {
	defer turn.Finish(local.Outcome{Verdict: local.Failed})
	defer func() {
		if v := recover(); v != nil { // no server stands behind this goroutine
			rt.engine.Count.LoadErrors.Add(1)
			rt.log.Error("larder: a handler panicked in a background refresh", "panic", v)
		}
	}()
	r := &refreshing{route: rt}
	r.load = func(ex Exchange) {
		a, missing := rt.requestOf(ex)
		if a == nil || a.key != key { // rewritten on its way here: not what the turn is for
			return
		}
		f := rt.lookup(a, rt.engine.Now())
		q := coherence.Query{Codec: codec{}, Key: entryKey(a, &f), Seen: f.entry, Wait: rt.class.LoadTimeout, Background: !turn.Behind() || f.entry != nil}
		got := turn.Fetch(ctx, q)
		if got.Entry != nil && got.State == local.Stale { // another one than was answered, and no better
			turn.Refuse(got.Entry)
			got = turn.Fetch(ctx, q)
		}
		switch {
		case got.Busy: // another instance refreshes it
			return
		case got.Entry != nil && got.State == local.Fresh: // and has done so
			rt.adopt(key, got.Entry)
			turn.Finish(local.Outcome{Verdict: local.Shared, Entry: got.Entry})
			return
		case turn.Behind() && !turn.MayStore(): // it would be of no use to anybody
			return
		}
		rt.engine.Count.Refreshes.Add(1)
		// The error is the handler's, and the handler has no client.
		_ = rt.load(a, turn, backgroundContext(withoutRefresh(ex.Context())), fwdStale, missing)
	}
	run(context.WithValue(ctx, RefreshKey, r), r.load) //nolint:staticcheck // a string on purpose, see RefreshKey
}

// entryKey is where the response to a request is stored, as far as is known.
func entryKey(a *cacheRequest, f *lookup) string {
	if len(f.lists) > 0 {
		return a.rt.variantKey(a.key, f.lists[0], a.ex)
	}
	return a.key
}

// refreshing is a background refresh on its way through the framework to its
// route.
type refreshing struct {
	route *routeSnapshot
	load  func(Exchange)
}

// RefreshKey is where the context of a background refresh says so, for adapters
// that dispatch it through their framework. It is a plain string, as ContextKey.
const RefreshKey = "github.com/larderhq/larder/refresh"

func withoutRefresh(ctx context.Context) context.Context {
	return context.WithValue(ctx, RefreshKey, (*refreshing)(nil)) //nolint:staticcheck // as above
}

// requestOf reads a request that has been found cacheable before; nil if it is not.
func (rt *routeSnapshot) requestOf(ex Exchange) (a *cacheRequest, missing string) {
	line := rt.lineOf(ex)
	key, creds, _, _, reason := rt.identify(nil, ex, &line)
	if reason != "" {
		return nil, ""
	}
	creds.identity = strings.Clone(creds.identity)
	a = &cacheRequest{rt: rt, ex: ex, line: line.Clone(), key: string(key), creds: creds}
	_, missing = rt.tagsNow(a)
	return a, missing
}
