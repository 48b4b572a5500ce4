// Package patterns is the code of the guide in README.md: caching as tutorials show
// it, and the line of Larder that replaces it. Its tests drive each through the
// same interleaving on a real Redis, and show the first one's fault.
//
// The guide quotes the lines between "guide: <name>" and "guide: end"; a test compares
// them.
package patterns
