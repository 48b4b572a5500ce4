package main

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/larderhq/larder/core"
)

// place says where the middleware stands, seen from the client.
type place string

const (
	front  place = "in front"
	behind place = "behind"
)

// row is one middleware at one place.
type row struct {
	framework  string
	middleware string
	place      place
	build      build

	// uncached is the detail of Cache-Status with which this neighbour keeps the
	// page out of the cache; "" says that the second request is a hit.
	uncached string
	// differ lists the differences that are left, each with its reason.
	differ map[string]string
}

// neighbour is a middleware of a framework, before it is given a place.
type neighbour[M any] struct {
	name   string
	use    func() M // a new one for each site
	only   place    // where it makes sense; "": at both places
	front  expected
	behind expected
}

// expected is the known behaviour of a neighbour at one place.
type expected struct {
	uncached string
	differ   map[string]string
}

// Why differences are left.
const (
	frozen       = "behind the cache it is part of what is stored: put it in front"
	varyOfAnswer = "a 304 is not encoded, and this compressor names Accept-Encoding only where it encodes"
	noLifetime   = "no-cache is added to its `no-cache=\"Set-Cookie\"`, which states no lifetime"
	without304   = "Larder answers the conditional request, and its 304 leaves out the fields about the content"
	ownETag      = "the page has an ETag of Larder's already, and the middleware leaves that alone"
)

func uncachedBy(detail string) expected { return expected{uncached: detail} }

// differing takes pairs of a difference and its reason.
func differing(pairs ...string) expected {
	e := expected{differ: map[string]string{}}
	for i := 0; i+1 < len(pairs); i += 2 {
		e.differ[pairs[i]] = pairs[i+1]
	}
	return e
}

// rowsOf makes the rows of one framework.
func rowsOf[M any](framework string, all []neighbour[M], site func(front, behind []M) build) []row {
	var out []row
	for _, n := range all {
		if n.only != behind {
			out = append(out, row{framework, n.name, front, func(s *shop, c *core.Cache) (string, func(), error) {
				return site([]M{n.use()}, nil)(s, c)
			}, n.front.uncached, n.front.differ})
		}
		if n.only != front {
			out = append(out, row{framework, n.name, behind, func(s *shop, c *core.Cache) (string, func(), error) {
				return site(nil, []M{n.use()})(s, c)
			}, n.behind.uncached, n.behind.differ})
		}
	}
	return out
}

// rows returns every row of the table.
func rows() []row {
	out := rowsOf("net/http", httpNeighbours(), httpSite)
	out = append(out, rowsOf("Gin", ginNeighbours(), ginSite)...)
	out = append(out, rowsOf("Echo", echoNeighbours(), echoSite)...)
	return append(out, rowsOf("Fiber", fiberNeighbours(), fiberSite)...)
}

// serve runs a handler of net/http on a free port of the loopback interface.
func serve(h http.Handler) (string, func(), error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	return "http://" + l.Addr().String(), func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = srv.Shutdown(ctx)
		<-done
	}, nil
}

func (r row) name() string { return r.framework + ", " + r.middleware + " " + string(r.place) }

// second is how the Cache-Status of the second request begins.
func (r row) second() string {
	if r.uncached == "" {
		return "Larder; hit"
	}
	return "Larder; fwd=uri-miss; detail=" + r.uncached
}
