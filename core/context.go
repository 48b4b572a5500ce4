package core

import (
	"context"
	"time"

	"github.com/larderhq/larder/core/internal/loadscope"
	"github.com/larderhq/larder/core/internal/naming"
)

// AddTags adds tags to the entry of the running handler or loader. ctx is the handler's
// or loader's own; Gin's and Fiber's contexts work as well as the request's. An entry
// with more than [MaxTagsPerEntry] tags is not stored.
//
// The error is [ErrNoScope], or a *[ConfigError] for a tag that is empty, longer than
// [MaxKeyBytes] or has control characters: then the entry is not stored, since it could
// not be invalidated by that tag.
func AddTags(ctx context.Context, tags ...string) error {
	s := loadscope.From(ctx)
	if s == nil {
		return ErrNoScope
	}
	names := make([]string, len(tags))
	for i, t := range tags {
		if err := checkName("AddTags", t); err != nil {
			s.SetUnnamed() // what cannot be invalidated as asked must not be stored
			return err
		}
		names[i] = naming.Tag(t)
	}
	s.AddTags(names)
	return nil
}

// SetTTL replaces the class's TTL for the entry of the running handler or loader: 0,
// which means not to store, or [MinDuration] to [MaxDuration]. It takes precedence over
// the lifetime that an HTTP response states, but stores no response that may not be
// stored. The error is [ErrNoScope], or a *[ConfigError]: then the entry is not stored.
func SetTTL(ctx context.Context, ttl time.Duration) error {
	s := loadscope.From(ctx)
	if s == nil {
		return ErrNoScope
	}
	if err := checkDuration("SetTTL", ttl); err != nil {
		s.SetNoStore()
		return err
	}
	s.SetTTL(ttl)
	return nil
}

// NoStore keeps the answer of the running handler or loader out of the cache. The error
// is [ErrNoScope].
func NoStore(ctx context.Context) error {
	s := loadscope.From(ctx)
	if s == nil {
		return ErrNoScope
	}
	s.SetNoStore()
	return nil
}

// Invalidate is [Cache.Invalidate] of the cache that the running handler or loader
// belongs to, with its errors, or [ErrNoScope]. A handler behind an Invalidate middleware
// calls it, after its commit, for targets that are known only then.
func Invalidate(ctx context.Context, targets ...Target) error {
	s := loadscope.From(ctx)
	if s == nil {
		return ErrNoScope
	}
	return s.Invalidate(ctx, targets)
}

// InvalidateEverywhere is [Cache.InvalidateEverywhere] of the cache that the running
// handler or loader belongs to, with its errors, or [ErrNoScope].
func InvalidateEverywhere(ctx context.Context, targets ...Target) error {
	if err := Invalidate(ctx, targets...); err != nil {
		return err
	}
	return loadscope.From(ctx).WaitEverywhere(ctx)
}
