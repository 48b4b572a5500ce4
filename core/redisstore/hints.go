package redisstore

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/larderhq/larder/core/internal/tier"
)

// pingAfter is the time without a message after which a subscription is pinged, and the time for
// the reply.
const pingAfter = time.Second

// Hints implements tier.Session. On one server it does not subscribe again by itself, since the
// caller must know that messages may have been missed. In a cluster each shard is cut, and comes
// back, separately: see shards.
func (s *session) Hints(ctx context.Context, ready func(), fn func(tier.Hint)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	listen := s.listen
	if s.nodes.cluster != nil {
		listen = s.listenToShards
	}
	if err := listen(ctx, ready, fn); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return failed("listen for hints", err)
	}
	return nil
}

func (s *session) listen(ctx context.Context, ready func(), fn func(tier.Hint)) (err error) {
	sub := s.nodes.single.Subscribe(ctx)
	defer func() { _ = sub.Close() }()
	// A read ends with its connection, not with its context.
	defer context.AfterFunc(ctx, func() { _ = sub.Close() })()
	channels := []string{s.names.hints(), s.names.invalidate()}
	if err := s.subscribe(ctx, sub.Subscribe, channels...); err != nil {
		return err
	}
	p := pulse{sub: sub}
	defer p.start(ctx)()
	for left := len(channels); ; {
		message, err := s.receive(ctx, sub)
		if err != nil {
			return errors.Join(p.err(), err)
		}
		p.busy.Store(true)
		switch m := message.(type) {
		case *redis.Subscription:
			if left--; left == 0 {
				ready()
			}
		case *redis.Message:
			s.hear(m, fn)
		}
		p.heard.Store(true)
		p.busy.Store(false)
	}
}

func (s *session) hear(m *redis.Message, fn func(tier.Hint)) {
	if m.Channel == s.names.invalidate() {
		for _, h := range s.foreign(m.Payload) {
			fn(h)
		}
		return
	}
	for _, h := range parseHints(m.Payload) {
		if h.Wake != "" {
			h.Partition = s.partitionOfKey(h.Wake)
		}
		if s.in(h.Partition) == nil {
			fn(h)
		}
	}
}

// pulse closes a silent subscription. A read with a timeout would lose the part of a message that
// it has read at the timeout.
type pulse struct {
	sub         *redis.PubSub
	heard, busy atomic.Bool // since the last look; and the listener is busy
	silent      atomic.Bool
}

// start begins to check, until the returned function is called.
func (p *pulse) start(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(pingAfter)
		defer tick.Stop()
		for asked := false; ; {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			switch {
			case p.heard.Swap(false) || p.busy.Load():
				asked = false
			case asked || p.sub.Ping(ctx) != nil:
				p.silent.Store(true)
				_ = p.sub.Close()
				return
			default:
				asked = true
			}
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}

func (p *pulse) err() error {
	if p.silent.Load() {
		return errors.New("the server has sent nothing and has not answered PING")
	}
	return nil
}

// channel returns the channel of the hints of a partition. In a cluster each partition has a
// channel in its slot, since all nodes would receive a message of another channel.
func (s *session) channel(p int) string {
	if s.nodes.cluster != nil {
		return s.names.shardHints(p)
	}
	return s.names.hints()
}

func (s *session) subscribe(
	ctx context.Context, subscribe func(context.Context, ...string) error, channels ...string,
) (err error) {
	defer s.nodes.recovered(&err)
	ctx, cancel := context.WithTimeout(ctx, 2*pingAfter) // from then on it is looked after by its pulse
	defer cancel()
	return subscribe(ctx, channels...)
}

// receive reads one message, without a limit of time. go-redis panics on malformed messages.
func (s *session) receive(ctx context.Context, sub *redis.PubSub) (m any, err error) {
	defer s.nodes.recovered(&err)
	return sub.Receive(ctx)
}

// itemFields is the number of fields of an item in a message.
const itemFields = 5

// parseHints parses a message of the Lua function hint. A message that does not parse is of a later
// version, or foreign, and has no hints.
func parseHints(payload string) (hints []tier.Hint) {
	rest, ok := strings.CutPrefix(payload, "L1")
	if !ok {
		return nil
	}
	var fields []string
	for rest != "" {
		length, after, ok := strings.Cut(rest, ":")
		n, err := strconv.ParseUint(length, 10, 31)
		if !ok || err != nil || int(n) > len(after) {
			return nil
		}
		fields = append(fields, after[:n])
		rest = after[n:]
	}
	switch {
	case len(fields) == 2 && fields[0] == "w" && fields[1] != "":
		return []tier.Hint{{Wake: fields[1]}}
	case len(fields) > 2 && fields[0] == "i" && (len(fields)-2)%itemFields == 0:
		p, err := strconv.Atoi(fields[1])
		if err != nil {
			return nil
		}
		for f := range slices.Chunk(fields[2:], itemFields) {
			item := tier.Item{Kind: kindOf(f[0]), Value: f[1]}
			if item.Check() != nil {
				return nil // the log has it as well, where it is an error
			}
			hints = append(hints, tier.Hint{Partition: p, Item: tier.Logged{
				Item:     item,
				Position: tier.Position{ID: f[2], Token: f[3]},
				Before:   f[4],
			}})
		}
	}
	return hints
}

// foreign parses a message of another program: an item that is in no log, once for each partition
// that it concerns.
func (s *session) foreign(payload string) []tier.Hint {
	one := func(p int, k tier.Kind, v string) []tier.Hint {
		return []tier.Hint{{Partition: p, Item: tier.Logged{Item: tier.Item{Kind: k, Value: v}}}}
	}
	each := func(k tier.Kind, v string) (hints []tier.Hint) {
		for p := range int(s.partitions.Load()) {
			hints = append(hints, one(p, k, v)...)
		}
		return hints
	}
	if payload == "all" {
		return each(tier.All, "")
	}
	kind, value, _ := strings.Cut(payload, ":")
	if value == "" {
		return nil
	}
	switch kind {
	case "key":
		if u, err := url.Parse(value); err == nil && (u.Scheme == "http" || u.Scheme == "https") {
			return s.foreign("path:" + u.EscapedPath()) // as core.Key has it
		}
		return one(s.partitionOfKey(value), tier.Key, value)
	case "tag":
		tag := tier.TagPrefix + value
		return one(s.partitionOf(tag), tier.Tag, tag)
	case "path": // as core.PathTag has it
		if path, err := url.PathUnescape(value); err == nil {
			value = path
		}
		tag := "p:" + value
		return one(s.partitionOf(tag), tier.Tag, tag)
	case "pattern":
		return each(tier.Pattern, value)
	}
	return nil
}
