package redisstore

import (
	"context"
	"time"

	"github.com/larderhq/larder/core/internal/remote"
)

// Late implements the seam: one script, so that generation and log are of one moment.
func (s *session) Late(ctx context.Context, tag string, since remote.Position) (remote.Late, error) {
	p := s.partitionOf(tag)
	c := s.generationCall(tag)
	c.script = lateScript
	c.keys = append(c.keys, s.names.log(p))
	c.args = append(c.args, since.ID, since.Token)
	sent := time.Now()
	replies, err := s.run(ctx, c)
	if err != nil {
		return remote.Late{}, failed("capture a late tag", err)
	}
	r := newReply(replies[0])
	var l remote.Late
	if l.Generation, err = s.readGeneration(tag, sent, r); err != nil {
		return remote.Late{}, failed("capture a late tag", err)
	}
	l.Lapsed = span(r.int())
	if l.Log, err = readLog(r); err != nil {
		return remote.Late{}, failed("capture a late tag", err)
	}
	return l, nil
}
