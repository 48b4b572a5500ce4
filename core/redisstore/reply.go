package redisstore

import (
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"
)

// The types of replies are checked, since a proxy or another make of server may answer anything.

func asString(v any) (string, error) {
	s, ok := v.(string)
	if !ok {
		return "", fmt.Errorf("%w: %T for a string", errReply, v)
	}
	return s, nil
}

// reply is an array of values that are read one by one. After an error it returns zeros.
type reply struct {
	rest []any
	err  error
}

func newReply(v any) *reply {
	values, ok := v.([]any)
	if !ok {
		return &reply{err: fmt.Errorf("%w: %T for an array", errReply, v)}
	}
	return &reply{rest: values}
}

func (r *reply) next() any {
	if r.err != nil {
		return nil
	}
	if len(r.rest) == 0 {
		r.err = fmt.Errorf("%w: an array that is too short", errReply)
		return nil
	}
	v := r.rest[0]
	r.rest = r.rest[1:]
	return v
}

func (r *reply) string() string {
	v := r.next()
	if r.err != nil {
		return ""
	}
	s, err := asString(v)
	r.err = err
	return s
}

// optional reads a string that may be nil.
func (r *reply) optional() string {
	v := r.next()
	if v == nil {
		return ""
	}
	s, err := asString(v)
	if r.err == nil {
		r.err = err
	}
	return s
}

func (r *reply) int() int64 {
	v := r.next()
	if r.err != nil {
		return 0
	}
	n, ok := v.(int64)
	if !ok {
		r.err = fmt.Errorf("%w: %T for an integer", errReply, v)
	}
	return n
}

func (r *reply) array() *reply {
	v := r.next()
	if r.err != nil {
		return &reply{err: r.err}
	}
	a := newReply(v)
	r.err = a.err
	return a
}

// clockOf returns the time of a reply to TIME, in milliseconds.
func clockOf(v any) (int64, error) {
	r := newReply(v)
	seconds, micros := r.string(), r.string()
	if r.err != nil {
		return 0, r.err
	}
	sec, err1 := strconv.ParseInt(seconds, 10, 64)
	usec, err2 := strconv.ParseInt(micros, 10, 64)
	if err1 != nil || err2 != nil {
		return 0, fmt.Errorf("%w: a clock of %q and %q", errReply, seconds, micros)
	}
	return sec*1000 + usec/1000, nil
}

// isWrongType reports whether a key holds a value of another type.
func isWrongType(err error) bool { return redis.HasErrorPrefix(err, "WRONGTYPE") }
