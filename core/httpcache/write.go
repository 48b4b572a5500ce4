package httpcache

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/scope"
)

// Invalidator is a route that changes what others cache.
type Invalidator struct {
	cache *core.Cache
	tags  []template
}

// NewInvalidator makes an invalidating route, or says in a *core.ConfigError what
// is wrong.
func NewInvalidator(cache *core.Cache, tags []string) (*Invalidator, error) {
	if cache == nil {
		return nil, &core.ConfigError{Field: "cache", Value: nil, Allowed: "a cache made by core.New"}
	}
	if len(tags) == 0 {
		return nil, &core.ConfigError{Field: "tags", Value: 0, Allowed: "at least one"}
	}
	templates, err := parseTemplates(tags)
	if err != nil {
		return nil, err
	}
	return &Invalidator{cache: cache, tags: templates}, nil
}

// Serve runs the handler between the beginning and the end of a write intent on
// the route's tags and the request's own path. The client sees the end of the
// answer when the invalidation has happened.
func (iv *Invalidator) Serve(ex Exchange) error {
	line := ex.Line()
	targets := make([]core.Target, 0, len(iv.tags)+2)
	for _, t := range iv.tags {
		tag, missing := t.resolve(ex)
		if missing != "" {
			// Before the handler: a write that could not be announced must not happen.
			ex.Reply(Answer{
				Status: http.StatusInternalServerError,
				Fields: []Field{{Name: "Content-Type", Values: []string{"text/plain; charset=utf-8"}}},
				Body:   []byte("larder: this route's tag " + t.text + " names a path parameter that the request does not have\n"),
			})
			return nil
		}
		targets = append(targets, core.Tag(tag))
	}
	return runWrite(iv.cache, ex, &line, targets)
}

// serveUnsafe handles an unsafe method on a cached route: if it succeeds, its URI
// and the route's tags are invalidated (RFC 9111 section 4.4).
func (rt *Route) serveUnsafe(ex Exchange, line *Line) error {
	var targets []core.Target
	for _, t := range rt.tags {
		if tag, missing := t.resolve(ex); missing == "" {
			targets = append(targets, core.Tag(tag))
		}
	}
	rt.engine.Count.Bypassed.Add(1)
	return runWrite(rt.cache, ex, line, targets)
}

// holdOfWrites is how much of a write's answer is held back until the
// invalidation has happened. Longer ones are sent but for the last byte.
const holdOfWrites = 4 << 10

func runWrite(cache *core.Cache, ex Exchange, line *Line, targets []core.Target) (err error) {
	ctx := ex.Context()
	if !safe(line.Method) {
		for _, tag := range ownPaths(line) {
			targets = append(targets, core.Path(tag))
		}
	}
	if len(targets) == 0 {
		return ex.Run(ctx, nil)
	}
	intent, err := cache.Begin(context.WithoutCancel(ctx), targets...)
	if err != nil { // closed, or a tag that cannot be one: the latter was refused before
		return ex.Run(ctx, nil)
	}
	said := writeScope(cache, intent)
	c := &Capture{Limit: holdOfWrites, Tail: true}
	returned := false
	defer func() {
		if !returned { // a panic, or Goexit: the write may have been committed
			said.end(ctx, nil)
		}
	}()
	err = ex.Run(scope.With(ctx, said.Scope), c)
	returned = true
	status := c.Status
	if err != nil {
		status = errorStatus(err)
	}
	if status >= 400 && status < 500 {
		intent.Abandon()
	} else {
		said.end(ctx, otherPaths(line, c))
	}
	ex.Release(nil)
	return err
}

// safe reports whether a method is safe (RFC 9110 section 9.2.1).
func safe(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return false
}

// ownPaths returns the paths of the request's own URI.
func ownPaths(line *Line) []string {
	var paths []string
	add := func(p string) {
		if strings.HasPrefix(p, "/") && !core.HasControl(p) {
			paths = append(paths, strings.Clone(p))
		}
	}
	add(line.Path)
	if line.Original != "" {
		if u, err := url.ParseRequestURI(line.Original); err == nil {
			add(u.EscapedPath())
		}
	}
	return paths
}

// otherPaths returns the targets that the answer names in Location and
// Content-Location, of the same origin (RFC 9111 section 4.4).
func otherPaths(line *Line, c *Capture) (targets []core.Target) {
	if c.Header == nil {
		return nil
	}
	base := &url.URL{Scheme: line.Scheme, Host: line.Host, Path: "/"}
	if u, err := url.ParseRequestURI(line.Path); err == nil {
		base = base.ResolveReference(u)
	}
	for _, name := range []string{"Location", "Content-Location"} {
		for _, value := range c.Header.Values(name) {
			u, err := base.Parse(value)
			if err != nil || !strings.EqualFold(u.Scheme, line.Scheme) || !strings.EqualFold(u.Host, line.Host) {
				continue
			}
			if p := u.EscapedPath(); strings.HasPrefix(p, "/") {
				targets = append(targets, core.Path(p))
			}
		}
	}
	return targets
}

// writing is the scope of a write: what the handler invalidates itself is
// invalidated at once, and again at the end.
type writing struct {
	*scope.Scope
	intent *core.Intent

	mu   sync.Mutex
	more []core.Target
}

func writeScope(cache *core.Cache, intent *core.Intent) *writing {
	w := &writing{Scope: cache.Scope(), intent: intent}
	now := w.Invalidate
	w.Invalidate = func(ctx context.Context, targets any) error {
		if err := now(ctx, targets); err != nil {
			return err
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if list := targets.([]core.Target); len(w.more)+len(list) <= maxSaidTargets {
			w.more = append(w.more, list...)
		} else {
			w.more = []core.Target{core.All()}
		}
		return nil
	}
	return w
}

// maxSaidTargets bounds what a handler's own invalidations add to its end. Beyond
// it the end invalidates everything.
const maxSaidTargets = 1024

func (w *writing) end(ctx context.Context, more []core.Target) {
	w.mu.Lock()
	more = append(more, w.more...)
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	// All of these have been checked when they were named.
	_ = w.intent.End(ctx, more...)
}
