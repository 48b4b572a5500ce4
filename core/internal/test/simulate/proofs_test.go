package simulate_test

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/larderhq/larder/core/internal/naming"
	"github.com/larderhq/larder/core/internal/tier"
)

// linger is the time after an event within which its consequences may come.
const linger = 3 * time.Second

// proofs records the heads that an instance has read of all partitions. While they arrive in
// time, the instance knows all invalidations.
type proofs struct {
	delta time.Duration

	mu   sync.Mutex
	sent time.Time // when the last successful read of heads was sent
	gap  time.Time // the last time at which heads came late, or failed
	lost time.Time // until when it may lose its own changes
}

func (p *proofs) heads(sent time.Time, heads []tier.Head, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if slices.ContainsFunc(heads, func(h tier.Head) bool { return h.Missing || h.Confirmed != h.Server }) {
		p.lost = now.Add(linger)
	}
	if err != nil || p.lost.After(now) || slices.ContainsFunc(heads, func(h tier.Head) bool { return h.Err != nil }) {
		p.gap = now
		return
	}
	if now.Sub(p.sent) > p.delta*8/10 {
		p.gap = now
	}
	p.sent = sent
}

func (p *proofs) log(sent time.Time, log *tier.Log, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if err != nil || now.Sub(sent) > p.delta/10 {
		p.gap = now
	}
	if err == nil && !log.Joined {
		p.gap, p.lost = now, now.Add(linger)
	}
}

// hold reports whether the instance has known all invalidations since one time, and has lost
// no change since another.
func (p *proofs) hold(known, kept time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.gap.Before(known) && time.Since(p.sent) < p.delta*8/10 && p.lost.Before(kept)
}

// concerned is the time until which messages of an invalidation may arrive.
type concerned struct {
	mu    sync.Mutex
	until map[tier.Item]time.Duration
	tells map[string][]time.Duration // the last two times at which each tag was invalidated
	all   time.Duration
}

// note records items that have been invalidated by now, or may be within linger.
func (c *concerned) note(now time.Duration, items ...tier.Item) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.until == nil {
		c.until, c.tells = make(map[tier.Item]time.Duration), make(map[string][]time.Duration)
	}
	for _, it := range items {
		switch {
		case it.Kind == tier.Tag:
			times := append(c.tells[it.Value], now)
			c.tells[it.Value] = times[max(0, len(times)-2):]
			fallthrough
		case it.Kind == tier.Key:
			c.until[it] = now + linger
		case it.Kind == tier.Pattern && strings.HasPrefix(it.Value, "row:"): // matches no queued row
		case it.Kind == tier.Pattern, it.Kind == tier.All, it.Kind == tier.Era:
			c.all = now + linger
		}
	}
}

// holds reports whether an instance must still answer a change that it has put, whether the
// tier answers or not (R27). That is so while no invalidation has concerned the row since,
// except one of its tag.
func (h *history) holds(in *instance, r *row, d *debt, begun time.Duration) bool {
	if r.kind != later || d.by != in.id || d.void || !d.soft || h.pad > 8 || r.latest() != d.version {
		return false
	}
	c := &h.concerned
	c.mu.Lock()
	defer c.mu.Unlock()
	group := tier.Item{Kind: tier.Tag, Value: naming.Tag(groupTag(r.k))}
	if c.all >= d.from || c.until[tier.Item{Kind: tier.Key, Value: laterKey(r.k)}] >= d.from ||
		!h.behind.bare && c.until[group] >= d.from {
		return false
	}
	switch tells := c.tells[laterTag(r.k)]; {
	case len(tells) > 1 && tells[0] >= d.from:
		return false
	case len(tells) > 0 && tells[len(tells)-1] >= d.from && h.now() >= d.from+h.class.TTL:
		return false
	}
	return in.line.proofs.hold(h.begun.Add(begun), h.begun.Add(d.from))
}
