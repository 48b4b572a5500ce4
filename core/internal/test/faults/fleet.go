package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"
)

// fleet is the set of processes. A place has one process at a time; a killed one gets a successor.
type fleet struct {
	dir    string // of logs
	orders []order
	places []atomic.Pointer[process]
	rows   int
}

// process is one of the processes.
type process struct {
	order  order
	name   string
	addr   string
	cmd    *exec.Cmd
	stdin  io.Closer
	log    *os.File
	killed atomic.Bool // by the conductor, or about to be
	ended  chan struct{}

	// announced holds, by row, the least version that a read which begins here now must see.
	announced []atomic.Int64
}

func newFleet(ctx context.Context, dir string, rows int, orders []order) (*fleet, error) {
	f := &fleet{dir: dir, orders: orders, places: make([]atomic.Pointer[process], len(orders)), rows: rows}
	for place := range orders {
		if err := f.start(ctx, place); err != nil {
			f.close()
			return nil, err
		}
	}
	return f, nil
}

func (f *fleet) at(place int) *process { return f.places[place].Load() }

// startWithin is the time within which a process must serve.
const startWithin = 20 * time.Second

// start starts a process at a place, and waits until it serves.
func (f *fleet) start(ctx context.Context, place int) error {
	o := f.orders[place]
	say, err := json.Marshal(o)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(f.logFile(place), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childEnv+"="+string(say))
	cmd.Stderr = log
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		log.Close()
		return fmt.Errorf("start %s: %w", o.Adapter, err)
	}
	p := &process{
		order: o, name: o.Adapter, cmd: cmd, stdin: stdin, log: log,
		ended: make(chan struct{}), announced: make([]atomic.Int64, f.rows),
	}
	first := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(stdout).ReadString('\n')
		first <- strings.TrimSpace(line)
		_ = cmd.Wait() // its exit status has no meaning: it is killed
		log.Close()
		close(p.ended)
	}()
	timer := time.NewTimer(startWithin)
	defer timer.Stop()
	select {
	case p.addr = <-first:
	case <-timer.C:
	case <-ctx.Done():
	}
	if p.addr == "" {
		p.kill()
		return fmt.Errorf("%s did not start: %s", o.Adapter, f.logTail(place))
	}
	f.places[place].Store(p)
	return nil
}

// kill ends the process with SIGKILL and waits until it has ended. A request to it that fails from now on is no failure.
func (p *process) kill() {
	p.killed.Store(true)
	_ = p.cmd.Process.Kill() // it may have ended by itself
	p.stdin.Close()
	<-p.ended
}

// died reports that a process has ended by itself.
func (p *process) died() bool {
	select {
	case <-p.ended:
		return !p.killed.Load()
	default:
		return false
	}
}

func (f *fleet) close() {
	for place := range f.places {
		if p := f.at(place); p != nil {
			p.kill()
		}
	}
}

func (f *fleet) logFile(place int) string {
	return filepath.Join(f.dir, f.orders[place].Adapter+".log")
}

// logTail returns the last lines that the processes at a place have logged.
func (f *fleet) logTail(place int) string {
	b, err := os.ReadFile(f.logFile(place))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err.Error()
	}
	return string(b[max(0, len(b)-4<<10):])
}
