package redisstore

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/larderhq/larder/core/internal/tier"
)

// session is an open tier.
type session struct {
	nodes *nodes
	names *names
	want  tier.Layout

	sealer *sealer // nil: values are stored as they are

	logLength  int
	letters    int // how many dead letters of a queue a partition keeps
	partitions atomic.Int32
	clocks     [tier.MaxPartitions]clock

	limits  []string // features that the servers lack, for the log
	noQueue error    // the reason that nothing can be queued; nil if it can

	mu       sync.Mutex
	versions []string // known to be in use, ours first; never changed in place

	ctx    context.Context // ends with the session
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

var (
	_ tier.Session  = (*session)(nil)
	_ tier.Reporter = (*session)(nil)
	_ tier.Limited  = (*session)(nil)
)

func newSession(n *nodes, want tier.Layout) *session {
	s := &session{
		nodes:     n,
		names:     newNames(want.Namespace, want.Version),
		want:      want,
		versions:  []string{want.Version},
		logLength: logLength,
		letters:   maxLetters,
	}
	s.partitions.Store(int32(want.Partitions)) //nolint:gosec // at most 64
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if n.follow {
		s.wg.Go(func() { n.followMaster(s.ctx) })
	}
	return s
}

func (s *session) Close() error {
	s.cancel()
	err := s.nodes.close()
	s.wg.Wait()
	if err != nil {
		return fmt.Errorf("redisstore: close: %w", err)
	}
	return nil
}

func (s *session) partitionOf(name string) int {
	return tier.Partition(name, int(s.partitions.Load()))
}

func (s *session) partitionOfKey(key string) int { return s.partitionOf(tier.Name(key)) }

// in reports whether p is a partition of the layout.
func (s *session) in(p int) error {
	if n := int(s.partitions.Load()); p < 0 || p >= n {
		return fmt.Errorf("partition %d of %d", p, n)
	}
	return nil
}

func (s *session) knownVersions() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.versions
}

// learnVersions adds to the versions whose entries an invalidation unlinks.
func (s *session) learnVersions(versions []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := slices.Clone(s.versions)
	for _, v := range versions {
		if !slices.Contains(known, v) {
			known = append(known, v)
		}
	}
	s.versions = known
}

// nonce returns the part of a token that a call contributes.
func nonce() string {
	var b [9]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// failed wraps an error with the name of the operation.
func failed(what string, err error) error {
	for _, migrating := range []string{"TRYAGAIN", "CROSSSLOT", "ASK "} {
		if redis.HasErrorPrefix(err, migrating) {
			return fmt.Errorf("redisstore: %s: %w: %w", what, tier.ErrMigrating, err)
		}
	}
	return fmt.Errorf("redisstore: %s: %w", what, judge(err))
}

// clock is the known clock of a partition's server.
type clock struct{ last atomic.Pointer[reading] }

type reading struct {
	server int64     // milliseconds
	sent   time.Time // when the request was sent that read it, by the monotonic clock
}

// read records a reading, unless there is a later one.
func (c *clock) read(server int64, sent time.Time) {
	next := &reading{server, sent}
	for {
		last := c.last.Load()
		if last != nil && last.sent.After(sent) || c.last.CompareAndSwap(last, next) {
			return
		}
	}
}

// now returns a time that is not before the server's clock, so that no entry seems younger than it
// is.
func (c *clock) now() (int64, bool) {
	last := c.last.Load()
	if last == nil {
		return 0, false
	}
	return last.server + ms(time.Since(last.sent)), true
}

var errReply = errors.New("malformed reply")
