package echo5

import (
	"context"
	"log/slog"
	"net/http"
	"reflect"

	"github.com/labstack/echo/v5"

	"github.com/larderhq/larder/core/httpcache"
)

// run is one run of the handlers behind the cache. Their Response is uncommitted, without
// the hooks from outside, and writes to the capture. Content that the capture passes on goes
// to the writer that the context had.
type run struct {
	echo    *echo.Context
	outside http.ResponseWriter // the context's, to be put back
	inside  *echo.Response      // the handlers'
	before  echo.Response       // what inside was, where it is the Response from outside
	out     *output
	capture *httpcache.Writer
	further []further
}

// further is a Response further out than the handlers' one, and what had been written to
// it as the run began.
type further struct {
	response  *echo.Response
	committed bool
	size      int64
}

// begin gives a context the Response of a run. A Response that is the context's own writer
// is changed in place, so that code that holds it writes to the capture, too. In front of a
// writer of some middleware that is impossible: what is passed on goes through the
// Response behind that writer.
func begin(c *echo.Context, capture *httpcache.Capture) *run {
	r := &run{echo: c, outside: c.Response()}
	if res, ok := r.outside.(*echo.Response); ok {
		r.inside, r.before = res, *res
		r.out = &output{ResponseWriter: &r.before, response: &r.before}
		r.further = responses(res.ResponseWriter)
	} else {
		r.inside = new(echo.Response)
		r.out = &output{ResponseWriter: r.outside}
		r.further = responses(r.outside)
		if len(r.further) > 0 {
			r.out.response = r.further[0].response
		}
	}
	r.capture = httpcache.NewWriter(r.out, capture)
	*r.inside = *echo.NewResponse(r.capture, slog.New(overruling{c.Logger().Handler(), r.capture}))
	r.inside.Status = http.StatusOK // as Echo's own begin
	c.SetResponse(r.inside)
	return r
}

// end puts the context's own writer back.
func (r *run) end() {
	if r.inside == r.outside {
		*r.inside = r.before
		r.out.ResponseWriter, r.out.response = r.inside, r.inside
	}
	r.echo.SetResponse(r.outside)
}

// responses returns the Responses from a writer on.
func responses(w http.ResponseWriter) (list []further) {
	for {
		if res, ok := w.(*echo.Response); ok {
			list = append(list, further{res, res.Committed, res.Size})
		}
		u, wraps := w.(interface{ Unwrap() http.ResponseWriter })
		if !wraps {
			return list
		}
		w = u.Unwrap()
	}
}

// bypassed reports whether something has been written further out that the capture has not
// passed on: the handlers have held a writer from in front of the cache.
func (r *run) bypassed() bool {
	if r.out.used {
		return false // and so nothing is stored
	}
	for _, f := range r.further {
		if f.response.Committed != f.committed || f.response.Size != f.size {
			return true
		}
	}
	return false
}

// answer has Echo's error handler answer an error into the capture, if its answer may be
// one to remember. It returns what is left of the error.
func (r *run) answer(c *httpcache.Capture, err error) error {
	he := &httpcache.HandlerError{Err: err, Status: httpcache.StatusOf(err)}
	switch e := r.echo.Echo(); {
	case r.capture.Answered():
		he.Status = c.Status
		return he
	case r.bypassed(): // it has been answered, and no older response can be the answer
		he.Status = r.statusOutside()
		return he
	case e == nil || !c.WantsErrorAnswer(he.Status):
		return he
	default:
		r.echo.SetResponse(r.inside)
		header, fresh := r.inside.Header().Clone(), *r.inside
		e.HTTPErrorHandler(r.echo, err)
		if c.KeepsErrorAnswer() {
			return nil
		}
		he.Status = c.Status
		r.capture.Retract(header)
		*r.inside = fresh
		return he
	}
}

func (r *run) statusOutside() int {
	for _, f := range r.further {
		if f.response.Committed {
			return f.response.Status
		}
	}
	return 0
}

// output is the writer that a capture passes an answer on to.
type output struct {
	http.ResponseWriter
	response *echo.Response // behind ResponseWriter, or the same; nil: none
	used     bool
}

// Unwrap gives http.ResponseController the writer behind.
func (o *output) Unwrap() http.ResponseWriter { return o.ResponseWriter }

// WriteHeader implements http.ResponseWriter. A 1xx is not the answer yet, which a
// Response does not know.
func (o *output) WriteHeader(status int) {
	if status < 200 && status != http.StatusSwitchingProtocols {
		if o.response != nil {
			o.response.ResponseWriter.WriteHeader(status)
		}
		return
	}
	o.used = true
	o.ResponseWriter.WriteHeader(status)
}

// overruling is the log of the Response of a run. A Response reports a second status only
// there, without its number.
type overruling struct {
	slog.Handler
	capture *httpcache.Writer
}

// Enabled implements slog.Handler.
func (overruling) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements slog.Handler.
func (o overruling) Handle(ctx context.Context, r slog.Record) error {
	if o.capture.Size() > 0 {
		o.capture.Abort(http.StatusInternalServerError)
	}
	if !o.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return o.Handler.Handle(ctx, r)
}

// hooks is where a Response keeps what [echo.Response.Before] has set. nil: not in this
// version of Echo.
var hooks = func() []int { //nolint:gochecknoglobals // a constant
	f, ok := reflect.TypeFor[echo.Response]().FieldByName("beforeFuncs")
	if !ok || f.Type.Kind() != reflect.Slice {
		return nil
	}
	return f.Index
}()

// Outer implements httpcache.OuterReporter: writers, and hooks of [echo.Response.Before].
func (x *exchange) Outer() httpcache.Outer {
	res, ok := x.Writer.(*echo.Response)
	if !ok || hooks == nil || reflect.ValueOf(res).Elem().FieldByIndex(hooks).Len() > 0 {
		return httpcache.OuterUnknown
	}
	return httpcache.OuterOf(res.ResponseWriter)
}
