package httpcache

import "github.com/larderhq/larder/core"

// FieldSet is a set of the request fields that a hit reads, in groups. A hit reads some
// twenty fields, and a request has few of them: one walk over the request's fields is
// cheaper than a search for each.
type FieldSet uint8

// The members of FieldSet.
const (
	upgradeName       FieldSet = 1 << iota // Upgrade
	authorizationName                      // Authorization
	cookieName                             // Cookie
	credentialName                         // core.CredentialFields
	directiveName                          // Cache-Control, Pragma
	conditionName                          // conditionalFields
	originName                             // Origin
	forwardedName                          // forwardingFields
)

// forwardingFields are the fields from which frameworks take the scheme or the host of a
// request.
var forwardingFields = []string{ //nolint:gochecknoglobals // a constant
	"X-Forwarded-Proto", "X-Forwarded-Protocol", "X-Forwarded-Ssl", "X-Url-Scheme", "X-Forwarded-Host",
}

// AllFields is the set of all fields, for a request whose fields are unknown.
const AllFields = ^FieldSet(0)

// Add adds a field by its canonical name.
func (n *FieldSet) Add(name string) { *n |= memberOf(name) }

// Forwarding reports whether the set has the fields from which frameworks take a scheme or
// a host: X-Forwarded-Proto, X-Forwarded-Protocol, X-Forwarded-Ssl, X-Url-Scheme and
// X-Forwarded-Host.
func (n FieldSet) Forwarding() bool { return n.has(forwardedName) }

// has reports whether all of some members are in n.
func (n FieldSet) has(members FieldSet) bool { return n&members == members }

// memberOf returns the member of FieldSet that a field is, or 0.
func memberOf(name string) FieldSet {
	if name == "" {
		return 0
	}
	for _, m := range members[slotOf(name)] {
		if m.name == name {
			return m.member
		}
	}
	return 0
}

// slotOf returns where a name is in members, if it is there. Names of the same length that
// begin and end alike, as those of credentials do, differ in between.
func slotOf(name string) uint8 {
	n := len(name)
	return uint8(n) + 5*name[0] + 11*name[n/2] + 31*name[n-1] //nolint:gosec // it wraps
}

type member struct {
	name   string
	member FieldSet
}

// members are the fields of FieldSet, by slotOf.
var members = func() (members [1 << 8][]member) { //nolint:gochecknoglobals // a constant
	for is, names := range map[FieldSet][]string{
		upgradeName:       {"Upgrade"},
		authorizationName: {"Authorization"},
		cookieName:        {"Cookie"},
		credentialName:    core.CredentialFields(),
		directiveName:     {"Cache-Control", "Pragma"},
		conditionName:     conditionalFields,
		originName:        {originField},
		forwardedName:     forwardingFields,
	} {
		for _, name := range names {
			slot := slotOf(name)
			members[slot] = append(members[slot], member{name, is})
		}
	}
	return members
}()

// A FieldReporter is an Exchange that reports the fields of its request at once.
type FieldReporter interface {
	// Fields returns the members of FieldSet that the request has, and may return others.
	Fields() FieldSet
	// HasClientCertificate reports whether the client has shown a certificate.
	HasClientCertificate() bool
}

// lacking returns what a request is known to have no field of.
func lacking(ex Exchange) FieldSet {
	if x, ok := ex.(FieldReporter); ok {
		return ^x.Fields()
	}
	return 0
}
