//go:build !unix

package main

import "errors"

// child is not to be had where there is neither redis-server nor sh.
type child struct {
	pid   int
	ended chan struct{}
	said  string
}

var errNoUnix = errors.New("a fleet needs a Unix, for redis-server and its signals")

func startChild(string, ...string) (*child, error) { return nil, errNoUnix }

func (c *child) kill()         {}
func (c *child) freeze() error { return errNoUnix }
func (c *child) thaw() error   { return errNoUnix }
