package httpcache

import (
	"fmt"
	"strings"

	"github.com/larderhq/larder/core"
)

// user is the identity of a request that writes.
type user struct {
	id    string
	known bool
}

// userOf asks a route's Identity. It may be nil.
func userOf(identity func(Exchange) (string, bool), ex Exchange) (u user) {
	if identity == nil {
		return u
	}
	id, known := identity(ex)
	return user{id: strings.Clone(id), known: known} // it may be a view of the request
}

// nobody reports whether an identity is the zero value of a type that applications keep users in,
// as text. An Identity in front of the authentication returns it for every request. It is one
// identity like any other for requests without credentials: those of clients that have not
// logged in.
func nobody(id string) bool {
	switch id {
	case "", "0", "<nil>", "00000000-0000-0000-0000-000000000000":
		return true
	}
	return false
}

// behindAuthentication is the remedy for an Identity that knows no user.
const behindAuthentication = "the authentication must run in front of the cache; a client that has not logged in is one more identity, such as \"nobody\""

// warnUnknown logs once that an Identity knows no user of a request that has credentials. It is how
// the cache in front of the authentication shows.
func (rt *Route) warnUnknown(brings credentials) {
	if !brings.any() || !rt.warned.first("{identity}") {
		return
	}
	by := "cookie"
	if brings.authorization {
		by = brings.reason()
	}
	rt.log.Warn("larder: a response is not stored: the request has credentials, and Identity returned no user: "+behindAuthentication,
		"class", rt.className, "credential", by)
}

// lateTargets returns the tags of the user that Identity knows only when the handler has returned:
// the authentication runs behind the cache. before is what it knew earlier.
func (iv *Invalidator) lateTargets(ex Exchange, before user) (targets []core.Target) {
	if iv.identity == nil || before.known && !nobody(before.id) {
		return nil
	}
	now := userOf(iv.identity, ex)
	if !now.known {
		if iv.warned.first("{identity}") {
			iv.cache.Options().Logger.Warn("larder: a write has succeeded for which Identity returned no user: no tag with {identity} was invalidated: " + behindAuthentication)
		}
		return nil
	}
	for _, t := range iv.tags {
		if !t.personal {
			continue
		}
		if tag, missing := t.resolve(ex, now.id); missing == "" {
			targets = append(targets, core.Tag(tag))
		}
	}
	return targets
}

// warnMissing logs once that a write was refused for want of a parameter.
func (iv *Invalidator) warnMissing(name string, l *Line) {
	if iv.warned.first(name) {
		iv.cache.Options().Logger.Warn("larder: a write is refused: a tag of its route names a path parameter that the request does not have: "+noParameter,
			"parameter", name, "path", fmt.Sprintf("%.200q", l.Path))
	}
}
