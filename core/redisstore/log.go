package redisstore

import (
	"context"
	"fmt"
	"strconv"

	"github.com/larderhq/larder/core/internal/tier"
)

// logLength is the approximate number of items in a log. An instance that has missed more drops its
// copies.
const logLength = 1 << 14

// Log implements tier.Session.
func (s *session) Log(ctx context.Context, partition int, after tier.Position) (tier.Log, error) {
	if err := s.in(partition); err != nil {
		return tier.Log{}, failed("read the log", err)
	}
	replies, err := s.run(ctx, call{
		script: logScript,
		keys:   []string{s.names.head(partition), s.names.log(partition)},
		args:   []any{after.ID, after.Token},
	})
	if err != nil {
		return tier.Log{}, failed("read the log", err)
	}
	l, err := readLog(newReply(replies[0]))
	if err != nil {
		return tier.Log{}, failed("read the log", err)
	}
	return l, nil
}

// readLog parses the result of the Lua function since.
func readLog(r *reply) (tier.Log, error) {
	l := tier.Log{Joined: r.int() == 1, Trimmed: r.int() == 1}
	items := r.array()
	for r.err == nil && items.err == nil && len(items.rest) > 0 {
		kind := kindOf(items.string())
		item := tier.Logged{Item: tier.Item{Kind: kind, Value: items.string()}}
		if err := item.Check(); err != nil && items.err == nil {
			items.err = fmt.Errorf("%w: %w", errReply, err)
		}
		item.ID, item.Token, item.Before = items.string(), items.string(), items.string()
		l.Items = append(l.Items, item)
	}
	if r.err == nil {
		r.err = items.err
	}
	if r.err != nil {
		return tier.Log{}, r.err
	}
	return l, nil
}

// kindOf returns the kind of an item, 0 for text that is not a kind. The caller checks the item:
// see tier.Item.Check.
func kindOf(s string) tier.Kind {
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil {
		return 0
	}
	return tier.Kind(n)
}
