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
	for range versionsUnknown {
		sent := time.Now()
		replies, err := s.run(ctx, s.changeCall(c))
		if err != nil {
			return nil, failed("change", err)
		}
		r := newReply(replies[0])
		outcome := r.string()
		now := r.int()
		switch outcome {
		case "versions":
			var versions []string
			for r.err == nil && len(r.rest) > 0 {
				versions = append(versions, r.string())
			}
			s.learnVersions(versions)
		case "done":
			logged, err := readLogged(c, r)
			if err != nil {
				return nil, failed("change", err)
			}
			s.clocks[c.Partition].read(now, sent)
			return logged, nil
		default:
			if r.err == nil {
				r.err = fmt.Errorf("%w: outcome %q", errReply, outcome)
			}
		}
		if r.err != nil {
			return nil, failed("change", r.err)
		}
	}
	return nil, failed("change", fmt.Errorf("versions came into use %d times meanwhile", versionsUnknown))
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
	args := []any{
		nonce(), s.channel(p), p, c.Intent, int(c.Mode),
		max(0, ms(c.Lasts)), max(0, ms(c.Remain)), max(0, ms(c.Lag)),
		versionKnown.Milliseconds(), s.logLength, len(versions),
	}
	for _, v := range versions {
		args = append(args, v)
	}
	for _, item := range c.Items {
		switch item.Kind {
		case remote.Key:
			for _, v := range versions {
				keys = append(keys, s.names.entry(p, v, item.Value))
			}
			for _, v := range versions {
				keys = append(keys, s.names.lease(p, v, item.Value))
			}
			keys = append(keys, s.names.keyIntents(p, item.Value))
		case remote.Tag:
			keys = append(keys, s.names.generation(p, item.Value), s.names.tagIntents(p, item.Value))
		}
		args = append(args, int(item.Kind), item.Value)
	}
	return call{script: changeScript, keys: keys, args: args}
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
