// Package fast is what the adapters for the majors of Fiber share: an exchange over
// fasthttp, on which each of them is built. A major of Fiber is one [Request].
//
// The package compiles with the fasthttp of each of these majors. It changes together with
// the adapters: a release tags all of them.
package fast

import "unsafe"

// raw and str convert without a copy. The result is neither changed nor kept longer than
// what it is a view of.
func raw(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

func str(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
