package field

import (
	"net/textproto"
	"strings"
)

// CacheControl is a Cache-Control field of a request or a response, RFC 9111
// section 5.2, with the extensions of RFC 5861 and RFC 8246.
type CacheControl struct {
	NoStore, NoTransform bool

	// NoCache and Private are the unqualified directives, which concern the
	// whole message. NoCacheFields and PrivateFields are the canonical field
	// names of the qualified ones; a message can have both.
	NoCache, Private             bool
	NoCacheFields, PrivateFields []string

	Public, MustRevalidate, ProxyRevalidate, MustUnderstand, Immutable bool // responses only

	MaxAge               Seconds
	SMaxAge              Seconds // responses only
	StaleWhileRevalidate Seconds // responses only
	StaleIfError         Seconds

	// MayShare says that must-revalidate is there in its exact form: besides what it
	// forbids it permits an answer to Authorization to be stored, RFC 9111 section 3.5.
	MayShare bool

	// Requests only. MaxStaleAny is max-stale without an argument: however
	// stale. It is false where some max-stale has one.
	OnlyIfCached bool
	MinFresh     Seconds
	MaxStale     Seconds
	MaxStaleAny  bool
}

// ParseCacheControl reads all lines of a Cache-Control field, RFC 9111 section
// 5.2. Names are case-insensitive, every argument may be a token or a quoted
// string, unknown directives and empty list elements are ignored.
//
// Section 4.2.1 leaves the handling of conflicts to the cache. Here a repeated
// directive holds in its strictest form: the smallest number, or the largest
// min-fresh. A number that is missing or malformed is 0, so that a lifetime is
// over and a staleness not allowed. A qualified directive whose list of names is
// empty or malformed holds unqualified.
//
// A member that is not a directive at all ("private; max-age=60", "max-age =60",
// a quoted string without an end) still restricts: every token in it that names
// a directive holds without argument, as long as the directive forbids
// something. A directive that would permit something (public, must-understand, immutable,
// only-if-cached, max-stale) holds in its exact form only.
func ParseCacheControl(values []string) CacheControl {
	var c CacheControl
	for rest, more := combine(values), true; more; {
		var member string
		if member, rest, more = cutMember(rest); member != "" {
			c.add(member)
		}
	}
	if c.MaxStale.Present {
		c.MaxStaleAny = false
	}
	return c
}

func (c *CacheControl) add(member string) {
	name, arg, hasArg := strings.Cut(member, "=")
	switch {
	case !isToken(name):
	case !hasArg:
		c.set(name, "", bare)
		return
	case isToken(arg):
		c.set(name, arg, argument)
		return
	default:
		if text, ok := unquote(arg); ok {
			c.set(name, text, argument)
			return
		}
	}
	for member != "" {
		n := tokenLen(member)
		if n > 0 {
			c.set(member[:n], "", malformed)
		}
		member = member[min(n+1, len(member)):]
	}
}

// form is how a directive was written.
type form int

const (
	absent form = iota
	bare
	argument
	malformed
)

// set applies a directive.
func (c *CacheControl) set(name, arg string, form form) {
	var known [len("stale-while-revalidate")]byte // the longest name known
	if len(name) > len(known) {
		return
	}
	for i := range len(name) {
		known[i] = lower(name[i])
	}
	if directive := known[:len(name)]; !c.forbid(directive, arg, form) && !c.permit(directive, form) {
		c.limit(directive, arg, form)
	}
}

// forbid applies a directive that forbids something, in each form. ok is false for other
// directives.
func (c *CacheControl) forbid(directive []byte, arg string, form form) (ok bool) {
	switch string(directive) {
	case "no-store":
		c.NoStore = true
	case "no-transform":
		c.NoTransform = true
	case "must-revalidate":
		c.MustRevalidate = true
		c.MayShare = c.MayShare || form == bare
	case "proxy-revalidate":
		c.ProxyRevalidate = true
	case "no-cache":
		qualify(&c.NoCache, &c.NoCacheFields, arg)
	case "private":
		qualify(&c.Private, &c.PrivateFields, arg)
	default:
		return false
	}
	return true
}

// permit applies a directive that permits something, in its exact form. ok is false for
// other directives.
func (c *CacheControl) permit(directive []byte, form form) (ok bool) {
	switch string(directive) {
	case "public":
		c.Public = c.Public || form == bare
	case "must-understand":
		c.MustUnderstand = c.MustUnderstand || form == bare
	case "immutable":
		c.Immutable = c.Immutable || form == bare
	case "only-if-cached":
		c.OnlyIfCached = c.OnlyIfCached || form == bare
	default:
		return false
	}
	return true
}

// limit applies a directive whose argument is a number of seconds. A malformed number is 0.
func (c *CacheControl) limit(directive []byte, arg string, form form) {
	number := ParseSeconds(arg)
	number.Present = true
	switch string(directive) {
	case "max-age":
		c.MaxAge.least(number)
	case "s-maxage":
		c.SMaxAge.least(number)
	case "stale-while-revalidate":
		c.StaleWhileRevalidate.least(number)
	case "stale-if-error":
		c.StaleIfError.least(number)
	case "min-fresh":
		c.MinFresh.most(number)
	case "max-stale":
		if form == bare {
			c.MaxStaleAny = true
		} else {
			c.MaxStale.least(number)
		}
	}
}

// qualify adds the field names in arg to names, or sets whole where arg is
// anything but a list of field names.
func qualify(whole *bool, names *[]string, arg string) {
	all := *names
	for name := range strings.SplitSeq(arg, ",") {
		if name = trimOWS(name); name == "" {
			continue
		}
		if !isToken(name) {
			*whole = true
			return
		}
		all = append(all, textproto.CanonicalMIMEHeaderKey(name))
	}
	if len(all) == len(*names) {
		*whole = true
	}
	*names = all
}
