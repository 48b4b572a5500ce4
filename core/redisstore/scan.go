package redisstore

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"

	"github.com/redis/go-redis/v9"

	"github.com/larderhq/larder/core/internal/glob"
)

// scanCount is how many keys a server looks at before it serves others.
const scanCount = 500

// Scan implements the seam. SCAN finds all that is there from its beginning to its
// end, on a server that keeps its slots: that is compared at both (rule R15).
func (s *session) Scan(ctx context.Context, pattern string) (removed int, sure bool, err error) {
	before, err := s.topology(ctx)
	if err != nil {
		return 0, false, failed("scan", err)
	}
	var n atomic.Int64
	err = s.nodes.eachMaster(ctx, func(ctx context.Context, master *redis.Client) error {
		return s.scan(ctx, master, pattern, &n)
	})
	if err != nil {
		return int(n.Load()), false, failed("scan", err)
	}
	after, err := s.topology(ctx)
	if err != nil {
		return int(n.Load()), false, failed("scan", err)
	}
	return int(n.Load()), before.settled && after.settled && before.of == after.of, nil
}

// scan goes over the entries of one server. The server matches the namespace, and
// our own matcher the name, which is only a part of the key.
func (s *session) scan(ctx context.Context, master *redis.Client, pattern string, removed *atomic.Int64) error {
	match := s.names.entries()
	for cursor := "0"; ; {
		cmd := redis.NewCmd(ctx, "scan", cursor, "match", match, "count", scanCount)
		if err := s.nodes.process(ctx, master, cmd); err != nil {
			return err
		}
		r := newReply(cmd.Val())
		cursor = r.string()
		keys := r.array()
		var unlink []redis.Cmder
		for r.err == nil && keys.err == nil && len(keys.rest) > 0 {
			key := keys.string()
			if name, ok := s.names.nameOf(key); ok && glob.Match(pattern, name) {
				unlink = append(unlink, redis.NewCmd(ctx, "unlink", key))
			}
		}
		if r.err == nil {
			r.err = keys.err
		}
		if r.err != nil {
			return r.err
		}
		if len(unlink) > 0 {
			s.send(ctx, unlink) // one key each, which a cluster takes to wherever it is
			values, err := results(unlink)
			if err != nil {
				return err
			}
			for _, v := range values {
				if n, ok := v.(int64); ok {
					removed.Add(n)
				}
			}
		}
		if n, err := strconv.ParseUint(cursor, 10, 64); err != nil {
			return fmt.Errorf("%w: a cursor of %q", errReply, cursor)
		} else if n == 0 {
			return nil
		}
	}
}
