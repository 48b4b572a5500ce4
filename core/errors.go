package core

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/larderhq/larder/core/internal/coherence"
	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/naming"
	"github.com/larderhq/larder/core/internal/tier"
)

// Errors that callers can test for with errors.Is.
var (
	// ErrNotFound is returned (or wrapped) by a loader for an id that does not exist. It
	// is remembered for Class.NegativeTTL.
	ErrNotFound = errors.New("larder: not found")
	// ErrNotModified is returned (or wrapped) by a loader for a value that [StaleValue] has
	// offered to it and that is still current. The value is kept for another TTL. From a
	// loader that was offered no value it is an error like any other.
	ErrNotModified = errors.New("larder: not modified")
	// ErrClosed is returned after [Cache.Close] by calls that a closed cache cannot
	// serve: Invalidate, Begin, Put, Warm. Handlers and loaders run as if there were no
	// cache.
	ErrClosed = errors.New("larder: cache is closed")
	// ErrBusy is returned to a caller that has waited for twice Class.LoadTimeout for
	// other loads of the same key. A request of a handler gets 503 then.
	ErrBusy = local.ErrBusy
	// ErrPending is the error of an invalidation that the shared tier has not confirmed: see
	// [Cache.Invalidate]. The cache retries it until it succeeds.
	ErrPending = coherence.ErrPending
	// ErrUnusable is returned by [New] when the shared tier can be reached and cannot be
	// used: a wrong client, version or permission, or a server that lacks a command that
	// the tier needs, or forbids it in scripts.
	ErrUnusable = tier.ErrUnusable
	// ErrNoScope is returned by the functions on contexts ([AddTags], [SetTTL] and
	// others) for a context of no handler, invalidating handler or loader of Larder.
	ErrNoScope = errors.New("larder: context does not belong to a cached handler, an invalidating handler or a loader")
)

// ConfigError is an invalid argument or option. Nothing has been done when it is
// returned. Find it with errors.As.
type ConfigError struct {
	Field   string // the field or argument, as the caller writes it: "Options.MaxBytes"
	Value   any    // its value; of a long string the beginning
	Allowed string // the allowed values, in words
}

// Error implements error: it has the field, its value and the allowed values.
func (e *ConfigError) Error() string {
	return fmt.Sprintf("larder: %s is %#v; allowed: %s", e.Field, e.Value, e.Allowed)
}

// PanicError is returned to the caller whose loader, codec or clone function panicked or
// called runtime.Goexit. Callers that waited for that load never get it: they load for
// themselves.
type PanicError struct {
	Value any    // the value of the panic; nil for runtime.Goexit
	Stack []byte // the stack of the goroutine, as text
}

// Error implements error.
func (e *PanicError) Error() string {
	if e.Value == nil {
		return "larder: loader called runtime.Goexit"
	}
	return fmt.Sprintf("larder: loader panicked: %v", e.Value)
}

// Unwrap returns the value of the panic if it is an error, nil otherwise.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// Limits that are not options. Each is far above the needs of an app, and low enough to
// bound memory and time.
const (
	// MaxKeyBytes is the longest key, tag, pattern or prefix, in bytes.
	MaxKeyBytes = naming.MaxBytes
	// MaxTagsPerEntry is the largest number of tags of an entry. An entry with more is not
	// stored.
	MaxTagsPerEntry = naming.MaxTags
	// MaxValidatorBytes is the longest validator ([SetValidator]), in bytes.
	MaxValidatorBytes = 1024
	// MaxDuration is the longest duration of a class or an option: 365 days.
	MaxDuration = 365 * 24 * time.Hour
	// MinDuration is the shortest duration that is not zero, since the shared tier counts
	// in milliseconds.
	MinDuration = time.Millisecond
)

func checkDuration(field string, d time.Duration) error {
	if d == 0 || d >= MinDuration && d <= MaxDuration {
		return nil
	}
	return &ConfigError{Field: field, Value: d.String(), Allowed: "0, or 1ms to 8760h (a year)"}
}

// checkName checks a key, tag, pattern or prefix.
func checkName(field, s string) error {
	switch {
	case s == "":
		return &ConfigError{Field: field, Value: s, Allowed: "a string of 1 to 1024 bytes"}
	case len(s) > MaxKeyBytes:
		return &ConfigError{Field: field, Value: s[:32] + "…", Allowed: "a string of 1 to 1024 bytes"}
	case naming.HasControl(s):
		return &ConfigError{Field: field, Value: strings.Clone(s), Allowed: "no control characters (bytes 0x00 to 0x1f, 0x7f)"}
	}
	return nil
}
