package fast

import (
	"reflect"
	"unsafe"

	"github.com/valyala/fasthttp"

	"github.com/larderhq/larder/core/httpcache"
)

// sharedBody is the shortest stored body that an answer shares with the cache. To copy a
// shorter one takes less than a tenth of a hit.
const sharedBody = 2 << 10

// setBody gives the response a stored body. It is a copy where code outside may change the
// bytes in place, or append to them: fasthttp loses a body that is not its own when something
// is appended to it.
func (x *Exchange) setBody(resp *fasthttp.Response, body []byte) {
	if len(body) < sharedBody || x.Outer() != httpcache.OuterNone || !sentBy(x.ctx, x.Request.Server(), x.Request.AppHandler()) {
		resp.SetBody(body)
		return
	}
	resp.SetBodyRaw(body[:len(body):len(body)])
}

// sentBy reports whether an answer goes from the app straight to the app's server: no handler
// of fasthttp is around that of the app. The caller of a context without a server may do anything
// with the answer.
func sentBy(ctx *fasthttp.RequestCtx, of *fasthttp.Server, app uintptr) bool {
	if serverOf == nil {
		return false
	}
	server := serverOf(ctx)
	return server != nil && server == of && reflect.ValueOf(server.Handler).Pointer() == app
}

// serverOf returns the server that a context belongs to. nil: not in this version of
// fasthttp.
var serverOf = func() func(*fasthttp.RequestCtx) *fasthttp.Server { //nolint:gochecknoglobals // a constant
	f, ok := reflect.TypeFor[fasthttp.RequestCtx]().FieldByName("s")
	if !ok || f.Type != reflect.TypeFor[*fasthttp.Server]() || len(f.Index) != 1 {
		return nil
	}
	return func(ctx *fasthttp.RequestCtx) *fasthttp.Server {
		return *(**fasthttp.Server)(unsafe.Add(unsafe.Pointer(ctx), f.Offset))
	}
}()
