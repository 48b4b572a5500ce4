package main

import (
	"fmt"
	"os"
	"testing"
)

// The tests start this binary as the processes.
func TestMain(m *testing.M) {
	if say := os.Getenv(childEnv); say != "" {
		if err := child(say); err != nil {
			fmt.Fprintln(os.Stderr, "faults:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}
