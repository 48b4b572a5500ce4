// Package field reads the HTTP fields that a shared cache decides on:
// Cache-Control and its targeted forms, Age, Vary, entity tags, dates, ranges,
// groups and Accept-Encoding, and writes the canonical forms of a query and of a
// request field that become part of an entry's identity.
//
// Nothing here fails. A value that cannot be understood is read the way that
// keeps less in the cache or serves less from it: a lifetime becomes zero, a
// qualified directive loses its qualification, a malformed Vary member becomes
// "*", a malformed entity tag matches nothing, a malformed range asks for
// everything. A mistake in a field may cost a hit; it never makes one.
//
// The functions are pure but for [ParseDate], which reads the clock for the one
// date form that has no century. Arguments are never modified; results may share
// the memory of the strings they were read from.
package field
