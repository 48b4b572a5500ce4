package core

import (
	"log/slog"
	"strings"
	"time"

	"github.com/larderhq/larder/core/internal/tier"
)

// Options configure a [Cache]. Every field is optional. Durations are 0, for the default,
// or [MinDuration] to [MaxDuration]. [New] returns a *[ConfigError] for a value out of
// range.
type Options struct {
	// Remote is the tier that instances share. Default nil: everything stays in this
	// process.
	Remote Remote
	// RequireRemote makes New fail if Remote refuses a call, proves nothing of past
	// invalidations, or is not ready within 5 s. Until then New tries again, since a server
	// may be slow while it starts; the error contains the reason of the last failure.
	// Default false: New waits for Remote for up to 1 s, succeeds in any case and connects later,
	// unless Remote is unusable ([ErrUnusable]).
	RequireRemote bool
	// RemoteBudget bounds the total time that one request waits for Remote. It bounds
	// neither loads nor the wait for a load of another instance. Default 50ms.
	//
	// A miss needs one round trip before its load and one after it, a hit of Remote one
	// or two. The cache measures the round trip continuously. If the budget has no room
	// for the second one, the response is sent first and the value is stored behind it.
	// If it has no room for the first, a request does not ask Remote: it is answered by
	// its load, and the value of Remote, or of a second load, is stored behind the
	// response. Then instances do not share loads, and Logger gets, once, the budget that
	// they need: three round trips are enough. LATENCY.md in package redisstore has a
	// table of the effects.
	RemoteBudget time.Duration
	// MaxStaleness is how long another instance may answer an invalidated value when
	// every message to it is lost. Default 1s, at least 100ms.
	MaxStaleness time.Duration

	// Classes are the kinds of data.
	Classes Classes
	// Namespace separates the caches of different apps on one Redis. It has up to
	// [MaxKeyBytes] bytes, without braces and control characters. Default "larder".
	Namespace string
	// Version is part of every entry's key, with the same limits as Namespace. A deploy
	// with other templates or types sets another; invalidations reach all versions.
	// Default "".
	Version string
	// MaxBytes bounds the in-process tier, in bytes: keys, header fields, bodies and
	// bookkeeping. Default 64 MiB, at least 64 KiB. The log of recent invalidations is not
	// counted. It holds those of 45 s, at most 524,288 of them: about 50 MB at that limit,
	// and less than 2 MB below 16,384.
	MaxBytes int64
	// MaxRefreshes is how many background refreshes run concurrently, 1 to 65536. Further
	// ones are left to later requests. Default 64.
	MaxRefreshes int
	// WriteTimeout is how long a writer may be at work: the deadline of an [Intent].
	// Default 30s.
	WriteTimeout time.Duration
	// CloseTimeout is how long [Cache.Close] waits for write-behind queues, and again for
	// loads. Default 5s.
	CloseTimeout time.Duration
	// Logger gets what an operator should know, once per cause. Default slog.Default().
	Logger *slog.Logger

	wall func() int64 // the wall clock, for tests
}

const (
	minMaxBytes     = 64 << 10
	minMaxStaleness = 100 * time.Millisecond
)

func (o Options) resolve() (Options, error) {
	for _, d := range []struct {
		name string
		d    *time.Duration
		def  time.Duration
	}{
		{"RemoteBudget", &o.RemoteBudget, 50 * time.Millisecond},
		{"MaxStaleness", &o.MaxStaleness, time.Second},
		{"WriteTimeout", &o.WriteTimeout, 30 * time.Second},
		{"CloseTimeout", &o.CloseTimeout, 5 * time.Second},
	} {
		if err := checkDuration("Options."+d.name, *d.d); err != nil {
			return o, err
		}
		if *d.d == 0 {
			*d.d = d.def
		}
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = 64 << 20
	}
	if o.MaxRefreshes == 0 {
		o.MaxRefreshes = 64
	}
	if o.Namespace == "" {
		o.Namespace = "larder"
	}
	o.Namespace, o.Version = strings.Clone(o.Namespace), strings.Clone(o.Version)
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	switch {
	case o.MaxStaleness < minMaxStaleness:
		return o, &ConfigError{"Options.MaxStaleness", o.MaxStaleness.String(), "100ms or more"}
	case o.MaxBytes < minMaxBytes:
		return o, &ConfigError{"Options.MaxBytes", o.MaxBytes, "0 (64 MiB), or 65536 and more"}
	case o.MaxRefreshes < 0 || o.MaxRefreshes > 1<<16:
		return o, &ConfigError{"Options.MaxRefreshes", o.MaxRefreshes, "0 (64) to 65536"}
	case strings.ContainsAny(o.Namespace, "{}"):
		return o, &ConfigError{"Options.Namespace", o.Namespace, "no braces: Redis Cluster reads them as a hash tag"}
	case strings.ContainsAny(o.Version, "{}"):
		return o, &ConfigError{"Options.Version", o.Version, "no braces: Redis Cluster reads them as a hash tag"}
	}
	if err := checkName("Options.Namespace", o.Namespace); err != nil {
		return o, err
	}
	if o.Version != "" {
		if err := checkName("Options.Version", o.Version); err != nil {
			return o, err
		}
	}
	var err error
	if o.Classes, err = o.Classes.resolve(); err != nil {
		return o, err
	}
	return o, o.Classes.checkSizes(o.MaxBytes)
}

// Remote is the tier that several instances share: redisstore.New returns the one on
// Redis. The interface is sealed: its types are internal, so that only this module
// implements it.
//
// With a Remote, an instance answers from its own memory only while it has proof that it
// follows the Remote's log of invalidations: for at most Options.MaxStaleness after the
// last proof. Without that proof, requests go to their handlers.
type Remote interface{ tier.Tier }
