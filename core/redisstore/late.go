package redisstore

import (
	"context"
	"time"

	"github.com/larderhq/larder/core/internal/tier"
)

// Late implements tier.Session: one script, so that generation and log are of one moment.
func (s *session) Late(ctx context.Context, tag string, since tier.Position) (tier.Late, error) {
	p := s.partitionOf(tag)
	c := s.generationCall(tag)
	c.script = lateScript
	c.keys = append(c.keys, s.names.log(p))
	c.args = append(c.args, since.ID, since.Token)
	sent := time.Now()
	replies, err := s.run(ctx, c)
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
