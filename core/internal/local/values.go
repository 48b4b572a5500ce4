package local

import (
	"context"
	"reflect"
	"sync"
	"time"
)

// A load may outlive the call that began it: its caller leaves, or it is a refresh. The load
// reads the values of the caller's context. The values of a context of package context do not
// change. The contexts of some frameworks do: Gin and fasthttp recycle theirs after the request,
// for another request. The following sequence would be a data race, and the load would get the
// value of another request:
//
//	Get(c), load, the caller leaves, c serves another request, load reads a value of c
//
// Such a context is lent to the load: its values are read only until the call returns.

// Lend returns a context with the values of ctx for work that may outlive the caller. The caller
// calls end before it returns. A context that can be recycled is not read after that.
func Lend(ctx context.Context) (lent context.Context, end func()) {
	if lasts(reflect.ValueOf(ctx), maxLayers) {
		return ctx, func() {}
	}
	l := &lending{Context: context.Background(), of: ctx}
	return l, l.end
}

// lasting returns a context that can be read at any time: with the values of ctx, or without
// values if ctx may be recycled.
func lasting(ctx context.Context) context.Context {
	if lasts(reflect.ValueOf(ctx), maxLayers) {
		return ctx
	}
	return context.Background()
}

// lending is a context with the values of another one until end is called.
type lending struct {
	context.Context
	mu sync.RWMutex
	of context.Context // nil: it has ended
}

// Value implements context.Context.
func (l *lending) Value(key any) any {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.of == nil {
		return nil
	}
	return l.of.Value(key)
}

func (l *lending) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.of = nil
}

// WithoutDeadline returns a context that reports no deadline. It ends when ctx ends.
func WithoutDeadline(ctx context.Context) context.Context { return withoutDeadline{ctx} }

// withoutDeadline is a context that reports no deadline.
type withoutDeadline struct{ context.Context }

// Deadline implements context.Context.
func (withoutDeadline) Deadline() (time.Time, bool) { return time.Time{}, false }

// maxLayers bounds the nesting of contexts that lasts looks through.
const maxLayers = 1 << 10

//nolint:gochecknoglobals // constants
var (
	contextType = reflect.TypeFor[context.Context]()
	lendingType = reflect.TypeFor[*lending]()
	stdPackage  = reflect.TypeFor[context.CancelCauseFunc]().PkgPath()
)

// lasts reports whether the values of a context can be read at any time. It looks through the
// contexts of package context, and through those that embed a context, down to their roots. A
// root of another package may be recycled, and so may a context whose root cannot be seen.
// lasts reads only fields that hold contexts, which are set once.
func lasts(v reflect.Value, layers int) bool {
	for v.Kind() == reflect.Interface && !v.IsNil() {
		v = v.Elem()
	}
	if !v.IsValid() || layers == 0 {
		return false
	}
	t := v.Type()
	if t == lendingType {
		return true
	}
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return false
		}
		v = v.Elem()
	}
	if v.Kind() != reflect.Struct {
		return v.Type().PkgPath() == stdPackage
	}
	seen, all := within(v, layers)
	return all && (seen || v.Type().PkgPath() == stdPackage)
}

// within examines the contexts in the fields of a struct. seen: the struct embeds a context, or
// is of package context and holds one. all: all of them last.
func within(v reflect.Value, layers int) (seen, all bool) {
	std := v.Type().PkgPath() == stdPackage
	for i := range v.NumField() {
		field := v.Type().Field(i)
		switch {
		case field.Type == contextType:
			if !lasts(v.Field(i), layers-1) {
				return seen, false
			}
			seen = seen || field.Anonymous || std
		case std && field.Anonymous && field.Type.Kind() == reflect.Struct:
			inner, ok := within(v.Field(i), layers-1)
			if !ok {
				return seen, false
			}
			seen = seen || inner
		}
	}
	return seen, true
}
