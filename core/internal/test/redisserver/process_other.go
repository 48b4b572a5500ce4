//go:build !unix

package redisserver

import "errors"

// process is not to be had where there is neither redis-server nor sh.
type process struct {
	pid    int
	output string
}

func startProcess(string, ...string) (*process, error) {
	return nil, errors.New("redis-server needs a Unix")
}

func (p *process) freeze() error { return ErrNotRunning }
func (p *process) thaw() error   { return ErrNotRunning }
func (p *process) kill()         {}
func (p *process) running() bool { return false }
