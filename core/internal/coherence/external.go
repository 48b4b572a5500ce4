package coherence

import (
	"context"
	"fmt"

	"github.com/larderhq/larder/core/internal/tier"
)

// maxExternal bounds the invalidations of other programs that are executed concurrently.
const maxExternal = 64

// invalidateExternal executes an invalidation that a program without this library has
// published. Each instance fences itself. One instance, which gets a lease for that, executes
// the invalidation in the tier. It is best effort: beyond maxExternal it is only fenced here.
func (s *shared) invalidateExternal(ctx context.Context, ses tier.Session, h tier.Hint) {
	it := h.Item.Item
	s.local.Fence([]tier.Item{it})
	if h.Partition != 0 && it.Kind != tier.Key && it.Kind != tier.Tag {
		return // the message arrives once for each partition
	}
	if s.external.Add(1) > maxExternal {
		s.external.Add(-1)
		return
	}
	ok := s.local.Spawn(ctx, s.Budget*20, func(ctx context.Context) {
		defer s.external.Add(-1)
		name := fmt.Sprintf("larder:foreign:%d:%s", it.Kind, it.Value)
		l, err := ses.Acquire(ctx, name, "", nil, leaseTime)
		if err != nil || l.Token == "" {
			return
		}
		_ = s.invalidate(ctx, []tier.Item{it}, nil) // it is pending if it fails
		_ = ses.Release(ctx, l)                     // the lease expires if it fails
	})
	if !ok {
		s.external.Add(-1)
	}
}
