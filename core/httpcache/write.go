package httpcache

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/bridge"
	"github.com/larderhq/larder/core/internal/loadscope"
	"github.com/larderhq/larder/core/internal/naming"
)

// WriteConfig is the configuration of an invalidating route. WriteMiddleware makes it from an
// adapter's WriteRoute.
type WriteConfig struct {
	Cache *core.Cache
	Class string
	Tags  []string
	// Identity returns the user whose responses {identity} in a tag invalidates. ok is false for
	// a request of no user: its write invalidates the other tags. nil: no tag has {identity}.
	Identity func(Exchange) (id string, ok bool)
}

// Invalidator is a route whose handler writes.
type Invalidator struct {
	cache    *core.Cache
	class    string
	tags     []template
	identity func(Exchange) (string, bool) // nil: no tag names it
	warned   warnings
}

// NewInvalidator makes an invalidating route. It returns a *core.ConfigError for a nil
// cache, an unknown class, no tags, a malformed tag, or an Identity that no tag names.
func NewInvalidator(c WriteConfig) (*Invalidator, error) {
	cache, class, tags := c.Cache, c.Class, c.Tags
	if cache == nil {
		return nil, &core.ConfigError{Field: "cache", Value: nil, Allowed: "a cache made by core.New"}
	}
	if _, err := cache.Class(class); err != nil {
		return nil, err
	}
	if len(tags) == 0 {
		return nil, &core.ConfigError{Field: "tags", Value: 0, Allowed: "at least one"}
	}
	templates, err := parseTemplates(tags, c.Identity != nil)
	if err != nil {
		return nil, err
	}
	if c.Identity != nil && !personal(templates) {
		return nil, &core.ConfigError{Field: "tags", Value: tags, Allowed: "at least one with {identity}, since the route has an Identity"}
	}
	return &Invalidator{cache: cache, class: strings.Clone(class), tags: templates, identity: c.Identity}, nil
}

// Serve runs the handler between the beginning and the end of a write intent on
// the route's tags and the request's own path. The client sees the end of the
// answer when the invalidation has happened.
func (iv *Invalidator) Serve(ex Exchange) error {
	line := ex.Line()
	if reads(line.Method) {
		return ex.Run(loadscope.With(ex.Context(), bridge.Of(iv.cache).NewScope()), nil)
	}
	u := userOf(iv.identity, ex)
	targets := make([]core.Target, 0, len(iv.tags)+2)
	for _, t := range iv.tags {
		if t.personal && !u.known {
			continue // no response is stored for it
		}
		tag, missing := t.resolve(ex, u.id)
		if missing != "" {
			// Before the handler: a write that could not be announced must not happen.
			iv.warnMissing(missing, &line)
			ex.Reply(refused("tag " + strconv.Quote(t.text) + " of this route names a path parameter that the request does not have: " + noParameter))
			return nil
		}
		targets = append(targets, core.Tag(tag))
	}
	targets = append(targets, ownPaths(&line)...)
	if len(targets) == 0 { // a GET of nobody's
		return ex.Run(loadscope.With(ex.Context(), bridge.Of(iv.cache).NewScope()), nil)
	}
	class, _ := iv.cache.Class(iv.class) // none is ever taken out
	intent, err := iv.cache.Begin(context.WithoutCancel(ex.Context()), targets...)
	switch {
	case errors.Is(err, core.ErrClosed):
		return ex.Run(ex.Context(), nil)
	case err != nil:
		ex.Reply(refused(err.Error()))
		return nil
	case intent.Pending() && class.ConfirmWrites:
		intent.Abandon()
		ex.Reply(notNow())
		return nil
	}
	// The write of a pending intent goes on: its invalidation is tried until it succeeds.
	return runWrite(iv.cache, ex, &line, declaredWrite, nil, func(o outcome, more []core.Target) {
		ctx := context.WithoutCancel(ex.Context())
		if o == committed && ex.Context().Err() != nil {
			o = unsettled // the client has gone: the handler may have stopped waiting for its database
		}
		if o != refusedWrite {
			more = append(more, iv.lateTargets(ex, u)...)
		}
		// More has been checked; an intent bounds its waits itself.
		switch o {
		case refusedWrite:
			intent.Abandon()
			invalidateSaid(ctx, iv.cache, more)
		case unsettled:
			_ = intent.Lapse(ctx, more...)
		default:
			_ = intent.End(ctx, more...)
		}
	})
}

// notNow answers a write whose intent the shared tier has not confirmed.
func notNow() Answer {
	return ownAnswer(http.StatusServiceUnavailable, "the shared tier is unreachable, and this route does not write without it (ConfirmWrites)",
		Field{Name: "Retry-After", Values: []string{"1"}})
}

func refused(why string) Answer {
	return ownAnswer(http.StatusInternalServerError, strings.TrimPrefix(why, "larder: "))
}

// serveUnsafe handles an unsafe method on a cached route: if it succeeds, its URI
// and the route's tags are invalidated (RFC 9111 section 4.4). There is no intent:
// the route is not declared a write, and a request that is refused must not empty the
// cache.
func (rt *Route) serveUnsafe(ex Exchange, line *Line) error {
	targets := ownPaths(line)
	named := personal(rt.tags)
	var u user
	if named {
		u = userOf(rt.identity, ex)
	}
	rt.engine.Count.Bypassed.Add(1)
	always := []Field{statusField(fwdMethod, false, "")}
	return runWrite(rt.cache, ex, line, undeclaredWrite, always, func(o outcome, more []core.Target) {
		if o == refusedWrite {
			invalidateSaid(context.WithoutCancel(ex.Context()), rt.cache, more)
			return
		}
		if named && !u.known { // the authentication may be behind the cache
			u = userOf(rt.identity, ex)
		}
		for _, t := range rt.tags { // outside the router the parameters appear only now
			if t.personal && !u.known {
				continue
			}
			if tag, missing := t.resolve(ex, u.id); missing == "" {
				targets = append(targets, core.Tag(tag))
			}
		}
		if targets = append(targets, more...); len(targets) > 0 {
			// All have been checked; a closed cache answers nothing.
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ex.Context()), rt.budget)
			defer cancel()
			_ = rt.cache.Invalidate(ctx, targets...)
		}
	})
}

// holdOfWrites is how much of a write's answer is held back until the
// invalidation has happened. Longer ones are sent but for the last byte.
const holdOfWrites = 4 << 10

// outcome is what is known of a write when its handler has returned.
type outcome int

const (
	committed    outcome = iota
	refusedWrite         // nothing was changed
	unsettled            // it may have been committed, or may still be
)

// runWrite runs a handler that writes and calls end before the client sees the end
// of its answer, to which it adds always. judge tells the outcome from the status.
func runWrite(cache *core.Cache, ex Exchange, line *Line, judge func(status int) outcome, always []Field, end func(o outcome, more []core.Target)) error {
	said := writeScope(ex.Context(), cache)
	c := &Capture{Limit: holdOfWrites, Tail: true, always: always, NoBody: line.Method == http.MethodHead}
	returned := false
	defer func() {
		if !returned { // a panic, or Goexit
			end(unsettled, said.targets())
		}
	}()
	err := ex.Run(loadscope.With(ex.Context(), said.Scope), c)
	returned = true
	o := judge(c.Status)
	if err != nil && (c.Status == 0 || o == refusedWrite) {
		o = judge(errorStatus(err)) // an error that comes after an answer does not take it back
	}
	more := said.targets()
	if o != refusedWrite {
		more = append(named(line, c), more...)
	}
	end(o, more)
	ex.Release(c.always)
	return err
}

// invalidateSaid invalidates again the targets that the handler of a refused write has
// invalidated: it has changed something although the status is an error.
func invalidateSaid(ctx context.Context, cache *core.Cache, said []core.Target) {
	if len(said) > 0 {
		_ = cache.Invalidate(ctx, said...) // all have been checked; pending at worst
	}
}

// declaredWrite judges a write on an invalidating route. A 4xx means that it was refused,
// except 408 and 499, which mean that the client or a proxy stopped waiting. After a 5xx the
// outcome is unknown: behind a middleware with a time limit the handler may still run. A 202
// means that the write is not done yet.
func declaredWrite(status int) outcome {
	const clientClosedRequest = 499 // nginx's
	switch {
	case status >= 500, status == http.StatusRequestTimeout, status == clientClosedRequest, status == http.StatusAccepted:
		return unsettled
	case status >= 400:
		return refusedWrite
	}
	return committed
}

// undeclaredWrite judges an unsafe request on a cached route: it invalidates after a
// non-error status (RFC 9111 section 4.4).
func undeclaredWrite(status int) outcome {
	if status < 400 {
		return committed
	}
	return refusedWrite
}

// methodQuery is the method of RFC 10008: safe, with content that is the query.
const methodQuery = "QUERY"

// safe reports whether a method is safe (RFC 9110 section 9.2.1), by IANA's registry of
// HTTP methods.
func safe(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace,
		methodQuery, "PROPFIND", "REPORT", "SEARCH", "PRI":
		return true
	}
	return false
}

// reads reports whether a request through a route that writes only reads all the same: a
// route may have one handler for all methods (WebDAV), or answer preflights. GET and HEAD
// are taken for what the route's author has declared: there are links that unsubscribe.
func reads(method string) bool {
	return safe(method) && method != http.MethodGet && method != http.MethodHead
}

// ownPaths returns the paths of the URI of a request whose method is unsafe.
func ownPaths(line *Line) (targets []core.Target) {
	if safe(line.Method) {
		return nil
	}
	if pathable(line.Path) {
		targets = append(targets, core.Path(strings.Clone(line.Path)))
	}
	if u, err := url.ParseRequestURI(line.Original); line.Original != "" && err == nil && pathable(u.EscapedPath()) {
		targets = append(targets, core.Path(u.EscapedPath()))
	}
	return targets
}

// pathable reports whether an escaped path can be a target. One that is not is not
// cached either.
func pathable(path string) bool {
	return strings.HasPrefix(path, "/") && !naming.HasControl(path) && !strings.ContainsAny(path, "?#")
}

// named returns the targets that the answer names in Location and
// Content-Location, of the same host (RFC 9111 section 4.4), and by group (RFC 9875
// section 3). The scheme does not count: where a proxy in front ends TLS, it is
// another one here than in what the handler makes for the public.
func named(line *Line, c *Capture) (targets []core.Target) {
	if c.Header == nil {
		return nil
	}
	own := publicHost(line.Host)
	for _, base := range bases(line) {
		for _, name := range []string{"Location", "Content-Location"} {
			for _, value := range c.Header.Values(name) {
				p, ok := pathOf(base, value, own)
				if t := core.Path(p); ok && !slices.Contains(targets, t) {
					targets = append(targets, t)
				}
			}
		}
	}
	if !safe(line.Method) {
		targets = append(targets, groupTargets(line, c.Header)...)
	}
	return targets
}

// pathOf returns the path of a reference to a URL of a host.
func pathOf(base *url.URL, reference, host string) (path string, ok bool) {
	u, err := base.Parse(reference)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || publicHost(u.Host) != host {
		return "", false
	}
	if path = u.EscapedPath(); path == "" {
		path = "/"
	}
	return path, pathable(path)
}

// bases returns the URLs that a relative reference in the answer may be relative to:
// that of the request as the handler sees it, and as the client sent it.
func bases(line *Line) (list []*url.URL) {
	root := &url.URL{Scheme: line.Scheme, Host: line.Host, Path: "/"}
	for _, target := range []string{line.Path, line.Original} {
		if u, err := url.ParseRequestURI(target); err == nil && u.Host == "" {
			list = append(list, root.ResolveReference(u))
		}
	}
	if len(list) == 0 {
		list = append(list, root)
	}
	return list
}

// publicHost returns a host as it is compared: in lower case, without the port that is
// a scheme's own, be it the other one's (RFC 9110 section 4.2.3).
func publicHost(host string) string {
	host = strings.ToLower(host)
	if rest, ok := strings.CutSuffix(host, ":80"); ok {
		return rest
	}
	return strings.TrimSuffix(strings.TrimSuffix(host, ":443"), ":")
}

// writing is the scope of a write: what the handler invalidates itself is
// invalidated at once, and again at the end.
type writing struct {
	*loadscope.Scope

	mu   sync.Mutex
	more []core.Target
}

func writeScope(ctx context.Context, cache *core.Cache) *writing {
	w := &writing{Scope: bridge.Of(cache).NewScope()}
	w.Outer = loadscope.From(ctx)
	now := w.Invalidate
	w.Invalidate = func(ctx context.Context, targets any) error {
		err := now(ctx, targets)
		if err != nil && !errors.Is(err, core.ErrPending) {
			return err
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if list := targets.([]core.Target); len(w.more)+len(list) <= maxSaidTargets {
			w.more = append(w.more, list...)
		} else {
			w.more = []core.Target{core.All()}
		}
		return err
	}
	return w
}

// maxSaidTargets bounds what a handler's own invalidations add to its end. Beyond
// it the end invalidates everything.
const maxSaidTargets = 1024

func (w *writing) targets() []core.Target {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.more
}
