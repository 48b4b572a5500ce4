package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/larderhq/larder/core"
)

// fleet is the set of shops. A place has one process at a time; an ended one may get a
// successor.
type fleet struct {
	places []*place
	judge  *judge
	events *events
	client *http.Client // for requests beside the load
}

type place struct {
	number  int // from 1
	options shopOptions

	requests, failed, stale atomic.Int64
	died                    atomic.Int64 // processes that ended by themselves

	mu      sync.Mutex
	process *process   // the last one; nil before the first
	before  core.Stats // of the processes before it, added up
	last    core.Stats // of the process, at the last poll
}

// process is a shop that runs, or ran.
type process struct {
	url    string
	memory memory
	cmd    *exec.Cmd
	stdin  io.Closer
	ending atomic.Bool   // it is being ended, and need not answer
	ended  chan struct{} // closed when it has
}

func newFleet(n int, j *judge, e *events, o shopOptions) *fleet {
	f := &fleet{judge: j, events: e, client: newClient()}
	for i := range n {
		o.Number, o.Adapter = i+1, adapters[i%len(adapters)]
		f.places = append(f.places, &place{number: i + 1, options: o})
	}
	return f
}

// newClient returns a client that keeps a connection for each of its users. Idle ones
// it closes before any shop does: a PUT over a connection that is being closed fails.
func newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: 3 * time.Second}}
}

// start starts all shops.
func (f *fleet) start(ctx context.Context) error {
	errs := make([]error, len(f.places))
	var all sync.WaitGroup
	for i, p := range f.places {
		all.Go(func() { errs[i] = f.revive(ctx, p) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// startWithin is the time within which a shop must serve.
const startWithin = 30 * time.Second

// revive starts a shop where none runs, and waits until it serves.
func (f *fleet) revive(ctx context.Context, at *place) error {
	if at.up() != nil {
		return fmt.Errorf("shop %d is up", at.number)
	}
	say, err := json.Marshal(at.options)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), shopEnv+"="+string(say))
	cmd.Stderr = &lines{say: func(line string) { f.events.add("shop %d says: %s", at.number, line) }}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return errors.Join(err, stdin.Close())
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start shop %d: %w", at.number, err)
	}
	p := &process{memory: make(memory, products), cmd: cmd, stdin: stdin, ended: make(chan struct{})}
	address := make(chan string, 1)
	go func() {
		defer close(p.ended)
		line, _ := bufio.NewReader(stdout).ReadString('\n')
		address <- strings.TrimSpace(line)
		err := cmd.Wait()
		if !p.ending.Load() {
			at.died.Add(1)
			f.events.blame("shop %d has ended by itself: %v", at.number, err)
		}
	}()
	timer := time.NewTimer(startWithin)
	defer timer.Stop()
	var addr string
	select {
	case addr = <-address:
	case <-timer.C:
	case <-ctx.Done():
	}
	if addr == "" {
		p.end(syscall.SIGKILL)
		return errors.Join(fmt.Errorf("shop %d does not serve", at.number), ctx.Err())
	}
	p.url = "http://" + addr
	at.mu.Lock()
	defer at.mu.Unlock()
	at.process = p
	return nil
}

// up returns the process at a place that is to answer; nil if there is none.
func (p *place) up() *process {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.process == nil || p.process.ending.Load() || p.process.gone() {
		return nil
	}
	return p.process
}

func (p *process) gone() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// end ends a process by a signal and waits until it has ended. It kills a process that
// ignores the signal.
func (p *process) end(s syscall.Signal) {
	p.ending.Store(true)
	_ = p.cmd.Process.Signal(s) // it may have ended by itself
	patience := time.AfterFunc(2*shutdownTimeout, func() { _ = p.cmd.Process.Kill() })
	defer patience.Stop()
	<-p.ended
	p.stdin.Close()
}

// end ends the shop at a place.
func (f *fleet) end(at *place, s syscall.Signal) error {
	p := at.up()
	if p == nil {
		return fmt.Errorf("shop %d is down", at.number)
	}
	p.end(s)
	at.mu.Lock()
	defer at.mu.Unlock()
	at.before, at.last = add(at.before, at.last), core.Stats{}
	return nil
}

// close ends all shops as a deploy does.
func (f *fleet) close(context.Context) error {
	f.client.CloseIdleConnections()
	errs := make([]error, len(f.places))
	var all sync.WaitGroup
	for i, at := range f.places {
		p := at.up()
		if p == nil {
			continue
		}
		all.Go(func() {
			p.end(syscall.SIGTERM)
			if code := p.cmd.ProcessState.ExitCode(); code != 0 {
				errs[i] = fmt.Errorf("shop %d did not end as it should: %v", at.number, p.cmd.ProcessState)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// failures returns the numbers of failed requests and of shops that have ended by
// themselves.
func (f *fleet) failures() (failed, died int64) {
	for _, p := range f.places {
		failed += p.failed.Load()
		died += p.died.Load()
	}
	return failed, died
}

// poll reads the counters of the shops' caches.
func (f *fleet) poll(ctx context.Context) {
	var all sync.WaitGroup
	for _, at := range f.places {
		p := at.up()
		if p == nil {
			continue
		}
		all.Go(func() {
			s, err := f.stats(ctx, p)
			if err != nil {
				return // it is asked again
			}
			at.mu.Lock()
			defer at.mu.Unlock()
			if at.process == p && !p.ending.Load() {
				at.last = s
			}
		})
	}
	all.Wait()
}

// stats reads the counters of a shop's cache.
func (f *fleet) stats(ctx context.Context, p *process) (core.Stats, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var s core.Stats
	_, err := ask(ctx, f.client, http.MethodGet, p.url+"/larder", &s)
	return s, err
}

// counted returns the counters of all processes at a place.
func (p *place) counted() core.Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return add(p.before, p.last)
}

// add adds the counters that the table shows.
func add(a, b core.Stats) core.Stats {
	a.Hits += b.Hits
	a.StaleHits += b.StaleHits
	a.Misses += b.Misses
	a.RemoteHits += b.RemoteHits
	a.RemoteErrors += b.RemoteErrors
	a.Invalidations += b.Invalidations
	a.Pending += b.Pending
	return a
}

// host is the Host of all requests, as behind a load balancer. It is part of the key of a
// page.
const host = "shop.example"

// maxAnswer is more than any answer has.
const maxAnswer = 1 << 20

// ask sends a request and decodes the answer.
func ask(ctx context.Context, client *http.Client, method, url string, answer any) (http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Host = host
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %.200q", resp.Status, body)
	}
	return resp.Header, json.Unmarshal(body, answer)
}

// lines passes on its input line by line.
type lines struct {
	say  func(string)
	rest []byte
}

// maxLine is the most of a line that is kept.
const maxLine = 150

func (l *lines) Write(p []byte) (int, error) {
	n := len(p)
	for {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			l.rest = append(l.rest, p[:min(len(p), max(0, maxLine-len(l.rest)))]...)
			return n, nil
		}
		line := append(l.rest, p[:i]...)
		l.rest, p = nil, p[i+1:]
		l.say(string(line[:min(len(line), maxLine)]))
	}
}
