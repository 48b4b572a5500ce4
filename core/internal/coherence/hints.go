package coherence

import (
	"context"
	"time"

	"github.com/larderhq/larder/core/internal/tier"
)

// The pauses between two attempts to subscribe.
const (
	minSubscribePause = 20 * time.Millisecond
	maxSubscribePause = time.Second
)

// listen receives hints until ctx ends.
func (s *shared) listen(ctx context.Context, ses tier.Session) {
	defer s.done.Done()
	pause := minSubscribePause
	var state subscription
	for ctx.Err() == nil {
		subscribed := false
		// The log has the items that were published without a subscription.
		err := ses.Hints(ctx, func() { subscribed = true; s.resubscribed() }, func(h tier.Hint) {
			pause = minSubscribePause
			s.receive(ctx, ses, h)
		})
		state.report(s, subscribed, err) // the next attempt follows in any case
		s.resubscribed()
		if !sleep(ctx, pause, nil) {
			return
		}
		pause = min(2*pause, maxSubscribePause)
	}
}

// receive handles a hint.
func (s *shared) receive(ctx context.Context, ses tier.Session, h tier.Hint) {
	switch {
	case h.Wake != "":
		s.waiters.wake(h.Wake)
	case h.Item.Kind == 0 || h.Partition < 0 || h.Partition >= s.local.Partitions():
	case h.Item.Token == "" && h.Item.Kind != tier.Era:
		s.invalidateExternal(ctx, ses, h)
	default:
		s.applyHint(h.Partition, h.Item)
	}
}

// resubscribed is called when a subscription begins or ends. Items and ends of leases may have
// been published unheard: the items are in the log.
func (s *shared) resubscribed() {
	s.waiters.wakeAll()
	s.requestRound()
}

// subscription is the state of the subscription to hints.
type subscription struct {
	failures int // consecutive
	reported bool
}

// reportSubscriptionAfter is the number of consecutive failures after which a failing
// subscription is logged.
const reportSubscriptionAfter = 5

// report logs once that hints cannot be subscribed to although the tier answers.
func (d *subscription) report(s *shared, subscribed bool, err error) {
	if tier.KindOf(err) != "" {
		s.refused(err)
		return
	}
	if subscribed {
		*d = subscription{}
		return
	}
	if d.failures++; d.failures < reportSubscriptionAfter || d.reported || !s.Legal(s.everything(), s.local.Now()) {
		return
	}
	d.reported = true
	s.Log.Warn("larder: the shared tier answers, but its messages cannot be subscribed to; "+
		"invalidations of other instances take effect after up to MaxStaleness", "error", err)
}
