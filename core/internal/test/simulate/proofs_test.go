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
	delta        time.Duration
	writeTimeout time.Duration

	mu      sync.Mutex
	sent    time.Time // when the last successful read of heads was sent
	gap     time.Time // the last time at which heads came late, or failed
	lost    time.Time // until when it may lose its own changes
	drops   time.Time // until when a deadline may drop them: see adopt
	servers []string  // of the last heads
}

// adopt records that the instance may have begun to follow a partition from another head. It does
// not know the intents that are open then, and drops its own changes at the last of their
// deadlines. The caller holds mu.
func (p *proofs) adopt() { p.drops = time.Now().Add(p.writeTimeout + linger) }

func (p *proofs) heads(sent time.Time, heads []tier.Head, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if slices.ContainsFunc(heads, func(h tier.Head) bool { return h.Missing || h.Confirmed != h.Server }) {
		p.lost = now.Add(linger)
		p.adopt()
	}
	servers := make([]string, len(heads))
	for i := range heads {
		servers[i] = heads[i].Server
	}
	if err == nil && !slices.Equal(servers, p.servers) {
		p.servers = servers
		p.adopt()
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
		p.adopt()
	}
}

// hold reports whether the instance has known all invalidations since one time, and has lost
// no change since another.
func (p *proofs) hold(known, kept time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.gap.Before(known) && time.Since(p.sent) < p.delta*8/10 && p.lost.Before(kept) && p.drops.Before(kept)
}

// concerned is the time until which messages of an invalidation may arrive.
type concerned struct {
	mu    sync.Mutex
	open  map[tier.Item]int // invalidations without a reply: messages may have arrived
	until map[tier.Item]time.Duration
	tells map[string][]time.Duration // the last two times at which each tag was invalidated
	all   time.Duration
}

// begin records items that are about to be invalidated.
func (c *concerned) begin(items []tier.Item) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == nil {
		c.open = make(map[tier.Item]int)
	}
	for _, it := range items {
		c.open[it]++
	}
}

// end records that the call that invalidates items has ended.
func (c *concerned) end(now time.Duration, items []tier.Item) {
	c.note(now, items...)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, it := range items {
		if c.open[it]--; c.open[it] == 0 {
			delete(c.open, it)
		}
	}
}

// dropsAll reports whether an item concerns every queued row.
func dropsAll(it tier.Item) bool {
	return it.Kind == tier.All || it.Kind == tier.Era || it.Kind == tier.Pattern && !strings.HasPrefix(it.Value, "row:")
}

// since reports whether messages about an item may have arrived since a time. The caller holds
// mu.
func (c *concerned) since(from time.Duration, it tier.Item) bool {
	return c.open[it] > 0 || c.until[it] >= from
}

// allSince reports whether messages about an item that concerns every queued row may have
// arrived since a time. The caller holds mu.
func (c *concerned) allSince(from time.Duration) bool {
	for it := range c.open {
		if dropsAll(it) {
			return true
		}
	}
	return c.all >= from
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
		case dropsAll(it):
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
	key, tag := tier.Item{Kind: tier.Key, Value: laterKey(r.k)}, tier.Item{Kind: tier.Tag, Value: laterTag(r.k)}
	group := tier.Item{Kind: tier.Tag, Value: naming.Tag(groupTag(r.k))}
	if c.allSince(d.from) || c.since(d.from, key) || !h.behind.bare && c.since(d.from, group) {
		return false
	}
	tells := slices.Concat(c.tells[tag.Value], slices.Repeat([]time.Duration{h.now()}, c.open[tag]))
	switch tells = tells[max(0, len(tells)-2):]; {
	case len(tells) > 1 && tells[0] >= d.from:
		return false
	case len(tells) > 0 && tells[len(tells)-1] >= d.from && h.now() >= d.from+h.class.TTL:
		return false
	}
	return in.line.proofs.hold(h.begun.Add(begun), h.begun.Add(d.from))
}
