package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"sync"
	"syscall"
	"time"
)

// Limits of processes.
const (
	readyTimeout = 30 * time.Second
	stopTimeout  = 10 * time.Second
)

// process is a program that runs until it is stopped.
type process struct {
	cmd  *exec.Cmd
	log  *tail
	done chan struct{} // closed when it has ended
}

// start returns when the program has printed a line that ready matches, with what its
// group has matched. Its output goes to log too, unless that is nil.
func start(cmd *exec.Cmd, ready *regexp.Regexp, log io.Writer) (*process, string, error) {
	p := &process{cmd: cmd, log: &tail{out: log}, done: make(chan struct{})}
	cmd.Stderr = p.log
	cmd.WaitDelay = stopTimeout
	bind(cmd)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, "", err
	}
	if err := cmd.Start(); err != nil {
		return nil, "", err
	}
	found := make(chan string, 1)
	go func() { // ends with the program, which stop ends
		defer close(p.done)
		lines := bufio.NewReader(stdout)
		for {
			line, err := lines.ReadBytes('\n')
			_, _ = p.log.Write(line) // in memory
			if m := ready.FindSubmatch(line); m != nil {
				select {
				case found <- string(m[1]):
				default:
				}
			}
			if err != nil {
				break
			}
		}
		_ = cmd.Wait() // its state says how it ended
	}()
	select {
	case at := <-found:
		return p, at, nil
	case <-p.done:
		return nil, "", p.ended()
	case <-time.After(readyTimeout):
		err := fmt.Errorf("%s is not ready after %s\n%s", cmd.Path, readyTimeout, p.log)
		return nil, "", errors.Join(err, p.stop())
	}
}

// stop ends the program, by force if it takes too long. The error says that it
// had ended before, or had to be forced.
func (p *process) stop() error {
	select {
	case <-p.done:
		return p.ended()
	default:
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // or it ends at this moment
	select {
	case <-p.done:
		return nil
	case <-time.After(stopTimeout):
	}
	_ = p.cmd.Process.Signal(os.Kill)
	<-p.done // WaitDelay bounds it
	return fmt.Errorf("%s did not end within %s", p.cmd.Path, stopTimeout)
}

// ended describes the unexpected end of a program.
func (p *process) ended() error {
	return fmt.Errorf("%s ended (%s)\n%s", p.cmd.Path, p.cmd.ProcessState, p.log)
}

// tail keeps the last bytes that are written to it.
type tail struct {
	mu  sync.Mutex
	end []byte
	out io.Writer
}

const tailSize = 8 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.out != nil {
		if _, err := t.out.Write(b); err != nil {
			return 0, err
		}
	}
	t.end = append(t.end, b...)
	if excess := len(t.end) - tailSize; excess > 0 {
		t.end = bytes.Clone(t.end[excess:])
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.end)
}
