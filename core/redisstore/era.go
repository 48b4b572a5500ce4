package redisstore

import (
	"context"

	"github.com/larderhq/larder/core/internal/remote"
)

// NewEra implements the seam. It works on one key, which a cluster serves also
// while the slot is on its way to another server.
func (s *session) NewEra(ctx context.Context, partition int, was string, always bool) error {
	if err := s.in(partition); err != nil {
		return failed("make a new era", err)
	}
	if _, err := s.number(ctx, call{
		script: eraScript,
		keys:   []string{s.names.head(partition)},
		args: []any{
			nonce(), s.channel(partition), partition, was, always,
			s.partitions.Load(), remote.Protocol, int(remote.Era),
		},
	}); err != nil {
		return failed("make a new era", err)
	}
	return nil
}
