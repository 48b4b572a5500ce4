package httpcache

import (
	"slices"
	"strings"

	"github.com/larderhq/larder/core"
)

// credentials says what a request brings that makes its response its own.
type credentials struct {
	authorization bool
	by            string   // what counts as Authorization does; "": that itself
	cookies       bool     // that the class does not account for
	lacks         FieldSet // the fields that the request is known not to have
	identity      string   // that Route.Identity returned
}

func (c credentials) any() bool { return c.authorization || c.cookies }

// reason returns why a response to a request with credentials is not stored.
func (c *credentials) reason() string {
	if c.by != "" {
		return c.by
	}
	return "authorization"
}

// credentialsOf reads a request's credentials. A field that the class names is part of the
// key and does not count.
func (rt *routeSnapshot) credentialsOf(ex Exchange, lacks FieldSet) (c credentials) {
	http := &rt.class.HTTP
	c.lacks = lacks
	c.cookies = !lacks.has(cookieName) && http.Cookies == nil && len(ex.Values("Cookie")) > 0
	if !lacks.has(authorizationName) && len(ex.Values("Authorization")) > 0 {
		c.authorization = true
		return c
	}
	names := rt.credentials
	if lacks.has(credentialName) { // as nearly all requests
		names = rt.otherCredentials
	}
	for _, name := range names {
		if brings(ex, name) {
			c.authorization, c.by = true, reasonOf(name)
			break
		}
	}
	return c
}

// brings reports whether a request has a credential.
func brings(ex Exchange, name string) bool {
	if name == core.ClientCertificate {
		x, ok := ex.(FieldReporter)
		return ok && x.HasClientCertificate()
	}
	return len(ex.Values(name)) > 0
}

// others returns the credentials that are no member of FieldSet.
func others(credentials []string) (names []string) {
	for _, name := range credentials {
		if name == core.ClientCertificate || !slices.Contains(core.CredentialFields(), name) {
			names = append(names, name)
		}
	}
	return names
}

// reasonOf is how Cache-Status calls a credential.
func reasonOf(name string) string { return strings.ReplaceAll(strings.ToLower(name), " ", "-") }
