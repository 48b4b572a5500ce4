package httpcache

import (
	"strings"

	"github.com/larderhq/larder/core"
)

// credentials says what a request brings that makes its response its own.
type credentials struct {
	authorization bool
	by            string // what counts as Authorization does; "": that itself
	cookies       bool   // that the class does not account for
}

func (c credentials) any() bool { return c.authorization || c.cookies }

// reason returns why a response to a request with credentials is not stored.
func (c *credentials) reason() string {
	if c.by != "" {
		return c.by
	}
	return "authorization"
}

// A Credentialed is an Exchange that knows quickly whether its request says who asks.
type Credentialed interface {
	// AnyField returns the canonical name of a request field that match is true of,
	// or "".
	AnyField(match func(name string) bool) string
	// Certified reports whether the client has shown a certificate.
	Certified() bool
}

// credentialsOf reads what a request says of who asks. What the class names is part of
// the identity and needs no care.
func (rt *Route) credentialsOf(ex Exchange) (c credentials) {
	http := &rt.class.HTTP
	c.cookies = http.Cookies == nil && len(ex.Values("Cookie")) > 0
	if len(ex.Values("Authorization")) > 0 {
		c.authorization = true
		return c
	}
	x, _ := ex.(Credentialed)
	if http.Credentials == nil && x != nil {
		if !x.Certified() && x.AnyField(wellKnown) == "" {
			return c // as nearly all requests
		}
	}
	for _, name := range rt.credentials {
		var there bool
		if name == core.ClientCertificate {
			there = x != nil && x.Certified()
		} else {
			there = len(ex.Values(name)) > 0
		}
		if there {
			c.authorization, c.by = true, reasonOf(name)
			break
		}
	}
	return c
}

// reasonOf is how Cache-Status calls a credential.
func reasonOf(name string) string { return strings.ReplaceAll(strings.ToLower(name), " ", "-") }

// wellKnown reports whether a field is one of core.CredentialFields.
func wellKnown(name string) bool {
	// Most requests have no field whose name has one of these beginnings.
	switch name[0] {
	case 'X':
		return strings.HasPrefix(name, "X-") && credentialNames[name]
	case 'A', 'C', 'D', 'J', 'O', 'P', 'R', 'S', 'T':
		switch name {
		case "Accept", "Accept-Encoding", "Accept-Language", "Cache-Control", "Connection", "Cookie", "Content-Type", "Content-Length",
			"Priority", "Pragma", "Referer", "Range", "Te", "Dnt":
			return false
		}
		return !strings.HasPrefix(name, "Sec-") && credentialNames[name]
	}
	return false
}

var credentialNames = func() map[string]bool { //nolint:gochecknoglobals // a constant
	names := map[string]bool{}
	for _, name := range core.CredentialFields() {
		names[name] = true
	}
	return names
}()
