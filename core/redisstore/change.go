package redisstore

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/larderhq/larder/core/internal/remote"
)

// versionsUnknown is how often a change is sent again since a version has come into
// use that it did not name.
const versionsUnknown = 5

// Change implements the seam: one script.
func (s *session) Change(ctx context.Context, c remote.Change) ([]remote.Logged, error) {
	if err := s.validate(c); err != nil {
		return nil, failed("change", err)
	}
	if len(c.Items) == 0 {
		return nil, nil
	}
	r, err := s.known(ctx, c.Partition, func() call { return s.changeCall(c) })
	if err != nil {
		return nil, failed("change", err)
	}
	logged, err := readLogged(c, r)
	if err != nil {
		return nil, failed("change", err)
	}
	return logged, nil
}

// known runs a script that has to know the versions in use, and reads outcome and
// clock from its reply.
func (s *session) known(ctx context.Context, partition int, next func() call) (*reply, error) {
	for range versionsUnknown {
		sent := time.Now()
		replies, err := s.run(ctx, next())
		if err != nil {
			return nil, err
		}
		r := newReply(replies[0])
		outcome := r.string()
		now := r.int()
		switch {
		case r.err != nil:
			return nil, r.err
		case outcome == "versions":
			var versions []string
			for r.err == nil && len(r.rest) > 0 {
				versions = append(versions, r.string())
			}
			if r.err != nil {
				return nil, r.err
			}
			s.learnVersions(versions)
		case outcome == "late":
			s.clocks[partition].read(now, sent)
			return nil, errLate
		case outcome == "done":
			s.clocks[partition].read(now, sent)
			return r, nil
		default:
			return nil, fmt.Errorf("%w: outcome %q", errReply, outcome)
		}
	}
	return nil, fmt.Errorf("versions came into use %d times meanwhile", versionsUnknown)
}

func (s *session) validate(c remote.Change) error {
	if err := s.in(c.Partition); err != nil {
		return err
	}
	if c.Mode > remote.Abandon || (c.Mode == remote.NoIntent) != (c.Intent == "") {
		return fmt.Errorf("mode %d with intent %q", c.Mode, c.Intent)
	}
	for _, item := range c.Items {
		if item.Kind < remote.Key || item.Kind > remote.Era {
			return fmt.Errorf("an item of kind %d", item.Kind)
		}
	}
	return nil
}

func (s *session) changeCall(c remote.Change) call {
	p, versions := c.Partition, s.knownVersions()
	keys := []string{s.names.head(p), s.names.log(p)}
	args := s.changeArgs(c, versions)
	for _, item := range c.Items {
		switch item.Kind {
		case remote.Key:
			keys = s.changeKeys(keys, p, versions, item.Value)
		case remote.Tag:
			keys = s.tagKeys(keys, p, item.Value)
		}
		args = append(args, int(item.Kind), item.Value)
	}
	return call{script: changeScript, keys: keys, args: args}
}

// changeArgs are the arguments of a change, but for its items.
func (s *session) changeArgs(c remote.Change, versions []string) []any {
	args := []any{
		nonce(), s.channel(c.Partition), c.Partition, c.Intent, int(c.Mode),
		max(0, ms(c.Lasts)), max(0, ms(c.Remain)), max(0, ms(c.Lag)),
		versionKnown.Milliseconds(), s.logLength, len(versions),
	}
	for _, v := range versions {
		args = append(args, v)
	}
	return args
}

// changeKeys appends what a change of a key touches.
func (s *session) changeKeys(keys []string, p int, versions []string, key string) []string {
	for _, v := range versions {
		keys = append(keys, s.names.entry(p, v, key))
	}
	for _, v := range versions {
		keys = append(keys, s.names.lease(p, v, key))
	}
	return append(keys, s.names.keyIntents(p, key))
}

// tagKeys appends what a change of a tag touches.
func (s *session) tagKeys(keys []string, p int, tag string) []string {
	return append(keys, s.names.generation(p, tag), s.names.tagIntents(p, tag))
}

func readLogged(c remote.Change, r *reply) ([]remote.Logged, error) {
	if c.Mode == remote.Abandon {
		return nil, r.err
	}
	logged := make([]remote.Logged, len(c.Items))
	for i, item := range c.Items {
		logged[i].Item = remote.Item{Kind: item.Kind, Value: strings.Clone(item.Value)}
		logged[i].ID, logged[i].Token, logged[i].Before = r.string(), r.string(), r.string()
	}
	return logged, r.err
}
