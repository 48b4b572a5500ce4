package coherence

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/larderhq/larder/core/internal/tier"
)

const (
	// agreeEvery is the interval at which this instance renews its part of the layout.
	agreeEvery = 15 * time.Second
	// agreeLapse is the time after which an instance that could not renew its part stops
	// answering. A tier keeps the part for at least a minute plus twice the MaxStaleness.
	agreeLapse = 40 * time.Second
)

// agreement is what this instance knows of the layout (R2).
type agreement struct {
	renewed atomic.Int64 // when this instance's part of the layout was last renewed, on the engine's clock
	lag     atomic.Int64 // the largest ReplicaLag of any instance

	mu       sync.Mutex
	largest  time.Duration // the largest MaxStaleness that the layout has held lately
	remember int64         // until when largest is remembered
}

// largestStaleness records the MaxStaleness that the layout holds, and returns the largest
// of the last 45 s. A layout that was lost is complete again only when every instance has
// renewed its part.
func (s *shared) largestStaleness(d time.Duration) time.Duration {
	a, now := &s.agreement, s.local.Monotonic()
	a.mu.Lock()
	defer a.mu.Unlock()
	if d >= a.largest || now > a.remember {
		a.largest, a.remember = d, now+int64(3*agreeEvery)
	}
	return a.largest
}

// agree renews this instance's part of the layout, and adopts the layout that holds.
func (s *shared) agree(ctx context.Context, ses tier.Session) error {
	l, err := ses.Agree(ctx)
	if err != nil {
		return err
	}
	s.largestStaleness(l.MaxStaleness)
	s.agreement.lag.Store(int64(max(l.ReplicaLag, s.Layout.ReplicaLag)))
	if n := int32(l.Partitions); n > 0 && n <= tier.MaxPartitions && int(n) != s.local.Partitions() {
		s.follow.Lock()
		defer s.follow.Unlock()
		s.local.SetPartitions(int(n))
		s.ageAll()
	}
	return nil
}

// keepAgreed renews this instance's part of the layout until ctx ends.
func (s *shared) keepAgreed(ctx context.Context, ses tier.Session) {
	defer s.done.Done()
	pause := agreeEvery
	for sleep(ctx, pause, nil) {
		began := s.local.Monotonic()
		ac, cancel := context.WithTimeout(ctx, maxOpenTimeout)
		if pause = time.Second; s.agree(ac, ses) == nil {
			pause = agreeEvery
			s.agreement.renewed.Store(began)
		}
		cancel()
	}
}

// agreementLapsed reports whether other instances may have forgotten this instance's
// MaxStaleness.
func (s *shared) agreementLapsed() bool {
	return s.local.Monotonic()-s.agreement.renewed.Load() > int64(agreeLapse)
}

func (s *shared) replicaLag() time.Duration { return time.Duration(s.agreement.lag.Load()) }
