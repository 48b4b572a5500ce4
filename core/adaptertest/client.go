package adaptertest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
)

// request is one request, as it goes over the wire.
type request struct {
	method, target string
	host           string   // default origin
	fields         []string // "Name: value"
	body           string
}

const origin = "shop.example"

// answer is the answer to a request.
type answer struct {
	t      require.TestingT
	err    error // of the connection
	status int
	header http.Header
	body   string
	early  []http.Header // of answers with status 1xx
}

// get, head and do send a request over a new connection, and read the answer to its
// end.
func (s *site) get(target string, fields ...string) answer {
	return s.do("GET", target, fields...)
}

func (s *site) do(method, target string, fields ...string) answer {
	return s.ask(request{method: method, target: target, fields: fields})
}

func (s *site) ask(r request) answer {
	x, err := s.begin(r)
	if err != nil {
		return answer{t: s, err: err}
	}
	defer x.leave()
	return x.finish()
}

// pending is a request under way in another goroutine.
type pending struct {
	s    *site
	done chan answer
}

// start sends a request without waiting for its answer.
func (s *site) start(method, target string, fields ...string) *pending {
	p := &pending{s, make(chan answer, 1)}
	go func() { p.done <- s.do(method, target, fields...) }()
	return p
}

// starts is start, n times.
func (s *site) starts(n int, method, target string, fields ...string) []*pending {
	list := make([]*pending, n)
	for i := range list {
		list[i] = s.start(method, target, fields...)
	}
	return list
}

// ended reports whether the answer has arrived. In a bubble, after settles, false means
// that it will not arrive without a further event.
func (p *pending) ended() bool { return len(p.done) > 0 }

// answer waits for the answer.
func (p *pending) answer() answer {
	p.s.Helper()
	select {
	case a := <-p.done:
		return a
	case <-time.After(patience * 60): // in a bubble: at once, when nothing else can happen
		p.s.Fatal("a request has not been answered")
		panic("not reached")
	}
}

// exchange is one request on a connection, step by step.
type exchange struct {
	s    *site
	conn net.Conn
	r    *bufio.Reader
	req  request
}

// begin sends a request.
func (s *site) begin(r request) (*exchange, error) {
	conn, err := s.connect()
	if err != nil {
		return nil, err
	}
	limit := 3 * patience
	if s.by == inMemory {
		limit = 5 * time.Minute // longer than any request of a case, in the time of its bubble
	}
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return nil, err
	}
	if r.host == "" {
		r.host = origin
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", r.method, r.target, r.host)
	for _, f := range r.fields {
		b.WriteString(f + "\r\n")
	}
	switch {
	case slices.Contains(r.fields, "Transfer-Encoding: chunked"):
	case slices.Contains([]string{"POST", "PUT", "PATCH", "DELETE", "QUERY"}, r.method):
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(r.body))
	}
	b.WriteString("\r\n" + r.body)
	if _, err := io.WriteString(conn, b.String()); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return &exchange{s, conn, bufio.NewReader(conn), r}, nil
}

// leave closes the connection.
func (x *exchange) leave() { _ = x.conn.Close() }

// head reads the answer's header.
func (x *exchange) head() (*http.Response, answer) {
	a := answer{t: x.s}
	for {
		resp, err := http.ReadResponse(x.r, &http.Request{Method: x.req.method})
		if err != nil {
			a.err = err
			return nil, a
		}
		if resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			a.status, a.header = resp.StatusCode, resp.Header
			if len(resp.TransferEncoding) > 0 {
				a.header["Transfer-Encoding"] = resp.TransferEncoding
			}
			return resp, a
		}
		a.early = append(a.early, resp.Header)
	}
}

// finish reads the whole answer.
func (x *exchange) finish() answer {
	resp, a := x.head()
	if a.err != nil {
		return a
	}
	body, err := io.ReadAll(resp.Body)
	a.body, a.err = string(body), err
	return a
}

// The outcomes in Cache-Status.

func (a answer) cacheStatus() string { return strings.Join(a.header.Values("Cache-Status"), ", ") }

func (a answer) hit() bool { return strings.HasPrefix(a.cacheStatus(), "Larder; hit; ttl=") }

// is demands a whole answer of 200 with this body.
func (a answer) is(body string) answer {
	if h, ok := a.t.(interface{ Helper() }); ok {
		h.Helper()
	}
	require.NoError(a.t, a.err)
	require.Equal(a.t, http.StatusOK, a.status, "status; body %.100q", a.body)
	require.Equal(a.t, body, a.body, "body; Cache-Status %q", a.cacheStatus())
	return a
}

// says demands a Cache-Status.
func (a answer) says(status string) answer {
	if h, ok := a.t.(interface{ Helper() }); ok {
		h.Helper()
	}
	require.NoError(a.t, a.err)
	require.Equal(a.t, status, a.cacheStatus(), "Cache-Status; status %d, body %.100q", a.status, a.body)
	return a
}

// isHit demands a hit.
func (a answer) isHit() answer {
	if h, ok := a.t.(interface{ Helper() }); ok {
		h.Helper()
	}
	require.NoError(a.t, a.err)
	require.True(a.t, a.hit(), "a hit; Cache-Status %q, status %d, body %.100q", a.cacheStatus(), a.status, a.body)
	return a
}

// standsInFor demands a stale response in place of an error of the handler.
func (a answer) standsInFor(status int) answer {
	if h, ok := a.t.(interface{ Helper() }); ok {
		h.Helper()
	}
	return a.says(fmt.Sprintf("Larder; fwd=stale; fwd-status=%d; detail=stale-if-error", status))
}

// isNoHit demands that the handler ran.
func (a answer) isNoHit() answer {
	if h, ok := a.t.(interface{ Helper() }); ok {
		h.Helper()
	}
	require.NoError(a.t, a.err)
	require.False(a.t, a.hit(), "no hit; Cache-Status %q, status %d, body %.100q", a.cacheStatus(), a.status, a.body)
	return a
}

// keptByNobody demands an answer that no cache keeps: without the lifetime and the
// validators of the stored response.
func (a answer) keptByNobody() {
	if h, ok := a.t.(interface{ Helper() }); ok {
		h.Helper()
	}
	require.Equal(a.t, []string{"no-store"}, a.header.Values("Cache-Control"), "status %d", a.status)
	for _, name := range []string{"Age", "Cdn-Cache-Control", "Etag", "Expires", "Last-Modified", "Surrogate-Control"} {
		require.NotContains(a.t, a.header, name, "status %d", a.status)
	}
}
