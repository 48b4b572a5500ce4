package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-chi/stampede"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/nethttp"
)

const (
	// shortTTL is the lifetime of the entry that expires. go-redis/cache allows no shorter one.
	shortTTL = time.Second
	// loadTime is how long a load takes.
	loadTime = 100 * time.Millisecond
	// processes is the number of instances over one Redis.
	processes = 4
	// childVariable makes a process one of the instances: it holds the contender and the
	// address of the Redis.
	childVariable = "LARDER_BENCHMARKS_INSTANCE"
)

// crowd calls op in n goroutines at once.
func crowd(n int, op func()) {
	var all sync.WaitGroup
	begin := make(chan struct{})
	for range n {
		all.Go(func() {
			<-begin
			op()
		})
	}
	close(begin)
	all.Wait()
}

func measureStampede(ctx context.Context, cfg config) ([]section, error) {
	n := cfg.size(10_000)
	t := section{
		title: "One expired key",
		text: fmt.Sprintf("%d goroutines read one key when its entry has expired; a load takes %v. One load is enough. The four processes share a Redis,\n"+
			"and each has a quarter of the goroutines.", n, loadTime),
		head: []string{"", "loads", "ms until all are answered"},
	}
	for _, h := range holders[plain](true) {
		var loads atomic.Int64
		get, end, err := h.open(shortTTL, func() plain {
			if loads.Add(1) > 1 {
				time.Sleep(loadTime) // the load
			}
			return somePlain()
		})
		if err != nil {
			return nil, err
		}
		if _, err := get(); err != nil {
			return nil, errors.Join(err, end())
		}
		t.stampede(contender{name: h.name, module: h.module}.title(), n, &loads, func() { _, _ = get() })
		if err := end(); err != nil {
			return nil, err
		}
	}
	if err := routes(n, &t); err != nil {
		return nil, err
	}
	return []section{t}, shared(ctx, n, &t)
}

// stampede lets an entry that was just stored expire, and adds a line.
func (s *section) stampede(name string, n int, loads *atomic.Int64, read func()) {
	time.Sleep(shortTTL + 300*time.Millisecond) // the entry's lifetime is real time
	before, start := loads.Load(), time.Now()
	crowd(n, read)
	s.add(name, fmt.Sprint(loads.Load()-before), whole(float64(time.Since(start).Milliseconds())))
}

// routes adds the lines of net/http.
func routes(n int, t *section) error {
	cache, err := core.New(core.Options{Classes: core.Classes{"product": {TTL: shortTTL}}})
	if err != nil {
		return err
	}
	for _, c := range []struct {
		title string
		wrap  func(http.Handler) http.Handler
	}{
		{"**Larder**, a route of net/http", nethttp.Cache(cache, "product", "product:{id}")},
		{contender{name: "go-chi/stampede", module: "github.com/go-chi/stampede"}.title() + ", a route of net/http", stampede.Handler(512, shortTTL)},
	} {
		var runs atomic.Int64
		mux := http.NewServeMux()
		mux.Handle("GET /p/{id}", c.wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if runs.Add(1) > 1 {
				time.Sleep(loadTime) // the load
			}
			_, _ = w.Write([]byte("page"))
		})))
		read := func() { netApp{mux}.get(pageTarget) }
		read()
		t.stampede(c.title, n, &runs, read)
	}
	return cache.Close()
}

// shared adds the lines of several processes over one Redis.
func shared(ctx context.Context, n int, t *section) error {
	s, err := startRedis(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = s.close() }()
	for _, k := range remoteKinds(true) {
		loads, took, err := instances(ctx, k.name, s.addr, n/processes)
		if err != nil {
			return fmt.Errorf("%s in %d processes: %w", k.name, processes, err)
		}
		t.add(fmt.Sprintf("%s, %d processes", k.title(), processes), exact(loads), whole(float64(took.Milliseconds())))
	}
	return nil
}

// instances runs the contender in several processes that begin together, and returns the sum of
// their loads.
func instances(ctx context.Context, name, addr string, n int) (loads int, took time.Duration, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, 0, err
	}
	var begins []io.WriteCloser
	var outputs []*bufio.Scanner
	for range processes {
		cmd := exec.CommandContext(ctx, self)
		cmd.Env = append(os.Environ(), childVariable+"="+strings.Join([]string{addr, strconv.Itoa(n), name}, " "))
		cmd.Stderr = os.Stderr
		in, err1 := cmd.StdinPipe()
		out, err2 := cmd.StdoutPipe()
		if err := errors.Join(err1, err2); err != nil {
			return 0, 0, err
		}
		if err := cmd.Start(); err != nil {
			return 0, 0, err
		}
		defer func() {
			_ = in.Close() // ends an instance that still waits
			_ = cmd.Wait() // its output counts
		}()
		begins, outputs = append(begins, in), append(outputs, bufio.NewScanner(out))
	}
	for _, o := range outputs { // each is ready
		if !o.Scan() {
			return 0, 0, fmt.Errorf("an instance ended early: %w", o.Err())
		}
	}
	start := time.Now()
	for _, b := range begins {
		if _, err := fmt.Fprintln(b); err != nil {
			return 0, 0, err
		}
	}
	for _, o := range outputs {
		o.Scan()
		l, err := strconv.Atoi(o.Text())
		if err != nil {
			return 0, 0, fmt.Errorf("an instance printed %q, and a number of loads is allowed", o.Text())
		}
		loads += l
	}
	return loads, time.Since(start), nil
}

// instance is the main function of a process with childVariable. It prints a line when the entry has
// expired, waits for a line, and prints how many loads there were.
func instance(settings string) error {
	parts := strings.SplitN(settings, " ", 3)
	if len(parts) != 3 {
		return fmt.Errorf("%s=%q; an address, a number and a name are allowed", childVariable, settings)
	}
	n, err := strconv.Atoi(parts[1])
	if err != nil {
		return err
	}
	var loads atomic.Int64
	read, end, err := openInstance(parts[2], parts[0], func() string {
		loads.Add(1)
		time.Sleep(loadTime) // the load
		return remoteBody
	})
	if err != nil {
		return err
	}
	if err := read(); err != nil {
		return errors.Join(err, end())
	}
	time.Sleep(shortTTL + 300*time.Millisecond) // the entry's lifetime is real time
	before := loads.Load()
	fmt.Println("ready")
	bufio.NewScanner(os.Stdin).Scan()
	crowd(n, func() { _ = read() })
	fmt.Println(loads.Load() - before)
	return end()
}
