package httpcache

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/bridge"
	"github.com/larderhq/larder/core/internal/coherence"
	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/naming"
)

// Config is the configuration of a cached route. RouteMiddleware makes it from an adapter's
// Route.
type Config struct {
	Cache *core.Cache
	Class string
	Tags  []string
	// Identity returns the user that a response belongs to. It becomes part of the key;
	// a response may then be private, and its request may have credentials. ok is false
	// for a request that bypasses the cache. nil: responses are shared by all users.
	Identity func(Exchange) (id string, ok bool)
	// Skip reports whether a request bypasses the cache. nil: none does.
	Skip func(Exchange) bool
	// Reads reports whether a POST with this content only reads. nil: none does.
	Reads func(ex Exchange, content []byte) bool
}

// Route is a cached route. It is safe for concurrent use.
type Route struct {
	cache     *core.Cache
	parts     bridge.Parts // of cache
	engine    *coherence.Engine
	log       *slog.Logger
	budget    time.Duration // of the shared tier
	className string
	tags      []template
	identity  func(Exchange) (string, bool)
	skip      func(Exchange) bool
	reads     func(Exchange, []byte) bool
	keyRules
	warned  warnings
	latest  atomic.Pointer[routeSnapshot]
	sending sync.Map // by a resource's key: a channel that is closed when an answer has been sent
}

// keyRules are the parts of a route's configuration that decide on keys and on
// credentials. They come from the class's HTTPPolicy, which never changes.
type keyRules struct {
	// routeParts stand in every key of the route: its class and tags. Routes of
	// different handlers that a client can confuse, for example by its choice of Host,
	// therefore share no entries.
	routeParts []byte
	keepParam  func(name string) bool
	// credentials are the request fields that count as Authorization does: those of
	// the class that are not part of the identity.
	credentials []string
	// otherCredentials are the credentials that are not members of FieldSet.
	otherCredentials []string
}

// routeSnapshot is a route with its class at one revision. A request uses one snapshot
// from its beginning to its end.
type routeSnapshot struct {
	*Route
	revision uint64
	class    core.Class
	gate     local.Gate
}

// snapshot returns the route with the current revision of its class.
func (rt *Route) snapshot() *routeSnapshot {
	revision := rt.parts.ClassRevision()
	if latest := rt.latest.Load(); latest.revision == revision {
		return latest
	}
	class, _ := rt.cache.Class(rt.className) // classes are never removed
	latest := &routeSnapshot{Route: rt, revision: revision, class: class, gate: gateOf(&class)}
	rt.latest.Store(latest)
	return latest
}

func gateOf(class *core.Class) local.Gate {
	return local.Gate{MaxLoadsAfterError: class.MaxLoadsAfterError, Wait: class.LoadTimeout, ReplicaLag: class.ReplicaLag}
}

// NewRoute makes a cached route. It returns a *core.ConfigError for a nil cache, an unknown
// class or a malformed tag.
func NewRoute(c Config) (*Route, error) {
	if c.Cache == nil {
		return nil, &core.ConfigError{Field: "cache", Value: nil, Allowed: "a cache made by core.New"}
	}
	parts := bridge.Of(c.Cache)
	revision, o := parts.ClassRevision(), c.Cache.Options()
	class, err := c.Cache.Class(c.Class)
	if err != nil {
		return nil, err
	}
	rt := &Route{
		cache: c.Cache, parts: parts, engine: parts.Engine, className: strings.Clone(c.Class),
		identity: c.Identity, skip: c.Skip, reads: c.Reads, log: o.Logger, budget: o.RemoteBudget,
	}
	if rt.tags, err = parseTemplates(c.Tags, c.Identity != nil); err != nil {
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
	if ignored := class.HTTP.IgnoreQuery; len(ignored) > 0 {
		rt.keepParam = func(name string) bool { return !ignores(ignored, name) }
	}
	if rt.credentials = class.HTTP.Credentials; rt.credentials == nil {
		rt.credentials = core.CredentialFields()
	}
	rt.credentials = slices.DeleteFunc(slices.Clone(rt.credentials), func(name string) bool {
		return slices.Contains(class.HTTP.Headers, name)
	})
	rt.otherCredentials = others(rt.credentials)
	rt.latest.Store(&routeSnapshot{Route: rt, revision: revision, class: class, gate: gateOf(&class)})
	return rt, nil
}

// ignores reports whether a list of HTTPPolicy.IgnoreQuery has the name of a parameter.
func ignores(list []string, name string) bool {
	return slices.ContainsFunc(list, func(pattern string) bool {
		if beginning, ok := strings.CutSuffix(pattern, "*"); ok {
			return strings.HasPrefix(name, beginning)
		}
		return name == pattern
	})
}

// warnings are the subjects that have been logged.
type warnings struct {
	mu   sync.Mutex
	said map[string]bool
}

// first reports whether about has not been logged yet. The subjects are names in the
// route's own templates, which bound the map.
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
	tags := []string{naming.Path(l.Path)}
	if l.Original != "" {
		if u, err := url.ParseRequestURI(l.Original); err == nil {
			if tag := naming.Path(u.EscapedPath()); tag != tags[0] {
				tags = append(tags, tag)
			}
		}
	}
	return tags
}

// noParameter lists the causes of a missing parameter.
const noParameter = "the route's pattern must name it, the middleware must be behind the router, and the router must set it (gorilla/mux: nethttp.PathValues(mux.Vars)) and not have decoded it twice; the user that Identity returns is {identity}"

func (rt *Route) warnMissing(name string, l *Line) {
	if rt.warned.first(name) {
		rt.log.Warn("larder: a route is not cached: its tag names a path parameter that the request does not have: "+noParameter,
			"parameter", name, "path", fmt.Sprintf("%.200q", l.Path))
	}
}
