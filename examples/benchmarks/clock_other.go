//go:build !unix

package main

import "time"

var start = time.Now()

// cpuTime returns the time since the start of the program.
func cpuTime() time.Duration { return time.Since(start) }
