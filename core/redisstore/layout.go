package redisstore

import (
	"context"
	"fmt"
	"time"

	"github.com/larderhq/larder/core/internal/tier"
)

const (
	// layoutLapses is the time for which the staleness and the lag of an instance count after its
	// last Agree, in addition to twice its staleness. For that long the instance may answer from
	// partitions that it verified before it noticed that Agree fails.
	layoutLapses = time.Minute
	// maxKeep is the longest lifetime of an entry.
	maxKeep = 7 * 24 * time.Hour
	// generationLives is longer than the life of any entry with a generation. A generation is
	// extended when less than generationRefresh is left, which is also longer than that. The
	// difference, half a day, is longer than any load (rule R8).
	generationLives   = maxKeep + 24*time.Hour
	generationRefresh = maxKeep + 12*time.Hour
	// versionKnown is the time for which invalidations cover the entries of a version after its
	// last noted lease. A lease is noted again after versionNoted (rule R1).
	versionKnown = maxKeep + 24*time.Hour
	versionNoted = time.Hour
)

// Agree implements tier.Session. Staleness and lag of an instance lapse a minute, and
// twice the staleness, after its last Agree.
func (s *session) Agree(ctx context.Context) (tier.Layout, error) {
	l, err := s.agree(ctx)
	if err != nil {
		return tier.Layout{}, failed("agree on the layout", err)
	}
	return l, nil
}

// noteLag writes the lag of this instance into the heads of some partitions before the instance
// stores anything there, so that invalidations find it. Other instances read it from the layout
// only at their next Agree (rule R2). It returns the result for each partition.
func (s *session) noteLag(ctx context.Context, partitions []int) []error {
	calls := make([]call, len(partitions))
	for i, p := range partitions {
		calls[i] = call{script: lagScript, keys: []string{s.names.head(p)}, args: []any{ms(s.want.ReplicaLag)}}
	}
	replies, err := s.run(ctx, calls...)
	errs := make([]error, len(partitions))
	for i, r := range replies {
		if r == nil {
			errs[i] = err
		}
	}
	return errs
}

func (s *session) agree(ctx context.Context) (tier.Layout, error) {
	replies, err := s.run(ctx, call{
		script: layoutScript,
		keys:   []string{s.names.layout()},
		args: []any{
			tier.Protocol, s.partitions.Load(), ms(s.want.MaxStaleness), ms(s.want.ReplicaLag),
			s.want.Version, (layoutLapses + 2*s.want.MaxStaleness).Milliseconds(), versionKnown.Milliseconds(),
		},
	})
	if err != nil {
		return tier.Layout{}, err
	}
	r := newReply(replies[0])
	switch outcome := r.string(); outcome {
	case "agreed":
	case "type":
		return tier.Layout{}, fmt.Errorf("%w: %s holds a %s", tier.ErrUnusable, s.names.layout(), r.string())
	case "protocol":
		return tier.Layout{}, fmt.Errorf("%w: it speaks protocol %q, this program %d",
			tier.ErrUnusable, r.string(), tier.Protocol)
	case "partitions":
		return tier.Layout{}, fmt.Errorf("%w: %s names %q partitions: 1 to %d are allowed",
			tier.ErrUnusable, s.names.layout(), r.string(), tier.MaxPartitions)
	default:
		if r.err == nil {
			r.err = fmt.Errorf("%w: outcome %q", errReply, outcome)
		}
		return tier.Layout{}, r.err
	}
	r.int() // the clock of a server that may have no partition
	partitions, staleness, lag := r.int(), r.int(), r.int()
	var versions []string
	for r.err == nil && len(r.rest) > 0 {
		versions = append(versions, r.string())
	}
	if r.err != nil {
		return tier.Layout{}, r.err
	}
	if partitions < 1 || partitions > tier.MaxPartitions || staleness < 0 || lag < 0 {
		return tier.Layout{}, fmt.Errorf("%w: %d partitions, staleness %d, lag %d", errReply, partitions, staleness, lag)
	}
	s.partitions.Store(int32(partitions))
	s.learnVersions(versions)
	return tier.Layout{
		Namespace:    s.want.Namespace,
		Version:      s.want.Version,
		Partitions:   int(partitions),
		MaxStaleness: span(staleness),
		ReplicaLag:   span(lag),
	}, nil
}

// span returns a duration of some milliseconds. A value that does not fit becomes the longest
// duration.
func span(ms int64) time.Duration {
	const most = int64(1<<63-1) / int64(time.Millisecond)
	return time.Duration(min(max(ms, 0), most)) * time.Millisecond
}
