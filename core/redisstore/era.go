package redisstore

import (
	"context"

	"github.com/larderhq/larder/core/internal/tier"
)

// NewEra implements tier.Session. It uses one key, which a cluster serves while the slot is being
// moved, too.
func (s *session) NewEra(ctx context.Context, partition int, was string, always bool) error {
	if err := s.in(partition); err != nil {
		return failed("make a new era", err)
	}
	made, err := s.newEra(ctx, partition, was, always, "")
	if err == nil && made < 0 {
		var id string
		if id, err = s.dataSetOf(ctx, partition); err == nil {
			_, err = s.newEra(ctx, partition, was, always, id)
		}
	}
	if err != nil {
		return failed("make a new era", err)
	}
	return nil
}

// newEra returns -1, and does nothing, if the script may not read the id of the server's data set
// and read is "".
//
// If scripts may not read the id, it is read before the script. In between, another server may
// have become the master, or the server may have lost its data. In each order of events the
// Confirmed of the head then differs from the id of the server:
//
//   - A server that was promoted in between executes the script, or the same server after a
//     demotion and a promotion. It has a new id.
//   - The script is late, and another instance has renewed the partition. Confirmed has changed,
//     and the script does nothing.
//   - The data set is an older one with the same id. A script that reads the id could not notice
//     that either: see rule R21 in core/PROTOCOL.md.
//
// The next round finds that Confirmed is not the id of the server, and begins another era. The
// partition is cold for longer, and never verified by mistake. One order remains: a slot moves
// from A to B after A was asked, B begins the era under the id of A, B loses writes in a
// failover, and the slot moves back to A, all before the next round of any instance. The moves
// of a slot take longer than that.
func (s *session) newEra(ctx context.Context, partition int, was string, always bool, read string) (int64, error) {
	return s.number(ctx, call{
		script: eraScript,
		keys:   []string{s.names.head(partition)},
		args: []any{
			nonce(), s.channel(partition), partition, was, always,
			s.partitions.Load(), tier.Protocol, int(tier.Era), read,
		},
	})
}

// dataSetOf asks the server of a partition for the id of its data set, outside of scripts.
func (s *session) dataSetOf(ctx context.Context, partition int) (string, error) {
	master, err := s.nodes.master(ctx, s.names.head(partition))
	if err != nil {
		return "", err
	}
	return s.replication(ctx, master)
}
