package redisstore

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/larderhq/larder/core/internal/tier"
)

// Tier is a shared tier on Redis, for core.Options.Remote. The cache opens it.
type Tier struct {
	client  redis.UniversalClient
	sealing *Sealing
}

// Option is a setting of a [Tier].
type Option func(*Tier)

// Seal encrypts the values in Redis. A wrong Sealing makes core.New fail with
// core.ErrUnusable, and an error that names the field.
func Seal(s Sealing) Option { return func(t *Tier) { t.sealing = &s } }

var _ tier.Tier = (*Tier)(nil)

// New returns the tier on the Redis of client: a *redis.Client of one server or of
// Sentinel's master (redis.NewFailoverClient), or a *redis.ClusterClient. New sends
// nothing. The cache opens the tier, and core.New fails with core.ErrUnusable and the
// reason for
//
//   - any other client, such as a Ring, whose shards change for one client only;
//   - options that send reads to replicas or to random nodes (ReadOnly, RouteByLatency,
//     RouteRandomly), since a replica may lack the latest invalidations;
//   - a ClusterClient with its own ClusterSlots, such as that of NewFailoverClusterClient;
//   - a wrong option, such as a secret of [Seal] that has not 32 bytes;
//   - a Redis older than 6.2, or a server that refuses a needed command, in scripts or
//     outside; MANAGED.md lists the effect of each.
//
// The tier creates its own clients from the options of the client. It copies address, dialer, TLS,
// credentials, OnConnect, protocol, database, client name, buffers and the size of the pool, and
// no other option. It has its own timeouts (1 s to connect, at most 2 s for a reply), since in
// go-redis a context does not by default end a call to a server that hangs. Retries, hooks, the
// Limiter, maintenance notifications, CLIENT SETINFO, and the client-side caching of go-redis
// 9.22 and later are off.
func New(client redis.UniversalClient, options ...Option) *Tier {
	t := &Tier{client: client}
	for _, set := range options {
		set(t)
	}
	return t
}

// Open implements tier.Tier.
func (t *Tier) Open(ctx context.Context, want tier.Layout) (tier.Session, error) {
	if err := check(want); err != nil {
		return nil, fmt.Errorf("redisstore: open: %w", err)
	}
	var seals *sealer
	if t.sealing != nil {
		var err error
		if seals, err = newSealer(*t.sealing); err != nil {
			return nil, fmt.Errorf("redisstore: open: %w", err)
		}
	}
	n, err := derive(t.client)
	if err != nil {
		return nil, fmt.Errorf("redisstore: open: %w", err)
	}
	s := newSession(n, want)
	s.sealer = seals
	if err := s.open(ctx); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("redisstore: open: %w", err)
	}
	return s, nil
}

func check(want tier.Layout) error {
	switch {
	case want.Partitions < 1 || want.Partitions > tier.MaxPartitions:
		return fmt.Errorf("%w: %d partitions: 1 to %d are allowed", tier.ErrUnusable, want.Partitions, tier.MaxPartitions)
	case strings.ContainsAny(want.Namespace, "{}"):
		return fmt.Errorf("%w: namespace %q: braces would change where keys lie", tier.ErrUnusable, want.Namespace)
	case strings.ContainsRune(want.Version, tier.NameEnd):
		return fmt.Errorf("%w: version %q: control characters are not allowed", tier.ErrUnusable, want.Version)
	case want.MaxStaleness < 0 || want.ReplicaLag < 0:
		return fmt.Errorf("%w: negative duration", tier.ErrUnusable)
	}
	return nil
}

func (s *session) open(ctx context.Context) error {
	if err := s.inspect(ctx); err != nil {
		return s.refused(err)
	}
	if _, err := s.agree(ctx); err != nil {
		return s.refused(err)
	}
	return nil
}

// slotMapTries is the number of attempts to read the slot map in the available time. The client
// asks the nodes one after the other, in any order, and a node that hangs would use up all of it.
const slotMapTries = 4

// firstMaster returns the server of the layout.
func (s *session) firstMaster(ctx context.Context) (*redis.Client, error) {
	for left := slotMapTries; ; left-- {
		limit := dialTimeout
		if deadline, ok := ctx.Deadline(); ok {
			limit = time.Until(deadline)
		}
		try, cancel := context.WithTimeout(ctx, limit/time.Duration(left))
		node, err := s.nodes.master(try, s.names.layout())
		late := try.Err() != nil
		cancel()
		if err == nil || !late || left == 1 || ctx.Err() != nil {
			return node, err
		}
	}
}

// infoField returns a field of a reply to INFO, "" if there is none.
func infoField(info, name string) string {
	for line := range strings.Lines(info) {
		if v, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// olderThan returns false for a malformed version, so that the tier is tried.
func olderThan(version string, than ...int) bool {
	parts := strings.SplitN(version, ".", 4)
	for i, n := range than {
		if i >= len(parts) {
			return false
		}
		v, err := strconv.Atoi(parts[i])
		if err != nil || v != n {
			return err == nil && v < n
		}
	}
	return false
}

// ms returns a duration in whole milliseconds, rounded up. A positive duration does not become 0,
// which Redis refuses or takes as no expiry.
func ms(d time.Duration) int64 {
	n := int64(d / time.Millisecond)
	if d%time.Millisecond > 0 {
		n++
	}
	return n
}
