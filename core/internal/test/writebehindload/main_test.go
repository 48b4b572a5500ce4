package main

import (
	"fmt"
	"os"
	"testing"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"
)

// The tests start this binary as the worker processes.
func TestMain(m *testing.M) {
	redis.SetLogger(quiet{})
	if say := os.Getenv(childEnv); say != "" {
		if err := child(say); err != nil {
			fmt.Fprintln(os.Stderr, "writebehind:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}
