package core

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"
)

// Classes are the kinds of data, by name. The class named "" is the default, used where a
// handler or map names none; it is the zero Class unless given. A name has up to
// [MaxKeyBytes] bytes and no control characters.
type Classes map[string]Class

// Class is the policy of one kind of data. The zero Class follows the lifetimes that HTTP
// responses state, as a proxy does.
//
// Durations are 0 or [MinDuration] to [MaxDuration]; a value out of range is a
// *[ConfigError]. All fields except HTTP can be changed while the cache is in use: see
// [Cache.SetClasses].
type Class struct {
	// TTL is the time for which a value is fresh, unless the value states its lifetime.
	// Default 0: an HTTP response that states no lifetime is stored only if a lifetime can be
	// estimated (HTTPPolicy.NoHeuristic). Maps need a TTL.
	TTL time.Duration
	// StaleWhileRevalidate is the time after its TTL for which a value is still answered
	// while it is refreshed in the background (stale-while-revalidate, RFC 5861 section 3). An
	// invalidated value is never answered, stale or not. It needs a TTL. Default 0: a
	// stale value is not answered.
	StaleWhileRevalidate time.Duration
	// StaleIfError is the time after its lifetime for which a value is answered in place of
	// an error (stale-if-error, RFC 5861 section 4), also where the response stated the
	// lifetime. Default 0: the error is answered.
	StaleIfError time.Duration
	// NegativeTTL is the time for which "not found" is remembered: [ErrNotFound] of a loader, or an error of MapOptions.NotFound, and
	// 404 and 410 of a handler that states no lifetime. Default 0: it is not, except
	// where a lifetime is estimated (HTTPPolicy.NoHeuristic).
	NegativeTTL time.Duration
	// LoadTimeout bounds a load. It is the deadline of loads that run detached (loaders,
	// background refreshes). A request waits that long for another request's load before
	// further loads run beside it. Default 30s.
	LoadTimeout time.Duration
	// ReplicaLag is for loads that read a replica of the database: a value that is loaded
	// within this time after an invalidation is answered but not stored. It also holds
	// for values made of such a load, such as a page by its handler: of several classes
	// the longest lag counts. Default 0.
	ReplicaLag time.Duration
	// Jitter shortens each TTL by a random fraction of up to Jitter, 0 to 1, so that
	// values that were stored together do not expire together. Default 0.
	Jitter float64
	// MaxEntryBytes is the largest body or encoded value that is stored, in bytes, at most
	// 1 GiB and Options.MaxBytes. The header fields of a response count as part of its body
	// beyond their first 4 KiB. A larger one is answered and not stored. Default 1 MiB.
	MaxEntryBytes int
	// MaxLoadsAfterError bounds the concurrent loads of one key after one of them has
	// failed, 1 to 65536. Default 4.
	MaxLoadsAfterError int
	// ConfirmWrites is for routes that write, and for [Map.Write]: while the shared tier
	// does not confirm an intent, such a route answers 503 before the handler runs, and
	// Write returns [ErrPending] before it saves. Default false: the handler runs, and
	// the invalidation is tried until it succeeds. Without a shared tier it has no
	// effect.
	ConfirmWrites bool
	// HTTP concerns responses only.
	HTTP HTTPPolicy
}

// HTTPPolicy is the policy for the responses of a class: their identity, and their store. It
// is plain data; package httpcache interprets it. The zero HTTPPolicy is the default.
type HTTPPolicy struct {
	// Query lists the query parameters that are part of the identity of a response. nil:
	// all are. Empty, not nil: none is.
	Query []string
	// IgnoreQuery lists the query parameters that are not part of the identity, for
	// tracking parameters: "gclid", or "utm_*" for all names that begin with "utm_". Only
	// the last byte may be "*". Names count in their case. The handler of a miss still
	// receives them, so that its response must not depend on them. Default none; it
	// cannot be combined with Query.
	IgnoreQuery []string
	// QueryOrder makes the order of different parameters part of the identity. By
	// default ?a=1&b=2 and ?b=2&a=1 are one resource. The order of equal names always
	// counts.
	QueryOrder bool
	// RankLanguages reads the Accept-Language of requests as a ranking by weight where
	// responses vary on it: order, case and whitespace do not count, and a response in
	// the language that a request ranks highest answers it. By default only whitespace
	// does not count, since many handlers read the order as a preference.
	RankLanguages bool
	// Headers lists request fields whose values are part of the identity, in addition to
	// those that responses name in Vary. Default none.
	Headers []string
	// Cookies lists the cookies whose values are part of the identity. Other cookies do
	// not count. Empty, not nil: none counts. nil: a request with a Cookie field is
	// answered from the cache, and its response stored, only if the response is marked as
	// public.
	Cookies []string
	// Credentials lists the request fields that identify the client, apart from
	// Authorization and Cookie. A response to a request with such a field is stored, and a
	// stored response answers such a request, in three cases only: the response is marked
	// as shareable (public, s-maxage, must-revalidate: RFC 9111 section 3.5); Headers names
	// the field, which is then part of the identity; or the route has an Identity. nil:
	// CredentialFields, which lists well-known fields and the certificates of clients
	// (ClientCertificate). Empty, not nil: none.
	Credentials []string
	// RequestDirectives lists the Cache-Control directives that requests may use:
	// "no-cache" (and Pragma), "no-store", "max-age", "min-fresh", "max-stale",
	// "only-if-cached" (RFC 9111 section 5.2.1). nil: all except "only-if-cached", so that
	// a browser's reload shows the current response. Concurrent reloads share one run of
	// the handler, which is a validation if the handler gave a validator. "no-store"
	// prevents the store of the response; a stored response still answers the request.
	// "only-if-cached" gets 504 if no response is stored. A proxy or load balancer in
	// front may treat the 504 as a failure of the server, so a class must name this
	// directive. Empty, not nil: none, for an API whose clients must not be able to make
	// the handler run.
	RequestDirectives []string
	// NoHeuristic does not estimate the lifetime of a response that states none, in a
	// class without TTL. Default false: a response with a Last-Modified is fresh for a
	// tenth of the time since then, at most a day (RFC 9111 section 4.2.2).
	NoHeuristic bool
	// AllowSetCookie stores responses with Set-Cookie, and sends the cookies to every
	// client. Default false: they are not stored.
	AllowSetCookie bool
	// NoETag leaves responses without a validator unchanged. Default false: a stored
	// response without ETag and Last-Modified gets a strong ETag made of its content, or
	// a weak one where middleware in front of the cache may encode it.
	NoETag bool
	// NoValidation runs the handler without conditions when a stored response has
	// expired. Default false: the handler gets a conditional request with the ETag or
	// Last-Modified of the stored response in place of the client's conditions, and a 304
	// renews the response (RFC 9111 section 4.3).
	NoValidation bool
	// Encodings are the content codings in which a response is also stored, for clients
	// that accept them: "zstd", "gzip", in order of preference. Default none. A response
	// stays unchanged if the handler has encoded it, if it is small, of a compressed type,
	// or marked no-transform.
	Encodings []string
	// MaxVariants bounds the responses of one resource, which differ by Vary, that an
	// instance keeps, 1 to 1024. Beyond it the oldest is removed, also from the shared
	// tier if this instance has stored it there. The tier holds at most as many for each
	// instance. Default 32.
	MaxVariants int
}

//nolint:gochecknoglobals // constants
var (
	requestDirectives = []string{"no-cache", "no-store", "max-age", "min-fresh", "max-stale", "only-if-cached"}
	encodings         = []string{"zstd", "gzip"}
)

// The defaults of [Class] and [HTTPPolicy].
const (
	DefaultLoadTimeout        = 30 * time.Second
	DefaultMaxEntryBytes      = 1 << 20
	DefaultMaxLoadsAfterError = 4
	DefaultMaxVariants        = 32
)

// resolve checks the classes, fills in their defaults and adds the default class.
func (cs Classes) resolve() (Classes, error) {
	classes := make(Classes, len(cs)+1)
	if _, ok := cs[""]; !ok {
		classes[""], _ = Class{}.resolve("")
	}
	for name, c := range cs {
		if name != "" {
			if err := checkName("Options.Classes", name); err != nil {
				return nil, err
			}
		}
		resolved, err := c.resolve(name)
		if err != nil {
			return nil, err
		}
		classes[strings.Clone(name)] = resolved
	}
	return classes, nil
}

// classField returns the name of a class's field in an error.
func classField(class, field string) string { return fmt.Sprintf("Classes[%q].%s", class, field) }

// resolve checks the class and fills in its defaults.
func (c Class) resolve(name string) (Class, error) {
	for _, check := range []func(Class, string) error{Class.checkDurations, Class.checkNumbers, Class.checkNames, Class.checkWords} {
		if err := check(c, name); err != nil {
			return c, err
		}
	}
	headers := make([]string, len(c.HTTP.Headers))
	for i, h := range c.HTTP.Headers {
		headers[i] = strings.Clone(http.CanonicalHeaderKey(h))
	}
	c.HTTP.Headers = headers
	c.HTTP.Credentials = canonicalCredentials(c.HTTP.Credentials)
	for _, list := range []*[]string{&c.HTTP.Query, &c.HTTP.IgnoreQuery, &c.HTTP.Cookies, &c.HTTP.RequestDirectives, &c.HTTP.Encodings} {
		*list = ownedList(*list)
	}
	c.LoadTimeout = cmp.Or(c.LoadTimeout, DefaultLoadTimeout)
	c.MaxEntryBytes = cmp.Or(c.MaxEntryBytes, DefaultMaxEntryBytes)
	c.MaxLoadsAfterError = cmp.Or(c.MaxLoadsAfterError, DefaultMaxLoadsAfterError)
	c.HTTP.MaxVariants = cmp.Or(c.HTTP.MaxVariants, DefaultMaxVariants)
	return c, nil
}

// checkDurations checks the durations of the class called name.
func (c Class) checkDurations(name string) error {
	for _, d := range []struct {
		field string
		d     time.Duration
	}{
		{"TTL", c.TTL}, {"StaleWhileRevalidate", c.StaleWhileRevalidate}, {"StaleIfError", c.StaleIfError}, {"NegativeTTL", c.NegativeTTL},
		{"LoadTimeout", c.LoadTimeout}, {"ReplicaLag", c.ReplicaLag},
	} {
		if err := checkDuration(classField(name, d.field), d.d); err != nil {
			return err
		}
	}
	if c.StaleWhileRevalidate > 0 && c.TTL == 0 {
		return &ConfigError{classField(name, "StaleWhileRevalidate"), c.StaleWhileRevalidate.String(), "0 in a class without TTL"}
	}
	return nil
}

// checkNumbers checks the numbers of the class called name.
func (c Class) checkNumbers(name string) error {
	switch {
	case !(c.Jitter >= 0 && c.Jitter <= 1): // so that NaN is refused
		return &ConfigError{classField(name, "Jitter"), c.Jitter, "0 to 1"}
	case c.MaxEntryBytes < 0 || c.MaxEntryBytes > 1<<30:
		return &ConfigError{classField(name, "MaxEntryBytes"), c.MaxEntryBytes, "0 (1 MiB) to 1 GiB"}
	case c.MaxLoadsAfterError < 0 || c.MaxLoadsAfterError > 1<<16:
		return &ConfigError{classField(name, "MaxLoadsAfterError"), c.MaxLoadsAfterError, "0 (4) to 65536"}
	case c.HTTP.MaxVariants < 0 || c.HTTP.MaxVariants > 1024:
		return &ConfigError{classField(name, "HTTP.MaxVariants"), c.HTTP.MaxVariants, "0 (32) to 1024"}
	}
	return nil
}

// checkNames checks the names of parameters, fields and cookies in the class called name.
func (c Class) checkNames(name string) error {
	for _, list := range []struct {
		field string
		names []string
		check func(field, s string) error
	}{
		{"HTTP.Query", c.HTTP.Query, checkName}, {"HTTP.IgnoreQuery", c.HTTP.IgnoreQuery, checkIgnored}, {"HTTP.Headers", c.HTTP.Headers, checkToken},
		{"HTTP.Cookies", c.HTTP.Cookies, checkToken}, {"HTTP.Credentials", c.HTTP.Credentials, checkCredential},
	} {
		for i, n := range list.names {
			if err := list.check(fmt.Sprintf("%s[%d]", classField(name, list.field), i), n); err != nil {
				return err
			}
		}
	}
	if len(c.HTTP.IgnoreQuery) > 0 && c.HTTP.Query != nil {
		return &ConfigError{classField(name, "HTTP.IgnoreQuery"), c.HTTP.IgnoreQuery, "none beside Query, which lists the parameters that count"}
	}
	return nil
}

// checkIgnored checks the name of a query parameter, or the beginning of one and "*".
func checkIgnored(field, s string) error {
	if err := checkName(field, s); err != nil {
		return err
	}
	if name, _ := strings.CutSuffix(s, "*"); name == "" || strings.Contains(name, "*") {
		return &ConfigError{field, strings.Clone(s), `a name, or its beginning and "*" (an empty HTTP.Query ignores all parameters)`}
	}
	return nil
}

// checkToken checks the name of a field or cookie: a token (RFC 9110, section 5.6.2; RFC 6265,
// section 4.1.1).
func checkToken(field, s string) error {
	if err := checkName(field, s); err != nil {
		return err
	}
	if (&http.Cookie{Name: s}).Valid() != nil {
		return &ConfigError{field, strings.Clone(s), "a token: letters, digits and !#$%&'*+-.^_`|~"}
	}
	return nil
}

// checkCredential checks a credential: a field name, or ClientCertificate.
func checkCredential(field, s string) error {
	if s == ClientCertificate {
		return nil
	}
	return checkToken(field, s)
}

// checkSizes checks that entries of the largest permitted size fit into an in-process tier of
// maxBytes.
func (cs Classes) checkSizes(maxBytes int64) error {
	for _, name := range slices.Sorted(maps.Keys(cs)) {
		if most := int64(cs[name].MaxEntryBytes); most > maxBytes && most != DefaultMaxEntryBytes {
			return &ConfigError{classField(name, "MaxEntryBytes"), most, fmt.Sprintf("0 (1 MiB), or at most Options.MaxBytes (%d)", maxBytes)}
		}
	}
	return nil
}

// checkWords checks the directives and encodings of the class called name.
func (c Class) checkWords(name string) error {
	for _, list := range []struct {
		field, allowed string
		words, known   []string
	}{
		{"HTTP.RequestDirectives", "directives of RFC 9111 section 5.2.1: ", c.HTTP.RequestDirectives, requestDirectives},
		{"HTTP.Encodings", "", c.HTTP.Encodings, encodings},
	} {
		for i, w := range list.words {
			if !slices.Contains(list.known, w) || slices.Contains(list.words[:i], w) {
				field := fmt.Sprintf("%s[%d]", classField(name, list.field), i)
				return &ConfigError{field, strings.Clone(w), list.allowed + strings.Join(list.known, ", ") + ", each once"}
			}
		}
	}
	return nil
}

// classSet is the classes between two calls of SetClasses.
type classSet struct {
	by       Classes // never modified
	revision uint64  // number of earlier sets
}

// SetClasses changes the classes while the cache is in use. classes are those of [New] as
// Options.Classes has them, changed or not, and any number of new ones. Every field of a
// Class may change, within these limits:
//
//   - A class cannot be removed: handlers and maps hold it. The default class is the zero Class
//     unless given.
//   - Its HTTP cannot change: it identifies stored responses.
//   - LoadTimeout is at most the longest of New. With a Remote, ReplicaLag is at most the
//     longest of New as well: other instances rely on it.
//   - TTL stays above 0 where a map is of the class.
//
// Everything is checked before anything changes: after an error, a *[ConfigError], the
// classes are as before. Operations that begin after SetClasses has returned follow the
// new classes. Operations in progress follow the classes of their begin, in everything
// that they load, store and refresh.
//
// Stored values keep the lifetime and windows of their store, until they are
// invalidated, replaced or refreshed. After a TTL has been shortened, [Cache.Invalidate]
// ends longer ones. Only the StaleIfError of a map applies to stored values, too, but
// extends no lifetime. Other instances have their own classes.
func (c *Cache) SetClasses(classes Classes) error {
	next, err := classes.resolve()
	if err != nil {
		return err
	}
	if err := next.checkSizes(c.opts.MaxBytes); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.classes.Load()
	for _, name := range slices.Sorted(maps.Keys(was.by)) {
		class, ok := next[name]
		if !ok {
			return &ConfigError{fmt.Sprintf("Classes[%q]", name), nil, "a class: an existing class cannot be removed"}
		}
		if err := unchanged(name, was.by[name].HTTP, class.HTTP); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(next)) {
		if err := c.within(name, next[name]); err != nil {
			return err
		}
	}
	for _, prefix := range slices.Sorted(maps.Keys(c.maps)) {
		if name := c.maps[prefix].class; next[name].TTL == 0 {
			return &ConfigError{classField(name, "TTL"), "0s", fmt.Sprintf("1ms or more: the map %q is of this class", prefix)}
		}
	}
	c.classes.Store(&classSet{by: next, revision: was.revision + 1})
	return nil
}

// unchanged returns an error if the policy of a class has changed.
func unchanged(name string, was, is HTTPPolicy) error {
	a, b := reflect.ValueOf(was), reflect.ValueOf(is)
	for i := range a.NumField() {
		if old, now := a.Field(i).Interface(), b.Field(i).Interface(); !reflect.DeepEqual(old, now) {
			field := classField(name, "HTTP."+a.Type().Field(i).Name)
			return &ConfigError{field, now, fmt.Sprintf("%#v, as it is: a class's HTTP cannot be changed", old)}
		}
	}
	return nil
}

// within returns an error if a class exceeds the limits with which the cache was made: the
// tier remembers a lapsed intent for the longest load, and every invalidation leaves a mark
// for the longest lag.
func (c *Cache) within(name string, class Class) error {
	limit := func(field string, d, most time.Duration) error {
		return &ConfigError{classField(name, field), d.String(), fmt.Sprintf("up to %v, the longest of any class that the cache was made with", most)}
	}
	switch {
	case class.LoadTimeout > c.longestLoad:
		return limit("LoadTimeout", class.LoadTimeout, c.longestLoad)
	case c.opts.Remote != nil && class.ReplicaLag > c.replicaLag:
		return limit("ReplicaLag", class.ReplicaLag, c.replicaLag)
	}
	return nil
}

// classRevision returns how many calls of SetClasses have succeeded.
func (c *Cache) classRevision() uint64 { return c.classes.Load().revision }

// ClientCertificate stands in HTTPPolicy.Credentials for the certificate that a client
// has shown on its TLS connection.
const ClientCertificate = "client certificate"

// CredentialFields returns the default of HTTPPolicy.Credentials: the request fields in
// which well-known servers, gateways and authenticating proxies name the user, and
// [ClientCertificate]. An app appends its own field to this list. The list is the
// caller's own.
func CredentialFields() []string { return slices.Clone(credentialFields) }

// credentialFields are in canonical form. Tokens against cross-site requests
// (X-Csrf-Token) are not in the list: they identify no client that a cookie does not.
var credentialFields = []string{ //nolint:gochecknoglobals // a constant
	ClientCertificate,
	"Proxy-Authorization",              // RFC 9110 section 11.7.2
	"Dpop",                             // RFC 9449
	"Signature",                        // RFC 9421
	"Client-Cert", "Client-Cert-Chain", // RFC 9440
	"X-Api-Key",                         // AWS API Gateway, and the example of OpenAPI
	"Api-Key",                           // Azure
	"Apikey",                            // Kong's key-auth
	"Ocp-Apim-Subscription-Key",         // Azure API Management
	"X-Goog-Api-Key",                    // Google Cloud
	"X-Amz-Security-Token",              // AWS Signature Version 4
	"X-Auth-Token",                      // OpenStack, Spring Session
	"X-Auth-Key",                        // Cloudflare's API
	"X-Access-Token", "X-Session-Token", // as many APIs call a bearer token; Ory Kratos
	"Private-Token", "Job-Token", "Deploy-Token", // GitLab
	"X-Vault-Token", "X-Consul-Token", // HashiCorp
	"X-Shopify-Access-Token",                                                                       // Shopify
	"Cf-Access-Jwt-Assertion", "Cf-Access-Client-Id", "Cf-Access-Client-Secret", "Cf-Access-Token", // Cloudflare Access
	"X-Goog-Iap-Jwt-Assertion", "X-Goog-Authenticated-User-Id", "X-Goog-Authenticated-User-Email", // Google's Identity-Aware Proxy
	"X-Amzn-Oidc-Data", "X-Amzn-Oidc-Identity", "X-Amzn-Oidc-Accesstoken", // AWS load balancers
	"X-Amzn-Mtls-Clientcert", "X-Amzn-Mtls-Clientcert-Leaf", "X-Amzn-Mtls-Clientcert-Subject", "X-Amzn-Mtls-Clientcert-Serial-Number",
	"X-Ms-Client-Principal", "X-Ms-Client-Principal-Id", "X-Ms-Client-Principal-Name", "X-Ms-Token-Aad-Access-Token", // Azure App Service
	"X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Groups", "X-Forwarded-Preferred-Username", "X-Forwarded-Access-Token", // oauth2-proxy, Traefik
	"X-Auth-Request-User", "X-Auth-Request-Email", "X-Auth-Request-Groups", "X-Auth-Request-Preferred-Username", "X-Auth-Request-Access-Token",
	"Remote-User", "Remote-Email", "Remote-Groups", "Remote-Name", // Authelia
	"X-Remote-User", "X-Remote-Group", // Kubernetes
	"X-Webauth-User",                          // Grafana
	"X-Authentik-Username", "X-Authentik-Jwt", // authentik
	"X-Pomerium-Jwt-Assertion", "X-Pomerium-Claim-Email", // Pomerium
	"X-Jwt-Assertion",                                                 // WSO2
	"Tailscale-User-Login",                                            // Tailscale
	"X-Forwarded-Client-Cert",                                         // Envoy, Istio
	"X-Forwarded-Tls-Client-Cert", "X-Forwarded-Tls-Client-Cert-Info", // Traefik
	"Ssl-Client-Cert", "Ssl-Client-Subject-Dn", // ingress-nginx
	"X-Ssl-Client-Cert", "X-Client-Cert", // HAProxy, nginx, as their guides have it
}

// canonicalCredentials returns a copy of a list with canonical names; nil stays nil.
func canonicalCredentials(list []string) []string {
	list = slices.Clone(list)
	for i, name := range list {
		if name != ClientCertificate {
			list[i] = http.CanonicalHeaderKey(name)
		}
	}
	return list
}
