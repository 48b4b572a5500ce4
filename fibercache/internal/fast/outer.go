package fast

import (
	"reflect"
	"regexp"
	"runtime"
	"strings"

	"github.com/valyala/fasthttp"

	"github.com/larderhq/larder/core/httpcache"
)

// Outer implements httpcache.OuterReporter. Fiber's middleware changes an answer after its
// handlers have returned, without a writer that could be looked at. An app's routes and
// their handlers stay as they are, so that each route is looked at once.
func (x *Exchange) Outer() httpcache.Outer {
	if front, ok := x.state.outers.Load(x.route); ok {
		return front.(httpcache.Outer)
	}
	front := x.Request.Outer(x.route)
	x.state.outers.Store(x.route, front)
	return front
}

// Own is where an adapter's middleware is, and what the middleware of its major of Fiber does.
type Own struct {
	// File is the file that the adapter's middleware is in: FileOf.
	File string
	// Middleware matches the file of one of Fiber's own, with its package's name.
	Middleware *regexp.Regexp
	// Harmless are the packages whose middleware sets no cookie behind its handlers, and
	// leaves their content as it is.
	Harmless map[string]bool
}

// FileOf returns the file that a function is in. Its name would tell less: that of a
// function literal names the function into which its own has been inlined.
func FileOf(fn any) string {
	pc := reflect.ValueOf(fn).Pointer()
	file, _ := runtime.FuncForPC(pc).FileLine(pc)
	return file
}

// OuterOfHandlers returns what handlers do to an answer, up to the first one of the
// adapter's own.
func OuterOfHandlers[H any](own *Own, handlers []H) (front httpcache.Outer) {
	for _, h := range handlers {
		file := FileOf(h)
		if file == own.File {
			return front
		}
		name := ""
		if m := own.Middleware.FindStringSubmatch(file); m != nil {
			name = m[1]
		}
		switch {
		case name == "compress":
			front = max(front, httpcache.OuterEncoder)
		case !own.Harmless[name]:
			front = max(front, httpcache.OuterUnknown)
		}
	}
	return front
}

// Meets reports whether a request for a route may have come through an earlier one, a
// pointer to a fiber.Route: middleware whose prefix may be the route's, or handlers of the
// same path.
func Meets(earlier any, earlierPath, path string) bool {
	use := reflect.ValueOf(earlier).Elem().FieldByName("use")
	if use.IsValid() && use.Kind() == reflect.Bool && !use.Bool() {
		return earlierPath == path || strings.HasSuffix(earlierPath, "*")
	}
	a, b := literal(earlierPath), literal(path)
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

// Before implements httpcache.OuterReporter.
func (x *Exchange) Before(name string) []string {
	h := &x.before
	if !x.ran {
		h = &x.ctx.Response.Header
	}
	if name != fasthttp.HeaderContentType && name != fasthttp.HeaderServer && isFresh(h) { // as for most hits
		return nil
	}
	if x.namesAsTheyCome() {
		i, found := find(fieldsOf(h), name)
		if !found {
			return nil
		}
		return fieldsOf(h)[i].Values
	}
	if name == fasthttp.HeaderContentEncoding && len(h.ContentEncoding()) == 0 || len(h.Peek(name)) == 0 {
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
func (x *Exchange) NotifySent(fn func(httpcache.SentHeader)) {
	x.deferred, x.asTheyCome = true, x.namesAsTheyCome()
	resp, _ := x.response()
	w := &whenSent{header: &resp.Header, fn: fn}
	x.ctx.SetUserValue(w, w)
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
