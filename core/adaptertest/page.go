package adaptertest

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
)

// page is a handler that counts its runs.
type page struct {
	fields []string // "Name: value" of its answer
	status int      // default 200
	body   func(c Ctx, run int64) string
	hold   *gate // before it answers
	began  func(c Ctx)

	runs atomic.Int64 // that have begun
	in   atomic.Int64 // that are under way
	most atomic.Int64 // most concurrent ones
}

// serve is a Handler. The body is "run N" unless p.body makes another.
func (p *page) serve(c Ctx) error {
	run := p.enter()
	defer p.in.Add(-1)
	if p.began != nil {
		p.began(c)
	}
	if p.hold != nil {
		p.hold.wait()
	}
	body := fmt.Sprint("run ", run)
	if p.body != nil {
		body = p.body(c, run)
	}
	add(c, p.fields)
	return c.Text(max(200, p.status), body)
}

func (p *page) enter() (run int64) {
	in := p.in.Add(1)
	for {
		most := p.most.Load()
		if in <= most || p.most.CompareAndSwap(most, in) {
			return p.runs.Add(1)
		}
	}
}

// add adds fields to an answer.
func add(c Ctx, fields []string) {
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		c.Add(name, value)
	}
}

// reader is only an io.Reader, so that io.Copy uses the writer's ReadFrom.
func reader(s string) io.Reader { return struct{ io.Reader }{strings.NewReader(s)} }

// says returns a body that repeats a field of the request.
func says(name string) func(Ctx, int64) string {
	return func(c Ctx, run int64) string {
		return fmt.Sprintf("%s %q run %d", name, c.Values(name), run)
	}
}

// seen records values that handlers have seen.
type seen[T any] struct {
	mu   sync.Mutex
	list []T
}

func (s *seen[T]) add(v T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, v)
}

func (s *seen[T]) all() []T {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]T(nil), s.list...)
}
