package core

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// notFoundError is an error of MapOptions.NotFound, and ErrNotFound.
type notFoundError struct {
	is error // of a loader, or as the map's options list it
}

// Error implements error.
func (e *notFoundError) Error() string { return e.is.Error() }

// Unwrap returns both errors.
func (e *notFoundError) Unwrap() []error { return []error{e.is, ErrNotFound} }

// notFounds are the errors by which loaders of a map say that an id does not exist, beside
// ErrNotFound.
type notFounds []*notFoundError

// notFoundsOf returns the errors of MapOptions.NotFound, or a *ConfigError. Their texts
// identify them in the shared tier, which keeps a "not found" with its error.
func notFoundsOf(list []error) (notFounds, error) {
	const allowed = "errors with texts of 1 to 1024 bytes, each different, and not an error of a context or ErrNotModified"
	known := make(notFounds, 0, len(list))
	for _, err := range list {
		switch {
		case err == nil:
			return nil, &ConfigError{"MapOptions.NotFound", nil, allowed}
		case err.Error() == "", len(err.Error()) > MaxKeyBytes, known.byText(err.Error()) != nil,
			errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, ErrNotModified):
			return nil, &ConfigError{"MapOptions.NotFound", err.Error()[:min(len(err.Error()), 32)], allowed}
		}
		known = append(known, &notFoundError{err})
	}
	return known, nil
}

// byText returns the listed error with a text, nil if there is none.
func (n notFounds) byText(text string) *notFoundError {
	for _, e := range n {
		if e.is.Error() == text {
			return e
		}
	}
	return nil
}

// of returns the listed error that err wraps, nil if there is none.
func (n notFounds) of(err error) *notFoundError {
	for _, e := range n {
		if errors.Is(err, e.is) {
			return e
		}
	}
	return nil
}

// error returns the error of a loader. If it says that the id does not exist, it is ErrNotFound as
// well.
func (n notFounds) error(err error) error {
	if err == nil || len(n) == 0 || n.of(err) == nil || errors.Is(err, ErrNotFound) {
		return err
	}
	return &notFoundError{err}
}

// unnamed returns the error for an id of which the cache itself knows that it does not exist: a
// batch lacks it, or a queued change deletes it. Code that tests for an error of the database
// finds it, too.
func (n notFounds) unnamed() error {
	if len(n) == 0 {
		return ErrNotFound
	}
	return n[0]
}

// texts identifies the list, for a map's options.
func (n notFounds) texts() string {
	var b strings.Builder
	for _, e := range n {
		fmt.Fprintf(&b, "%q", e.is.Error())
	}
	return b.String()
}

// absent is stored in place of a value that does not exist.
type absent struct {
	as *notFoundError // nil: ErrNotFound
}

// error returns the error that hits get.
func (a absent) error() error {
	if a.as == nil {
		return ErrNotFound
	}
	return a.as
}
