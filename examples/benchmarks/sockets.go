package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"
)

// server serves a contender on a loopback port.
type server struct {
	contender
	url   string
	close func() error
	rates []float64
	ill   string // what wrk said of responses that were none
}

func measureSockets(ctx context.Context, cfg config) ([]section, error) {
	wrk, err := exec.LookPath("wrk")
	if err != nil {
		return nil, fmt.Errorf("wrk %w: apt-get install wrk (brew install wrk)", errMissing)
	}
	t := section{
		title: "wrk on the other processor",
		text: "Requests per second of a page of 1 KiB over loopback, with 64 connections of `wrk`. The servers are in this process, which uses one processor;\n" +
			"wrk has one thread, on the last processor where `taskset` is there. The contenders of a framework run in turn, and the median of their runs counts.",
		head: []string{"", "requests per second", "× `same`"},
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for _, f := range frameworks() {
		if err := f.sockets(ctx, cfg, wrk, &t); err != nil {
			return []section{t}, fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return []section{t}, nil
}

// sockets adds the lines of a framework.
func (f framework) sockets(ctx context.Context, cfg config, wrk string, t *section) (err error) {
	list, done, err := contenders(f, sizes[0], true)
	defer func() { err = errors.Join(err, done()) }()
	if err != nil {
		return err
	}
	var servers []*server
	defer func() {
		for _, s := range servers {
			err = errors.Join(err, s.close())
		}
	}()
	for _, c := range list {
		s, err := serve(c)
		if err != nil {
			return err
		}
		servers = append(servers, s)
	}
	rounds, seconds := 5, 1
	if cfg.quick {
		rounds = 1
	}
	for range rounds {
		for _, s := range servers {
			if err := s.load(ctx, wrk, seconds); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
	}
	reference := median(servers[len(servers)-1].rates)
	for _, s := range servers {
		if s.name == same {
			reference = median(s.rates)
		}
	}
	for _, s := range servers {
		rate := median(s.rates)
		t.add(f.name+", "+s.title()+s.ill, whole(rate), fmt.Sprintf("%.2f", rate/reference))
	}
	return nil
}

func serve(c contender) (*server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &server{contender: c, url: "http://" + l.Addr().String() + pageTarget}
	ended := make(chan struct{})
	switch a := c.app.(type) {
	case fastApp:
		f := &fasthttp.Server{Handler: a.handler, CloseOnShutdown: true}
		go func() { defer close(ended); _ = f.Serve(l) }() // close ends it
		s.close = func() error { err := f.Shutdown(); <-ended; return err }
	case netApp:
		h := &http.Server{Handler: a.Handler, ReadHeaderTimeout: 10 * time.Second}
		go func() { defer close(ended); _ = h.Serve(l) }() // close ends it
		s.close = func() error { err := h.Close(); <-ended; return err }
	default:
		return nil, errors.Join(fmt.Errorf("%T is no app of net/http or fasthttp", a), l.Close())
	}
	return s, nil
}

// load runs wrk for some seconds.
func (s *server) load(ctx context.Context, wrk string, seconds int) error {
	args := []string{wrk, "-t1", "-c64", fmt.Sprintf("-d%ds", seconds), "-H", "Host: shop.example", "-H", "Accept-Encoding: gzip", "-H", "User-Agent: bench", s.url}
	if taskset, err := exec.LookPath("taskset"); err == nil && runtime.NumCPU() > 1 {
		args = append([]string{taskset, "-c", strconv.Itoa(runtime.NumCPU() - 1)}, args...)
	}
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("wrk: %w: %s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch {
		case name == "Requests/sec":
			rate, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				return fmt.Errorf("wrk printed %q; a number is allowed", line)
			}
			s.rates = append(s.rates, rate)
			return nil
		case strings.HasPrefix(name, "Non-2xx"), name == "Socket errors":
			s.ill = " (" + strings.TrimSpace(line) + ")"
		}
	}
	return fmt.Errorf("wrk printed no rate: %s", bytes.TrimSpace(out))
}
