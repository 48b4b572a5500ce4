package redisstore

import (
	"context"

	"github.com/larderhq/larder/core/internal/tier"
)

// NewEra implements tier.Session. It works on one key, which a cluster serves also
// while the slot is on its way to another server.
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

// newEra returns -1, and has done nothing, where the script may not ask for the id of
// its server's data set, and read is "".
//
// Where scripts may not, the id is read before, and the server may have become another
// one meanwhile, or have lost its data. In each order of events the head's Confirmed
// is then another id than the one that the server has:
//
//   - the script is executed by a server that was promoted meanwhile, or by the same
//     one after it was demoted and promoted: that has an id of its own by then;
//   - the script is late, and a partition has been renewed since by another instance:
//     Confirmed is no longer what it was, and the script does nothing;
//   - the data set is an older one, under the same id: so it would be for a script that
//     asks, see rule R21 in core/PROTOCOL.md.
//
// The next round finds that Confirmed is not the server's and makes one more era, so
// that a partition is cold for longer and never verified by mistake. One order is left:
// a slot goes from A to B after A was asked, the era is made by B under the id of A, B
// loses writes by a failover, and the slot goes back to A, all before any instance's
// next round. The migrations of a slot take longer than that.
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

// dataSetOf asks the server of a partition, outside of scripts, whose data set it has.
func (s *session) dataSetOf(ctx context.Context, partition int) (string, error) {
	master, err := s.nodes.master(ctx, s.names.head(partition))
	if err != nil {
		return "", err
	}
	return s.replication(ctx, master)
}
