package redisstore

import (
	"context"
	"time"

	"github.com/larderhq/larder/core/internal/tier"
)

// Late implements tier.Session: one script, so that generation and log are of the same moment.
func (s *session) Late(ctx context.Context, tag string, since tier.Position) (tier.Late, error) {
	p := s.partitionOf(tag)
	sent := time.Now()
	replies, err := s.run(ctx, call{
		script: lateScript,
		keys:   []string{s.names.head(p), s.names.generation(p, tag), s.names.tagIntents(p, tag), s.names.log(p)},
		args:   []any{nonce(), since.ID, since.Token},
	})
	if err != nil {
		return tier.Late{}, failed("capture a late tag", err)
	}
	r := newReply(replies[0])
	var l tier.Late
	if l.Generation, err = s.readGeneration(tag, sent, r); err != nil {
		return tier.Late{}, failed("capture a late tag", err)
	}
	l.Lapsed = span(r.int())
	if l.Log, err = readLog(r); err != nil {
		return tier.Late{}, failed("capture a late tag", err)
	}
	return l, nil
}

func (s *session) readGeneration(tag string, sent time.Time, r *reply) (tier.Generation, error) {
	now := r.int()
	g := tier.Generation{Tag: tag, Token: r.string(), Era: r.string()}
	g.Open = span(r.int())
	g.Lagging = r.int() != 0
	g.Head = r.string()
	if r.err != nil {
		return tier.Generation{}, r.err
	}
	s.clocks[s.partitionOf(tag)].read(now, sent)
	return g, nil
}
