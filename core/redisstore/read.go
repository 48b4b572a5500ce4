package redisstore

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/larderhq/larder/core/internal/tier"
)

// Get implements tier.Session: one GET, and one for each tag.
func (s *session) Get(ctx context.Context, key string, tags []string) (tier.Entry, []string, error) {
	p := s.partitionOfKey(key)
	now, known := s.clocks[p].now()
	var ask []call
	if !known {
		ask = append(ask, call{script: timeScript, keys: []string{s.names.head(p)}})
	}
	cmds := make([]redis.Cmder, 0, 1+len(tags)+len(ask))
	cmds = append(cmds, get(ctx, s.names.entry(p, s.names.version, key)))
	cmds = s.getGenerations(ctx, cmds, tags)
	for i := range ask {
		cmds = append(cmds, ask[i].command(ctx, "evalsha", ask[i].script.sha))
	}
	sent := time.Now()
	s.send(ctx, cmds)
	value, err := gotten(cmds[0])
	if err != nil {
		return tier.Entry{}, nil, failed("get", err)
	}
	generations, err := gottenAll(cmds[1 : 1+len(tags)])
	if err != nil {
		return tier.Entry{}, nil, failed("get", err)
	}
	if !known {
		s.sendUnknown(ctx, cmds, func(int) *call { return &ask[0] })
		if now, err = s.readClock(p, cmds[len(cmds)-1], sent); err != nil {
			return tier.Entry{}, nil, failed("get", err)
		}
	}
	return entryOf(value, now), generations, nil
}

// Generations implements tier.Session.
func (s *session) Generations(ctx context.Context, tags []string) ([]string, error) {
	if len(tags) == 0 {
		return nil, nil
	}
	cmds := s.getGenerations(ctx, make([]redis.Cmder, 0, len(tags)), tags)
	s.send(ctx, cmds)
	generations, err := gottenAll(cmds)
	if err != nil {
		return nil, failed("get generations", err)
	}
	return generations, nil
}

func (s *session) getGenerations(ctx context.Context, cmds []redis.Cmder, tags []string) []redis.Cmder {
	for _, tag := range tags {
		cmds = append(cmds, get(ctx, s.names.generation(s.partitionOf(tag), tag)))
	}
	return cmds
}

func get(ctx context.Context, key string) redis.Cmder {
	return redis.NewStringCmd(ctx, "get", key)
}

// gotten is the reply to a GET. Another type than a string is as good as nothing.
func gotten(cmd redis.Cmder) ([]byte, error) {
	if err := cmd.Err(); err != nil {
		if errors.Is(err, redis.Nil) || isWrongType(err) {
			return nil, nil
		}
		return nil, err
	}
	return cmd.(*redis.StringCmd).Bytes() //nolint:forcetypeassert // get made it
}

func gottenAll(cmds []redis.Cmder) ([]string, error) {
	if len(cmds) == 0 {
		return nil, nil
	}
	values := make([]string, len(cmds))
	for i, cmd := range cmds {
		v, err := gotten(cmd)
		if err != nil {
			return nil, err
		}
		values[i] = string(v)
	}
	return values, nil
}

// readClock notes the reply to a clock that was asked for.
func (s *session) readClock(p int, cmd redis.Cmder, sent time.Time) (int64, error) {
	values, err := results([]redis.Cmder{cmd})
	if err != nil {
		return 0, err
	}
	now, err := clockOf(values[0])
	if err != nil {
		return 0, err
	}
	s.clocks[p].read(now, sent)
	now, _ = s.clocks[p].now()
	return now, nil
}

// entryOf decodes a value. What does not decode is no entry.
func entryOf(value []byte, now int64) tier.Entry {
	if len(value) == 0 {
		return tier.Entry{}
	}
	e, err := decodeEnvelope(value)
	if err != nil || e.id == "" {
		return tier.Entry{}
	}
	return tier.Entry{
		ID: e.id, Payload: e.payload, Tags: e.tags, Eras: e.eras, Provisional: e.provisional,
		Born: e.born, FreshUntil: e.freshUntil, StaleUntil: e.staleUntil, KeepUntil: e.keepUntil,
		LoadTime: e.loadTime, Now: now,
	}
}
