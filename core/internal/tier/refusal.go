package tier

import "errors"

// RefusalError is an error reply of a server of the tier.
type RefusalError struct {
	// Kind is one of a few words, such as NOPERM. The log reports each kind once.
	Kind string
	// Permanent says that the same call will be refused again until the server's
	// configuration or the program is changed.
	Permanent bool
	Err       error
}

func (r *RefusalError) Error() string { return r.Err.Error() }

// Unwrap returns the reply.
func (r *RefusalError) Unwrap() error { return r.Err }

// KindOf returns the kind of the refusal in err, and "" if err is no reply of a server.
func KindOf(err error) string {
	var r *RefusalError
	if errors.As(err, &r) {
		return r.Kind
	}
	return ""
}

// IsPermanent reports whether a call that failed with err would fail again.
func IsPermanent(err error) bool {
	var r *RefusalError
	return errors.Is(err, ErrUnusable) || errors.As(err, &r) && r.Permanent
}

// Reporter is an optional interface of a Session. OnRefusal sets a function that receives
// the error of each call that a server refuses, including errors that the caller ignores.
// OnRefusal must not be called concurrently with other methods.
type Reporter interface {
	OnRefusal(report func(error))
}

// Limited is an optional interface of a Session. Limits returns a sentence for the log for
// each feature that its servers lack, with the consequence.
type Limited interface {
	Limits() []string
}
