package redisstore

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/larderhq/larder/core/internal/tier"
)

// versionsUnknown bounds the repetitions of a change after the use of a version that the call did
// not name.
const versionsUnknown = 5

// Change implements tier.Session: one script.
func (s *session) Change(ctx context.Context, c tier.Change) ([]tier.Logged, error) {
	if err := s.validate(c); err != nil {
		return nil, failed("change", err)
	}
	if len(c.Items) == 0 {
		return nil, nil
	}
	r, now, err := s.known(ctx, c.Partition, func() call { return s.changeCall(c) })
	if err != nil {
		return nil, failed("change", err)
	}
	logged, err := readLogged(c, now, r)
	if err != nil {
		return nil, failed("change", err)
	}
	return logged, nil
}

// known runs a script that must know all versions in use. It reads outcome and clock from the
// reply.
func (s *session) known(ctx context.Context, partition int, next func() call) (r *reply, now int64, err error) {
	for range versionsUnknown {
		sent := time.Now()
		replies, err := s.run(ctx, next())
		if err != nil {
			return nil, 0, err
		}
		r := newReply(replies[0])
		outcome := r.string()
		now := r.int()
		switch {
		case r.err != nil:
			return nil, 0, r.err
		case outcome == "versions":
			var versions []string
			for r.err == nil && len(r.rest) > 0 {
				versions = append(versions, r.string())
			}
			if r.err != nil {
				return nil, 0, r.err
			}
			s.learnVersions(versions)
		case outcome == "late":
			s.clocks[partition].read(now, sent)
			return nil, 0, errLate
		case outcome == "done":
			s.clocks[partition].read(now, sent)
			return r, now, nil
		default:
			return nil, 0, fmt.Errorf("%w: outcome %q", errReply, outcome)
		}
	}
	return nil, 0, fmt.Errorf("versions came into use %d times meanwhile", versionsUnknown)
}

func (s *session) validate(c tier.Change) error {
	if err := s.in(c.Partition); err != nil {
		return err
	}
	if c.Mode > tier.Abandon || (c.Mode == tier.NoIntent) != (c.Intent == "") {
		return fmt.Errorf("mode %d with intent %q", c.Mode, c.Intent)
	}
	for _, item := range c.Items {
		if item.Kind < tier.Key || item.Kind > tier.Era {
			return fmt.Errorf("an item of kind %d", item.Kind)
		}
	}
	return nil
}

func (s *session) changeCall(c tier.Change) call {
	p, versions := c.Partition, s.knownVersions()
	keys := []string{s.names.head(p), s.names.log(p)}
	args := s.changeArgs(c, versions)
	for _, item := range c.Items {
		switch item.Kind {
		case tier.Key:
			keys = s.changeKeys(keys, p, versions, item.Value)
		case tier.Tag:
			keys = s.tagKeys(keys, p, item.Value)
		}
		args = append(args, int(item.Kind), item.Value)
	}
	return call{script: changeScript, keys: keys, args: args}
}

// changeArgs returns the arguments of a change, without its items.
func (s *session) changeArgs(c tier.Change, versions []string) []any {
	remain := max(0, ms(c.Remain))
	if c.Mode == tier.Abandon {
		remain = ms(generationLives)
	}
	args := []any{
		nonce(), s.channel(c.Partition), c.Partition, c.Intent, int(c.Mode),
		max(0, ms(c.Lasts)), remain, max(0, ms(c.Lag)),
		versionKnown.Milliseconds(), s.logLength, len(versions),
	}
	for _, v := range versions {
		args = append(args, v)
	}
	return args
}

// changeKeys appends the keys that a change of a key touches.
func (s *session) changeKeys(keys []string, p int, versions []string, key string) []string {
	for _, v := range versions {
		keys = append(keys, s.names.entry(p, v, key))
	}
	for _, v := range versions {
		keys = append(keys, s.names.lease(p, v, key))
	}
	return append(keys, s.names.keyIntents(p, key))
}

// tagKeys appends the keys that a change of a tag touches.
func (s *session) tagKeys(keys []string, p int, tag string) []string {
	return append(keys, s.names.generation(p, tag), s.names.tagIntents(p, tag))
}

// readLogged reads the items that a change has logged, at most itemsLogged. An intent that was
// missing logs none.
func readLogged(c tier.Change, now int64, r *reply) ([]tier.Logged, error) {
	items := itemsLogged(c, now)
	if c.Mode == tier.Abandon && r.err == nil && len(r.rest) == 0 {
		return nil, nil
	}
	logged := make([]tier.Logged, len(items))
	for i, item := range items {
		logged[i].Item = tier.Item{Kind: item.Kind, Value: strings.Clone(item.Value)}
		logged[i].ID, logged[i].Token, logged[i].Before = r.string(), r.string(), r.string()
	}
	return logged, r.err
}

// itemsLogged returns the items that a change logs when it is executed at a time of the server's
// clock.
func itemsLogged(c tier.Change, now int64) []tier.Item {
	switch c.Mode {
	case tier.Begin:
		items := make([]tier.Item, len(c.Items))
		for i, it := range c.Items {
			items[i] = tier.Intent{Item: it, ID: c.Intent, Deadline: now + max(1, ms(c.Lasts))}.Begun()
		}
		return items
	case tier.End:
		return append(c.Items[:len(c.Items):len(c.Items)], tier.Item{Kind: tier.Closed, Value: c.Intent})
	case tier.Abandon:
		return []tier.Item{{Kind: tier.Closed, Value: c.Intent}}
	case tier.NoIntent:
	}
	return c.Items
}
