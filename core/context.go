package core

import (
	"context"
	"time"

	"github.com/larderhq/larder/core/internal/loadscope"
	"github.com/larderhq/larder/core/internal/naming"
)

// AddTags adds tags to what the running handler or loader is about to answer.
// ctx is the handler's or loader's own; Gin's and Fiber's contexts work as well
// as the request's. What names more than MaxTagsPerEntry tags is not stored.
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

// SetTTL replaces the class's TTL for what the running handler or loader is
// about to answer. It wins over what an HTTP response states; it stores nothing
// that may not be stored. 0 means not to store.
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

// NoStore keeps what the running handler or loader is about to answer out of
// the cache.
func NoStore(ctx context.Context) error {
	s := loadscope.From(ctx)
	if s == nil {
		return ErrNoScope
	}
	s.SetNoStore()
	return nil
}

// Invalidate is Cache.Invalidate of the cache that the running handler or loader
// belongs to. A handler behind an Invalidate middleware uses it for what it
// learns only as it runs, after its commit.
func Invalidate(ctx context.Context, targets ...Target) error {
	s := loadscope.From(ctx)
	if s == nil {
		return ErrNoScope
	}
	return s.Invalidate(ctx, targets)
}

// InvalidateEverywhere is Cache.InvalidateEverywhere of the cache that the running
// handler or loader belongs to.
func InvalidateEverywhere(ctx context.Context, targets ...Target) error {
	if err := Invalidate(ctx, targets...); err != nil {
		return err
	}
	return loadscope.From(ctx).WaitEverywhere(ctx)
}
