package httpcache

import "github.com/larderhq/larder/core"

// Names is a set of request fields, as coarse as the cache asks for them. A hit asks for
// some twenty fields, and a request has few of them: one walk over those that it has is
// cheaper than a search for each.
type Names uint8

// The members of Names.
const (
	upgradeName       Names = 1 << iota // Upgrade
	authorizationName                   // Authorization
	cookieName                          // Cookie
	credentialName                      // core.CredentialFields
	directiveName                       // Cache-Control, Pragma
	conditionName                       // conditionalFields
	originName                          // Origin
)

// AnyName is the set of all fields: nothing is known of those that a request has.
const AnyName = ^Names(0)

// Add adds a field by its canonical name.
func (n *Names) Add(name string) { *n |= memberOf(name) }

// has reports whether all of some members are in n.
func (n Names) has(members Names) bool { return n&members == members }

// memberOf returns the member of Names that a field is, or 0.
func memberOf(name string) Names {
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
	member Names
}

// members are the fields of Names, by slotOf.
var members = func() (members [1 << 8][]member) { //nolint:gochecknoglobals // a constant
	for is, names := range map[Names][]string{
		upgradeName:       {"Upgrade"},
		authorizationName: {"Authorization"},
		cookieName:        {"Cookie"},
		credentialName:    core.CredentialFields(),
		directiveName:     {"Cache-Control", "Pragma"},
		conditionName:     conditionalFields,
		originName:        {originField},
	} {
		for _, name := range names {
			slot := slotOf(name)
			members[slot] = append(members[slot], member{name, is})
		}
	}
	return members
}()

// A Credentialed is an Exchange that tells quickly what its request brings.
type Credentialed interface {
	// Names returns the members of Names that the request has, and may return others.
	Names() Names
	// Certified reports whether the client has shown a certificate.
	Certified() bool
}

// lacking returns what a request is known to have no field of.
func lacking(ex Exchange) Names {
	if x, ok := ex.(Credentialed); ok {
		return ^x.Names()
	}
	return 0
}
