package fibercache

import (
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"

	"github.com/larderhq/larder/core/httpcache"
)

// Outer implements httpcache.OuterReporter. Fiber's middleware changes an answer after its
// handlers have returned, without a writer that could be looked at. The middleware on
// the way to the route is known by the files that its functions are in: an app's
// routes and their handlers stay as they are.
func (x *exchange) Outer() httpcache.Outer {
	if front, ok := x.state.outers.Load(x.route); ok {
		return front.(httpcache.Outer)
	}
	front := outerOf(x.c.App().Stack(), x.route)
	x.state.outers.Store(x.route, front)
	return front
}

// outerOf returns what stands in front of the first middleware of this package on a
// route.
func outerOf(stack [][]*fiber.Route, at *fiber.Route) httpcache.Outer {
	for _, routes := range stack {
		i := slices.Index(routes, at)
		if i < 0 {
			continue
		}
		front := httpcache.OuterNone
		for _, r := range routes[:i] {
			if meets(r, at) {
				front = max(front, outerOfHandlers(r.Handlers))
			}
		}
		return max(front, outerOfHandlers(at.Handlers))
	}
	return httpcache.OuterUnknown
}

// meets reports whether a request for a route may have come through an earlier one:
// middleware whose prefix may be the route's, or handlers of the same path.
func meets(earlier, route *fiber.Route) bool {
	use := reflect.ValueOf(earlier).Elem().FieldByName("use")
	if use.IsValid() && use.Kind() == reflect.Bool && !use.Bool() {
		return earlier.Path == route.Path || strings.HasSuffix(earlier.Path, "*")
	}
	a, b := literal(earlier.Path), literal(route.Path)
	return strings.HasPrefix(a, b) || strings.HasPrefix(b, a)
}

// literal returns the beginning of a path in which no parameter is, as it is compared
// by the least strict of apps.
func literal(path string) string {
	if i := strings.IndexAny(path, ":*+"); i >= 0 {
		path = path[:i]
	}
	return strings.TrimRight(strings.ToLower(path), "/")
}

// outerOfHandlers returns what handlers do to an answer, up to the first one of this
// package.
func outerOfHandlers(handlers []fiber.Handler) (front httpcache.Outer) {
	for _, h := range handlers {
		file := fileOf(h)
		if file == ownFile {
			return front
		}
		name := ""
		if m := fiberMiddleware.FindStringSubmatch(file); m != nil {
			name = m[1]
		}
		switch {
		case name == "compress":
			front = max(front, httpcache.OuterEncoder)
		case !harmless[name]:
			front = max(front, httpcache.OuterUnknown)
		}
	}
	return front
}

// fileOf returns the file that a function is in. Its name would tell less: that of a
// function literal names the function into which its own has been inlined.
func fileOf(fn any) string {
	pc := reflect.ValueOf(fn).Pointer()
	file, _ := runtime.FuncForPC(pc).FileLine(pc)
	return file
}

//nolint:gochecknoglobals // constants
var (
	ownFile         = fileOf(middleware)
	fiberMiddleware = regexp.MustCompile(`/gofiber/fiber/v2(?:@[^/]+)?/middleware/([a-z]+)/[^/]+$`)
)

// harmless is Fiber's own middleware that sets no cookie behind its handlers, and
// leaves their content as it is.
var harmless = map[string]bool{ //nolint:gochecknoglobals // a constant
	"basicauth": true, "cors": true, "csrf": true, "earlydata": true, "encryptcookie": true, "etag": true, "expvar": true,
	"favicon": true, "filesystem": true, "healthcheck": true, "helmet": true, "keyauth": true, "limiter": true, "logger": true,
	"monitor": true, "pprof": true, "recover": true, "redirect": true, "requestid": true, "rewrite": true,
}

// Before implements httpcache.OuterReporter.
func (x *exchange) Before(name string) []string {
	h := &x.before
	if !x.ran {
		h = &x.c.Response().Header
	}
	if name != fiber.HeaderContentType && name != fiber.HeaderServer && isFresh(h) { // as for most hits
		return nil
	}
	if x.namesAsTheyCome() {
		i, found := find(fieldsOf(h), name)
		if !found {
			return nil
		}
		return fieldsOf(h)[i].Values
	}
	if name == fiber.HeaderContentEncoding && len(h.ContentEncoding()) == 0 || len(h.Peek(name)) == 0 {
		return nil
	}
	var values []string
	for _, v := range h.PeekAll(name) {
		values = append(values, string(v))
	}
	return values
}

// NotifySent implements httpcache.SentNotifier: fasthttp closes a request's user values
// when its answer has been sent.
func (x *exchange) NotifySent(fn func(httpcache.SentHeader)) {
	x.deferred, x.asTheyCome = true, x.namesAsTheyCome()
	fctx := x.c.Context()
	w := &whenSent{header: &fctx.Response.Header, fn: fn}
	fctx.SetUserValue(w, w)
}

type whenSent struct {
	header *fasthttp.ResponseHeader
	fn     func(httpcache.SentHeader)
}

// Close implements io.Closer.
func (w *whenSent) Close() error {
	if fn := w.fn; fn != nil {
		w.fn = nil
		fn(newHeader(w.header, new(fasthttp.ResponseHeader), false))
	}
	return nil
}
