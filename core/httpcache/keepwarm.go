package httpcache

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/bridge"
	"github.com/larderhq/larder/core/internal/coherence"
	"github.com/larderhq/larder/core/internal/hotkeys"
	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/naming"
	"github.com/larderhq/larder/core/internal/warmup"
)

// KeepWarm keeps the most-hit responses warm. It returns the error of ctx when that ends,
// core.ErrClosed when the cache is closed, and a *core.ConfigError for invalid options. It works as core.Map.KeepWarm does:
// it learns from the hits of the cache's routes, while it runs, and every so often asks
// the server's handler for those that are about to expire, or are gone, through all its
// middleware. The caller gives it a goroutine:
//
//	go httpcache.KeepWarm(ctx, cache, server.Handler, core.KeepWarmOptions{})
//
// Its requests are anonymous: GET, without credentials or cookies, and with no request
// fields but Accept, Accept-Encoding and Accept-Language, where the response depends on
// them. It does not learn from hits whose response was chosen by any other field, from
// routes with an Identity, or from a URL with fields of more than 4 KiB. The handler must serve all routes of the cache.
//
// A net/http server's Handler, an Echo and a Gin engine are such handlers; for Fiber
// there is fibercache.KeepWarm. A cache's responses are kept warm once at a time.
func KeepWarm(ctx context.Context, cache *core.Cache, server http.Handler, o core.KeepWarmOptions) error {
	if server == nil {
		return &core.ConfigError{Field: "server", Value: nil, Allowed: "a handler"}
	}
	return KeepWarmFunc(ctx, cache, o, askHandler(server))
}

// KeepWarmFunc is KeepWarm for a server that is not an http.Handler: ask has it answer a
// request, with its context, and returns the status.
func KeepWarmFunc(ctx context.Context, cache *core.Cache, o core.KeepWarmOptions, ask func(*http.Request) (status int)) error {
	switch {
	case cache == nil:
		return &core.ConfigError{Field: "cache", Value: nil, Allowed: "a cache made by core.New"}
	case ask == nil:
		return &core.ConfigError{Field: "ask", Value: nil, Allowed: "a function"}
	}
	if o.Batch == 0 {
		o.Batch = 1
	}
	p, err := bridge.KeepWarmPlan(o)
	if err != nil {
		return err
	}
	e := bridge.Of(cache).Engine
	return warmup.Keeper[string]{
		Engine: e, Plan: p, Sketch: &e.Pages, Enabled: cache.Enabled,
		Closed: core.ErrClosed, Twice: &core.ConfigError{Field: "KeepWarm", Value: "cache", Allowed: "a cache whose responses are not kept warm already"},
		Note: "http:" + string(rune(partEnd)) + "hot",
		Key: func(it hotkeys.Item[string]) (string, bool) {
			_, err := hotRequest(ctx, it.Name)
			return it.About, err == nil
		},
		Leave: func(en *local.Entry) bool { _, ok := en.Value.(*response); return !ok },
		Renew: func(ctx context.Context, due warmup.Due, items []hotkeys.Item[string]) (filled, failed int) {
			for _, it := range items {
				if ctx.Err() != nil {
					break
				}
				w := &warmRequest{engine: e, due: due}
				r, err := hotRequest(context.WithValue(ctx, RefreshKey, w), it.Name) //nolint:staticcheck // a string on purpose, see RefreshKey
				status := 0
				if err == nil {
					status, err = guarded(r, ask)
				}
				switch {
				case err != nil || !w.reached || w.ran && status >= http.StatusMultipleChoices:
					failed++
				case w.ran:
					filled++
				}
			}
			return filled, failed
		},
	}.Keep(ctx)
}

// maxHot is the longest URL with fields that is learnt.
const maxHot = 4 << 10

// negotiated are the request fields that may choose among responses that are for
// everybody, and are repeated.
var negotiated = []string{"Accept", "Accept-Encoding", acceptLanguage} //nolint:gochecknoglobals // a constant

// recordHit counts a hit, if anybody could have caused it.
func (rt *routeSnapshot) recordHit(s *hotkeys.Sketch[string], ex Exchange, lacks FieldSet, r *response) {
	if rt.identity != nil || r.part != nil || r.key == "" || rt.credentialsOf(ex, lacks).any() || len(ex.Values("Cookie")) > 0 {
		return
	}
	line := ex.Line()
	if line.Method != http.MethodGet && line.Method != http.MethodHead { // it would be asked for with GET
		return
	}
	b := append([]byte(line.Scheme), "://"...)
	b = append(b, line.Host...)
	switch {
	case line.Original != "":
		if line.Original[0] != '/' {
			return // something was believed that a proxy said
		}
		b = append(b, line.Original...)
	default:
		b = append(b, line.Path...)
		if line.Query != "" || line.BareQuery {
			b = append(append(b, '?'), line.Query...)
		}
	}
	var seen []string
	for _, name := range slices.Concat(rt.class.HTTP.Headers, r.vary) {
		values := ex.Values(name)
		if len(values) == 0 || slices.Contains(seen, name) {
			continue
		}
		if !slices.Contains(negotiated, name) {
			return
		}
		seen = append(seen, name)
		for _, v := range values {
			if naming.HasControl(v) {
				return
			}
			b = append(append(append(append(b, '\n'), name...), ": "...), v...)
		}
	}
	if len(b) <= maxHot {
		s.Saw(string(b), r.key)
	}
}

// hotRequest makes the request that recordHit has written down.
func hotRequest(ctx context.Context, name string) (*http.Request, error) {
	if len(name) > maxHot {
		return nil, errors.New("larder: too long")
	}
	lines := strings.Split(name, "\n")
	r, err := requestFor(ctx, lines[0])
	if err != nil {
		return nil, err
	}
	for _, line := range lines[1:] {
		field, value, ok := strings.Cut(line, ": ")
		if !ok || !slices.Contains(negotiated, field) || naming.HasControl(value) {
			return nil, fmt.Errorf("larder: %q is no field of a request to be repeated", field)
		}
		r.Header[field] = append(r.Header[field], value)
	}
	return r, nil
}

// warmRequest is a request of KeepWarm's on its way through the framework to its route.
type warmRequest struct {
	engine  *coherence.Engine
	due     warmup.Due
	reached bool // a route of the cache
	ran     bool // the handler
}

// keepWarm has the handler answer a request of KeepWarm's, if what is there is about to
// expire, and no other load is under way or has replaced it.
func (rt *routeSnapshot) keepWarm(ex Exchange, w *warmRequest) error {
	a, missing := rt.requestOf(ex)
	if a == nil || !rt.cache.Enabled() {
		ex.Reply(notCached())
		return nil
	}
	w.reached = true
	for range maxRounds {
		f := rt.lookup(a, rt.engine.Now())
		if f.response != nil && f.state == local.Fresh && !w.due(f.entry) {
			break
		}
		tags, _ := rt.tagsNow(a)
		lead := rt.engine.TryLead
		if rt.engine.Distant() {
			lead = rt.engine.TryLater
		}
		turn, ok := lead(a.flightKey(&f), tags, rt.gate)
		if !ok {
			break
		}
		again, err := rt.keepWarmInTurn(a, turn, &f, w, missing)
		if w.ran || err != nil {
			return err
		}
		if !again {
			break
		}
	}
	ex.Reply(Answer{Status: http.StatusNoContent, NoBody: true}) // it is discarded
	return nil
}

// keepWarmInTurn is keepWarm in a turn. again: what was found says where to look.
func (rt *routeSnapshot) keepWarmInTurn(a *cacheRequest, turn *coherence.Turn, f *lookup, w *warmRequest, missing string) (again bool, err error) {
	defer func() {
		if !a.deferred {
			turn.Finish(local.Outcome{Verdict: local.Failed}) // whatever happened to the handler
		}
	}()
	ctx, cancel := context.WithTimeout(withoutRefresh(a.ex.Context()), rt.class.LoadTimeout)
	defer cancel()
	q := coherence.Query{Codec: codec{}, Key: entryKey(a, f), Seen: f.entry, Background: true}
	got := turn.Fetch(ctx, q)
	if got.Entry != nil && w.due(got.Entry) {
		turn.Refuse(got.Entry)
		got = turn.Fetch(ctx, q)
	}
	switch {
	case got.Entry != nil && got.State == local.Fresh: // another load has replaced it, or it is an index
		rt.adopt(a.key, got.Entry)
		turn.Finish(local.Outcome{Verdict: local.Shared, Entry: got.Entry, Found: true})
		return true, nil
	case got.Busy, !turn.MayStore():
		return false, nil
	}
	if f.entry != nil {
		rt.engine.Count.Refreshes.Add(1)
	}
	w.ran = true
	return false, rt.load(a, turn, backgroundContext(ctx), a.forwardReason(f), missing)
}
