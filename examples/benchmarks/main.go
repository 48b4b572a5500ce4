// Command benchmarks times an in-process hit against a bare handler of the same
// framework that writes the same fields and bytes. Both run in turn, so that a
// machine that slows down slows both; what counts is the ratio.
package main

import (
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"slices"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/gofiber/fiber/v2"
	"github.com/labstack/echo/v4"
	"github.com/valyala/fasthttp"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/echocache"
	"github.com/larderhq/larder/fibercache"
	"github.com/larderhq/larder/gincache"
	"github.com/larderhq/larder/nethttp"
)

const bodySize = 1 << 10

// One pair of contenders: each serves one GET of the same resource.
type pair struct {
	name      string
	bare, hit func()
}

func main() {
	rounds := flag.Int("rounds", 31, "rounds of both contenders, 3 to 1001")
	per := flag.Int("requests", 20_000, "requests per round and contender, 100 to 10000000")
	flag.Parse()
	if *rounds < 3 || *rounds > 1001 || *per < 100 || *per > 10_000_000 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(*rounds, *per); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(rounds, per int) error {
	cache, err := core.New(core.Options{Classes: core.Classes{"product": {TTL: time.Hour}}})
	if err != nil {
		return err
	}
	defer cache.Close()
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(out, "in-process hit, %d bytes\tbare ns\thit ns\tratio\tratio p10–p90\tbare allocs\thit allocs\t\n", bodySize)
	for _, fields := range []int{8, 10} {
		for _, make := range []func(*core.Cache, int) (pair, error){netHTTP, ginPair, echoPair, fiberPair} {
			p, err := make(cache, fields)
			if err != nil {
				return err
			}
			report(out, p, rounds, per)
		}
	}
	return out.Flush()
}

func report(out *tabwriter.Writer, p pair, rounds, per int) {
	var bare, hit, ratio []float64
	for range rounds {
		runtime.GC()
		b, h := timed(p.bare, per), timed(p.hit, per)
		bare, hit, ratio = append(bare, b), append(hit, h), append(ratio, h/b)
	}
	slices.Sort(bare)
	slices.Sort(hit)
	slices.Sort(ratio)
	n := len(ratio)
	fmt.Fprintf(out, "%s\t%.0f\t%.0f\t%.2f\t%.2f–%.2f\t%.0f\t%.0f\t\n", p.name, bare[n/2], hit[n/2], ratio[n/2],
		ratio[n/10], ratio[n-1-n/10], testing.AllocsPerRun(1000, p.bare), testing.AllocsPerRun(1000, p.hit))
}

func timed(serve func(), n int) float64 {
	start := time.Now()
	for range n {
		serve()
	}
	return float64(time.Since(start).Nanoseconds()) / float64(n)
}

// handlerFields are what the handler sets so that a hit has n fields: the cache
// adds Age, Cache-Status, Date, Accept-Ranges, and an ETag.
func handlerFields(n int) [][2]string {
	all := [][2]string{
		{"Content-Type", "application/json; charset=utf-8"},
		{"Cache-Control", "max-age=60"},
		{"Content-Language", "en"},
		{"X-Content-Type-Options", "nosniff"},
		{"Link", `</style.css>; rel=preload`},
		{"X-Frame-Options", "DENY"},
		{"Referrer-Policy", "no-referrer"},
	}
	return all[:n-5]
}

// bareFields are all the fields of a hit.
func bareFields(n int) [][2]string {
	return append(slices.Clone(handlerFields(n)),
		[2]string{"Etag", `"S3xeq6xK7j8lm3IfHHQRgDHf"`}, [2]string{"Age", "1"}, [2]string{"Cache-Status", "Larder; hit; ttl=58"},
		[2]string{"Date", "Sun, 06 Nov 1994 08:49:37 GMT"}, [2]string{"Accept-Ranges", "bytes"})
}

var body = slices.Repeat([]byte("x"), bodySize)

// writer is a ResponseWriter that costs next to nothing.
type writer struct {
	header http.Header
	n      int
}

func (w *writer) Header() http.Header         { return w.header }
func (w *writer) WriteHeader(int)             {}
func (w *writer) Write(p []byte) (int, error) { w.n += len(p); return len(p), nil }

func netPair(name, path string, h http.Handler) (pair, error) {
	serve := func(target string) func() {
		r, err := http.NewRequest(http.MethodGet, "http://shop.example"+target, nil)
		if err != nil {
			panic(err)
		}
		r.RequestURI = target
		r.Header.Set("Accept-Encoding", "gzip")
		r.Header.Set("User-Agent", "bench")
		w := &writer{header: make(http.Header)}
		return func() {
			clear(w.header)
			h.ServeHTTP(w, r)
		}
	}
	p := pair{name: name, bare: serve("/bare/42?page=1"), hit: serve(path)}
	w := &writer{header: make(http.Header)}
	r, _ := http.NewRequest(http.MethodGet, "http://shop.example"+path, nil)
	r.RequestURI = path
	for range 2 {
		clear(w.header)
		w.n = 0
		h.ServeHTTP(w, r)
	}
	if w.header.Get("Age") == "" || w.n != bodySize {
		return p, errors.New(name + ": the second request is no hit: " + w.header.Get("Cache-Status"))
	}
	return p, nil
}

func title(name string, fields int) string { return fmt.Sprintf("%s, %d fields", name, fields) }

func netHTTP(cache *core.Cache, fields int) (pair, error) {
	mux := http.NewServeMux()
	write := func(set [][2]string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			h := w.Header()
			for _, f := range set {
				h.Set(f[0], f[1])
			}
			_, _ = w.Write(body)
		})
	}
	mux.Handle("GET /bare/{id}", write(bareFields(fields)))
	mux.Handle("GET /net/{id}", nethttp.Cache(cache, "product", "product:{id}", "catalog")(write(handlerFields(fields))))
	return netPair(title("net/http", fields), fmt.Sprintf("/net/42?page=%d", fields), mux)
}

func ginPair(cache *core.Cache, fields int) (pair, error) {
	gin.SetMode(gin.ReleaseMode)
	r := gin.New()
	write := func(set [][2]string) gin.HandlerFunc {
		return func(c *gin.Context) {
			h := c.Writer.Header()
			for _, f := range set {
				h.Set(f[0], f[1])
			}
			c.Status(http.StatusOK)
			_, _ = c.Writer.Write(body)
		}
	}
	r.GET("/bare/:id", write(bareFields(fields)))
	r.GET("/gin/:id", gincache.Cache(cache, "product", "product:{id}", "catalog"), write(handlerFields(fields)))
	return netPair(title("Gin", fields), fmt.Sprintf("/gin/42?page=%d", fields), r)
}

func echoPair(cache *core.Cache, fields int) (pair, error) {
	e := echo.New()
	write := func(set [][2]string) echo.HandlerFunc {
		return func(c echo.Context) error {
			h := c.Response().Header()
			for _, f := range set {
				h.Set(f[0], f[1])
			}
			c.Response().WriteHeader(http.StatusOK)
			_, err := c.Response().Write(body)
			return err
		}
	}
	e.GET("/bare/:id", write(bareFields(fields)))
	e.GET("/echo/:id", write(handlerFields(fields)), echocache.Cache(cache, "product", "product:{id}", "catalog"))
	return netPair(title("Echo", fields), fmt.Sprintf("/echo/42?page=%d", fields), e)
}

func fiberPair(cache *core.Cache, fields int) (pair, error) {
	app := fiber.New(fiber.Config{DisableStartupMessage: true})
	write := func(set [][2]string) fiber.Handler {
		return func(c *fiber.Ctx) error {
			h := &c.Response().Header
			for _, f := range set {
				h.Set(f[0], f[1])
			}
			return c.Send(body)
		}
	}
	app.Get("/bare/:id", write(bareFields(fields)))
	app.Get("/fiber/:id", fibercache.Cache(cache, "product", "product:{id}", "catalog"), write(handlerFields(fields)))
	handler := app.Handler()
	serve := func(target string) (*fasthttp.RequestCtx, func()) {
		ctx := &fasthttp.RequestCtx{}
		ctx.Request.Header.SetMethod(fiber.MethodGet)
		ctx.Request.SetRequestURI(target)
		ctx.Request.Header.SetHost("shop.example")
		ctx.Request.Header.Set("Accept-Encoding", "gzip")
		ctx.Request.Header.Set("User-Agent", "bench")
		return ctx, func() {
			ctx.Response.Reset()
			handler(ctx)
		}
	}
	_, bare := serve("/bare/42?page=1")
	ctx, hit := serve(fmt.Sprintf("/fiber/42?page=%d", fields))
	hit()
	hit()
	p := pair{name: title("Fiber", fields), bare: bare, hit: hit}
	if len(ctx.Response.Header.Peek("Age")) == 0 || len(ctx.Response.Body()) != bodySize {
		return p, errors.New("Fiber: the second request is no hit: " + string(ctx.Response.Header.Peek("Cache-Status")))
	}
	return p, nil
}
