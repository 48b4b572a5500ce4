package fibercache

import (
	"reflect"
	"unsafe"

	"github.com/valyala/fasthttp"
)

// SetServer makes a context one of a server, as the server makes it for each connection.
func SetServer(ctx *fasthttp.RequestCtx, server *fasthttp.Server) {
	field := reflect.ValueOf(ctx).Elem().FieldByName("s")
	*(**fasthttp.Server)(unsafe.Pointer(field.UnsafeAddr())) = server
}
