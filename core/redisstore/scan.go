package redisstore

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/larderhq/larder/core/internal/glob"
	"github.com/larderhq/larder/core/internal/tier"
)

const (
	// scanCount is the number of keys that a server examines in one step.
	scanCount = 250
	// unlinkCount is the number of keys that one command removes. Their values may be large.
	unlinkCount = 100
	// maxRest bounds the pause after a step, in which the server serves other clients.
	maxRest = 100 * time.Millisecond
	// maxServers is the number of servers that are scanned concurrently.
	maxServers = 16
)

// Scan implements tier.Session. SCAN returns all keys that exist from its begin to its end, on a
// server that keeps its slots. The slots are compared at both times (rule R15).
func (s *session) Scan(ctx context.Context, scan tier.Scan) (tier.Scanned, error) {
	var did tier.Scanned
	before, err := s.topology(ctx)
	if err != nil {
		return did, failed("scan", err)
	}
	did.Servers, did.Keys = len(before.ours), before.keys
	var n atomic.Int64
	slots := make(chan struct{}, maxServers)
	match := s.names.entries(glob.Cover(scan.Globs...))
	err = s.nodes.eachMaster(ctx, func(ctx context.Context, master *redis.Client) error {
		if s.nodes.cluster != nil && !before.ours[master.Options().Addr] {
			return nil
		}
		slots <- struct{}{}
		defer func() { <-slots }()
		return s.scan(ctx, master, scan, match, &n)
	})
	did.Removed = n.Load()
	if err != nil {
		return did, failed("scan", err)
	}
	after, err := s.topology(ctx)
	if err != nil {
		return did, failed("scan", err)
	}
	did.Sure = before.stable && after.stable && before.of == after.of
	return did, nil
}

// scan scans the entries of one server. The server filters most of the other keys, and glob.Match
// decides about the name, which is only a part of the key.
func (s *session) scan(ctx context.Context, master *redis.Client, scan tier.Scan, match string, removed *atomic.Int64) error {
	for cursor := "0"; ; {
		began := time.Now()
		cmd := redis.NewCmd(ctx, "scan", cursor, "match", match, "count", scanCount)
		if err := s.nodes.process(ctx, master, cmd); err != nil {
			return err
		}
		r := newReply(cmd.Val())
		cursor = r.string()
		keys := r.array()
		var found []string
		for r.err == nil && keys.err == nil && len(keys.rest) > 0 {
			key := keys.string()
			if s.wanted(key, scan.Globs) {
				found = append(found, key)
			}
		}
		if r.err == nil {
			r.err = keys.err
		}
		if r.err != nil {
			return r.err
		}
		for some := range slices.Chunk(found, unlinkCount) {
			n, err := s.unlink(ctx, some)
			removed.Add(n)
			if err != nil {
				return err
			}
		}
		if n, err := strconv.ParseUint(cursor, 10, 64); err != nil {
			return fmt.Errorf("%w: a cursor of %q", errReply, cursor)
		} else if n == 0 {
			return nil
		}
		if scan.Rest {
			if err := rest(ctx, time.Since(began)); err != nil {
				return err
			}
		}
	}
}

// wanted reports whether a key is that of an entry with a matching name.
func (s *session) wanted(key string, globs []string) bool {
	name, ok := s.names.nameOf(key)
	return ok && slices.ContainsFunc(globs, func(pattern string) bool { return glob.Match(pattern, name) })
}

// unlink removes keys of entries, those of one slot by one command. While the slot is being moved,
// the server refuses that command. Then each key is removed by a command of its own, which the
// cluster redirects.
func (s *session) unlink(ctx context.Context, keys []string) (removed int64, err error) {
	slot := len(s.names.prefix[0]) // what comes before tells it
	slices.Sort(keys)
	var cmds []redis.Cmder
	for from := 0; from < len(keys); {
		to := from + 1
		for to < len(keys) && (s.nodes.cluster == nil || keys[to][:slot] == keys[from][:slot]) {
			to++
		}
		cmds = append(cmds, unlinkOf(ctx, keys[from:to]))
		from = to
	}
	s.send(ctx, cmds)
	var again []redis.Cmder
	cmds = slices.DeleteFunc(cmds, func(cmd redis.Cmder) bool {
		keys := cmd.Args()[1:]
		if len(keys) == 1 || !redis.HasErrorPrefix(cmd.Err(), "TRYAGAIN") {
			return false
		}
		for _, key := range keys {
			again = append(again, redis.NewCmd(ctx, "unlink", key))
		}
		return true
	})
	if len(again) > 0 {
		s.send(ctx, again)
	}
	values, err := results(append(cmds, again...))
	for _, v := range values {
		if n, ok := v.(int64); ok {
			removed += n
		}
	}
	return removed, err
}

func unlinkOf(ctx context.Context, keys []string) redis.Cmder {
	args := make([]any, 1, 1+len(keys))
	args[0] = "unlink"
	for _, key := range keys {
		args = append(args, key)
	}
	return redis.NewCmd(ctx, args...)
}

// rest pauses for the duration of the last step.
func rest(ctx context.Context, took time.Duration) error {
	timer := time.NewTimer(min(took, maxRest))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
