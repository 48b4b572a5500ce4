package tier

import "errors"

// RefusalError is an error that a server of the tier has replied.
type RefusalError struct {
	// Kind is one of a few words, such as NOPERM: what the log says once.
	Kind string
	// Permanent: the same call will be refused again until somebody changes the
	// server's configuration or the program.
	Permanent bool
	Err       error
}

func (r *RefusalError) Error() string { return r.Err.Error() }

// Unwrap returns what was replied.
func (r *RefusalError) Unwrap() error { return r.Err }

// KindOf returns the kind of the refusal in err, "" if there is none: then no server
// has answered.
func KindOf(err error) string {
	var r *RefusalError
	if errors.As(err, &r) {
		return r.Kind
	}
	return ""
}

// IsPermanent reports whether it is in vain to try again what failed with err.
func IsPermanent(err error) bool {
	var r *RefusalError
	return errors.Is(err, ErrUnusable) || errors.As(err, &r) && r.Permanent
}

// Reporter is what a Session may implement: it tells of each call that a server has
// refused, also where the caller makes nothing of the error. It must not be called
// while calls are on the way.
type Reporter interface {
	OnRefusal(report func(error))
}

// Limited is what a Session may implement: what its servers lack, each with what comes
// of it, in a sentence for the log.
type Limited interface {
	Limits() []string
}
