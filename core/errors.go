package core

import (
	"errors"
	"fmt"

	"github.com/larderhq/larder/core/internal/coherence"
	"github.com/larderhq/larder/core/internal/tier"
)

// Errors that callers can test for with errors.Is.
var (
	// ErrNotFound is what a loader returns (or wraps) for an id that does not
	// exist. It is remembered for the class's NegativeTTL.
	ErrNotFound = errors.New("larder: not found")
	// ErrNotModified is what a loader returns (or wraps) for a value that StaleValue
	// has offered to it and that still holds. It is kept for another TTL. From a
	// loader that was offered none it is an error like any other.
	ErrNotModified = errors.New("larder: not modified")
	// ErrClosed is returned after Close by what can no longer be done: Invalidate,
	// Begin, Put. Handlers and loaders run as if there were no cache.
	ErrClosed = errors.New("larder: cache is closed")
	// ErrBusy is returned to who waited for twice the class's LoadTimeout for
	// other loads of the same key. A handler's request is answered 503 then.
	ErrBusy = coherence.ErrBusy
	// ErrPending is returned when the shared tier has not confirmed an invalidation.
	ErrPending = coherence.ErrPending
	// ErrUnusable is returned by New when the shared tier can be reached and cannot be
	// used as it is: a wrong client, version or permission, or a server that does not
	// know, or allow in scripts, what the tier needs.
	ErrUnusable = tier.ErrUnusable
	// ErrNoScope is returned by the context functions where no handler or loader
	// of Larder's is running.
	ErrNoScope = errors.New("larder: context does not belong to a cached handler, an invalidating handler or a loader")
)

// ConfigError is bad input: to a constructor, or to a call. Nothing has been
// done when it is returned.
type ConfigError struct {
	Field   string // what was wrong, as the caller wrote it: "Class.TTL"
	Value   any    // what it was
	Allowed string // what it may be
}

func (e *ConfigError) Error() string {
	return fmt.Sprintf("larder: %s is %#v; allowed: %s", e.Field, e.Value, e.Allowed)
}

// PanicError is returned to the caller whose loader panicked or called
// runtime.Goexit. Those who waited for that load never see it: they load for
// themselves.
type PanicError struct {
	Value any    // what the loader panicked with; nil for runtime.Goexit
	Stack []byte // where
}

func (e *PanicError) Error() string {
	if e.Value == nil {
		return "larder: loader called runtime.Goexit"
	}
	return fmt.Sprintf("larder: loader panicked: %v", e.Value)
}

// Unwrap returns the error that the loader panicked with, if it was one.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}
