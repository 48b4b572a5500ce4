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
	parts  bridge.Parts // of cache
	engine *coherence.Engine
	class  core.Class // its HTTP never changes

	className string
	// routeParts stand in every key of the route: its class and tags. So routes of
	// different handlers that a client can confuse, by a Host of its choice for
	// one, do not share entries.
	routeParts []byte
	tags       []template
	identity   func(Exchange) (string, bool)
	skip       func(Exchange) bool
	keepParam  func(name string) bool
	// credentials are the request fields that count as Authorization does: those of
	// the class that are not part of the identity.
	credentials []string
	// otherCredentials are those that are no members of FieldSet.
	otherCredentials []string
	gate             local.Gate
	log              *slog.Logger
	budget           time.Duration // of the shared tier
	once             *warnings

	// A Route has its class as it was at a revision. The latest one is shared by those
	// of one route.
	revision uint64
	latest   *atomic.Pointer[Route]

	sending *sync.Map // of resources' keys: channels that are closed when an answer has been sent
}

// now returns the route with its class as it is, for one request from its beginning
// to its end.
func (rt *Route) now() *Route {
	revision := rt.parts.ClassRevision()
	if is := rt.latest.Load(); is.revision == revision {
		return is
	}
	is := *rt
	is.revision = revision
	is.class, _ = rt.cache.Class(rt.className) // none is ever taken out
	is.gate = gateOf(&is.class)
	rt.latest.Store(&is)
	return &is
}

// same reports whether they are one route, whichever class they have.
func (rt *Route) same(other *Route) bool { return rt.latest == other.latest }

func gateOf(class *core.Class) local.Gate {
	return local.Gate{MaxLoadsAfterError: class.MaxLoadsAfterError, Wait: class.LoadTimeout, ReplicaLag: class.ReplicaLag}
}

// NewRoute makes a cached route, or says in a *core.ConfigError what is wrong.
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
		cache: c.Cache, parts: parts, engine: parts.Engine, class: class, className: strings.Clone(c.Class),
		identity: c.Identity, skip: c.Skip,
		gate: gateOf(&class), log: o.Logger, budget: o.RemoteBudget, once: new(warnings),
		revision: revision, latest: new(atomic.Pointer[Route]), sending: new(sync.Map),
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
	if rt.credentials = class.HTTP.Credentials; rt.credentials == nil {
		rt.credentials = core.CredentialFields()
	}
	rt.credentials = slices.DeleteFunc(slices.Clone(rt.credentials), func(name string) bool {
		return slices.Contains(class.HTTP.Headers, name)
	})
	rt.otherCredentials = others(rt.credentials)
	rt.latest.Store(rt)
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

// noParameter says why a request may lack a parameter.
const noParameter = "the route's pattern must name it, the middleware stand behind the router, and the router set it (gorilla/mux: nethttp.PathValues(mux.Vars))"

func (rt *Route) warnMissing(name string, l *Line) {
	if rt.once.first(name) {
		rt.log.Warn("larder: a route is not cached: its tag names a path parameter that the request does not have: "+noParameter,
			"parameter", name, "path", fmt.Sprintf("%.200q", l.Path))
	}
}
