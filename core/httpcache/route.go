package httpcache

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"sync"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/engine"
)

// Config is what a cached route is made of. Adapters fill it in from their own
// Route.
type Config struct {
	Cache *core.Cache
	Class string
	Tags  []string
	// Identity says whose response it is, for routes whose responses are one
	// user's. It becomes part of the key, and a response may then be private and
	// its request may bring credentials. Not ok: the request is left alone.
	Identity func(Exchange) (id string, ok bool)
	// Skip leaves a request alone.
	Skip func(Exchange) bool
}

// Route is a cached route. It is safe for concurrent use.
type Route struct {
	cache  *core.Cache
	engine *engine.Engine
	class  core.Class
	// routeParts stand in every key of the route: its class and tags. So routes of
	// different handlers that a client can confuse, by a Host of its choice for
	// one, do not share entries.
	routeParts []byte
	tags       []template
	identity   func(Exchange) (string, bool)
	skip       func(Exchange) bool
	keepParam  func(name string) bool
	gate       engine.Gate
	log        *slog.Logger
	once       warnings
}

// NewRoute makes a cached route, or says in a *core.ConfigError what is wrong.
func NewRoute(c Config) (*Route, error) {
	if c.Cache == nil {
		return nil, &core.ConfigError{Field: "cache", Value: nil, Allowed: "a cache made by core.New"}
	}
	class, err := c.Cache.Class(c.Class)
	if err != nil {
		return nil, err
	}
	rt := &Route{
		cache: c.Cache, engine: c.Cache.Engine(), class: class,
		identity: c.Identity, skip: c.Skip,
		gate: engine.Gate{MaxLoads: class.MaxLoads, Wait: class.LoadTimeout},
		log:  c.Cache.Options().Logger,
	}
	if rt.tags, err = parseTemplates(c.Tags); err != nil {
		return nil, err
	}
	rt.routeParts = appendPart(nil, c.Class)
	rt.routeParts = binary.AppendUvarint(append(rt.routeParts, partEnd, partCount), uint64(len(c.Tags)))
	for _, tag := range c.Tags {
		rt.routeParts = appendPart(rt.routeParts, tag)
	}
	if params := class.HTTP.Query; params != nil {
		rt.keepParam = func(name string) bool { return slices.Contains(params, name) }
	}
	return rt, nil
}

// warnings says things once.
type warnings struct {
	mu   sync.Mutex
	said map[string]bool
}

// first reports whether about has not been said yet. What is said comes from the
// route's own templates, so the map is bounded by them.
func (w *warnings) first(about string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.said[about] {
		return false
	}
	if w.said == nil {
		w.said = make(map[string]bool)
	}
	w.said[about] = true
	return true
}

// pathTags returns the tags that every response of this URL path carries.
func pathTags(l *Line) []string {
	tags := []string{core.PathTag(l.Path)}
	if l.Original != "" {
		if u, err := url.ParseRequestURI(l.Original); err == nil {
			if tag := core.PathTag(u.EscapedPath()); tag != tags[0] {
				tags = append(tags, tag)
			}
		}
	}
	return tags
}

func (rt *Route) warnMissing(name string, l *Line) {
	if rt.once.first(name) {
		rt.log.Warn("larder: a route is not cached: its tag names a path parameter that the request does not have",
			"parameter", name, "path", fmt.Sprintf("%.200q", l.Path))
	}
}
