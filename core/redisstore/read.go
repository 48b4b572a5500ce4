package redisstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/larderhq/larder/core/internal/tier"
)

// Get implements tier.Session: one command per slot, and one command in all on one server.
func (s *session) Get(ctx context.Context, key string, tags []string) (tier.Entry, []string, error) {
	p := s.partitionOfKey(key)
	now, known := s.clocks[p].now()
	reads := s.reads(ctx, p, s.names.entry(p, s.names.version, key), tags)
	cmds := make([]redis.Cmder, 0, len(reads)+1)
	for i := range reads {
		cmds = append(cmds, reads[i].cmd)
	}
	var ask []call
	if !known {
		ask = append(ask, call{script: timeScript, keys: []string{s.names.head(p)}})
		cmds = append(cmds, ask[0].command(ctx, "evalsha", ask[0].script.sha))
	}
	sent := time.Now()
	s.send(ctx, cmds)
	value, generations, err := gotten(reads, len(tags))
	if err != nil {
		return tier.Entry{}, nil, failed("get", err)
	}
	if !known {
		s.sendUnknown(ctx, cmds, func(int) *call { return &ask[0] })
		if now, err = s.readClock(p, cmds[len(cmds)-1], sent); err != nil {
			return tier.Entry{}, nil, failed("get", err)
		}
	}
	return s.entryOf(key, value, now), generations, nil
}

// Generations implements tier.Session.
func (s *session) Generations(ctx context.Context, tags []string) ([]string, error) {
	if len(tags) == 0 {
		return nil, nil
	}
	reads := s.reads(ctx, -1, "", tags)
	cmds := make([]redis.Cmder, len(reads))
	for i := range reads {
		cmds[i] = reads[i].cmd
	}
	s.send(ctx, cmds)
	_, generations, err := gotten(reads, len(tags))
	if err != nil {
		return nil, failed("get generations", err)
	}
	return generations, nil
}

// theEntry is the index of the entry in a read, among those of tags.
const theEntry = -1

// read is an MGET of keys in one slot, or anywhere on the only server; for an entry alone it is a
// GET. For MGET a key of another type does not exist.
type read struct {
	cmd redis.Cmder
	at  []int // what each key is: the index of a tag, or theEntry
}

// reads returns the commands that read an entry in a partition ("" for none) and the
// generations of tags.
func (s *session) reads(ctx context.Context, home int, entry string, tags []string) []read {
	if len(tags) == 0 {
		return []read{{redis.NewStringCmd(ctx, "get", entry), []int{theEntry}}}
	}
	type keys struct {
		args []any
		read
	}
	var groups []keys
	of := make(map[int]int) // the group of a partition, less one
	add := func(p int, key string, at int) {
		if s.nodes.cluster == nil {
			p = 0
		}
		i := of[p]
		if i == 0 {
			groups = append(groups, keys{args: make([]any, 1, 2+len(tags))})
			i = len(groups)
			of[p], groups[i-1].args[0] = i, "mget"
		}
		g := &groups[i-1]
		g.args, g.at = append(g.args, key), append(g.at, at)
	}
	if entry != "" {
		add(home, entry, theEntry)
	}
	for i, tag := range tags {
		p := s.partitionOf(tag)
		add(p, s.names.generation(p, tag), i)
	}
	list := make([]read, len(groups))
	for i := range groups {
		list[i] = read{redis.NewSliceCmd(ctx, groups[i].args...), groups[i].at}
	}
	return list
}

// gotten returns the results of the commands: the entry, and the generations of n tags.
func gotten(reads []read, n int) (entry []byte, generations []string, err error) {
	if n > 0 {
		generations = make([]string, n)
	}
	for _, r := range reads {
		if err := r.cmd.Err(); err != nil {
			if len(r.at) == 1 && (errors.Is(err, redis.Nil) || isWrongType(err)) {
				continue
			}
			return nil, nil, err
		}
		if c, ok := r.cmd.(*redis.StringCmd); ok {
			if entry, err = c.Bytes(); err != nil {
				return nil, nil, err
			}
			continue
		}
		values := r.cmd.(*redis.SliceCmd).Val() //nolint:forcetypeassert // reads made it
		if len(values) != len(r.at) {
			return nil, nil, fmt.Errorf("%w: %d values for %d keys", errReply, len(values), len(r.at))
		}
		for i, v := range values {
			text, ok := v.(string)
			switch {
			case v == nil:
			case !ok:
				return nil, nil, fmt.Errorf("%w: %T for a string", errReply, v)
			case r.at[i] == theEntry:
				entry = []byte(text)
			default:
				generations[r.at[i]] = text
			}
		}
	}
	return entry, generations, nil
}

// readClock records the reply to a question for the clock.
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

// encode returns the value of a key's entry: none if e is beyond the limits of the envelope.
func (s *session) encode(key string, e *envelope) []byte {
	if s.sealer == nil {
		return encodeEnvelope(nil, e)
	}
	return encodeSealed(nil, e, s.sealer, s.entryContext(key))
}

// entryOf decodes the value of a key's entry. A value that does not decode is a missing entry.
func (s *session) entryOf(key string, value []byte, now int64) tier.Entry {
	if len(value) == 0 {
		return tier.Entry{}
	}
	var context []byte
	if s.sealer != nil {
		context = s.entryContext(key)
	}
	e, err := decodeSealed(value, s.sealer, context)
	if err != nil && !errors.Is(err, errCorrupt) && !errors.Is(err, errVersion) {
		s.notOpened(err)
	}
	if err != nil || e.id == "" {
		return tier.Entry{}
	}
	return tier.Entry{
		ID: e.id, Payload: e.payload, Tags: e.tags, Eras: e.eras, Provisional: e.provisional,
		Born: e.born, FreshUntil: e.freshUntil, StaleUntil: e.staleUntil, KeepUntil: e.keepUntil,
		LoadTime: e.loadTime, Now: now,
	}
}
