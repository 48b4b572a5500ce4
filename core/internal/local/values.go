package local

import (
	"context"
	"reflect"
	"sync"
	"time"
)

// A load may outlast the call that began it: its caller leaves, or nobody waits for it (a
// refresh). The values of the caller's context are the load's as well, and those of a
// context of package context do not change. A framework's own context does: Gin and
// fasthttp recycle theirs when the request is over, and give it to the next one.
//
//	Get(c), load, the caller leaves, c serves another request, load asks c for a value
//
// would be a data race, and would answer with the value of another request. Such a
// context is lent to the load: its values are read until the call returns, and no longer.

// Lend returns a context with the values of ctx for what may outlast the caller, and the
// function that the caller calls before it returns: what can be recycled is not
// asked any more after that.
func Lend(ctx context.Context) (lent context.Context, end func()) {
	if lasts(reflect.ValueOf(ctx), maxLayers) {
		return ctx, func() {}
	}
	l := &lending{Context: context.Background(), of: ctx}
	return l, l.end
}

// lasting returns a context with the values of ctx that can be read at any time: all, or
// none where ctx may be recycled.
func lasting(ctx context.Context) context.Context {
	if lasts(reflect.ValueOf(ctx), maxLayers) {
		return ctx
	}
	return context.Background()
}

// lending is a context whose values are another one's until its end.
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

// Undated returns ctx without its deadline: it ends when ctx is cancelled.
func Undated(ctx context.Context) context.Context { return undated{ctx} }

// undated is a context without a deadline of its own.
type undated struct{ context.Context }

// Deadline implements context.Context.
func (undated) Deadline() (time.Time, bool) { return time.Time{}, false }

// maxLayers is how many contexts one may be wrapped in to be looked through.
const maxLayers = 1 << 10

//nolint:gochecknoglobals // constants
var (
	contextType = reflect.TypeFor[context.Context]()
	lendingType = reflect.TypeFor[*lending]()
	stdPackage  = reflect.TypeFor[context.CancelCauseFunc]().PkgPath()
)

// lasts reports whether the values of a context can be read at any time. It looks through
// the contexts of package context and those that embed a context, down to their roots. A
// root of another package may be recycled; so may one whose roots cannot be seen. It
// reads nothing but fields that hold contexts, which are set once.
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

// within looks at the contexts that a struct holds: whether it embeds one, or is a part of
// package context that holds one, and whether all of them last.
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
