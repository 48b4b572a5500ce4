package simulate_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/larderhq/larder/core/internal/tier"
)

// broken lists the rules that the tier keeps. A decorator around its sessions takes each
// out: it behaves as a plausible tier without the rule would.
var broken = map[string]func(b *breaker) tier.Session{
	// A generation is a function of the tag alone: a killed one returns.
	"tier-R3": func(b *breaker) tier.Session { return reusing{b} },
	// A fill does not learn of open intents.
	"tier-R8": func(b *breaker) tier.Session { return closedEyes{b} },
	// Generations are captured after the load.
	"tier-R8-After": func(b *breaker) tier.Session { return capturingLate{b} },
	// A fill without its lease is stored.
	"tier-R11": func(b *breaker) tier.Session { return filling{b} },
	// An invalidated entry is not unlinked.
	"tier-R13": func(b *breaker) tier.Session { return keeping{b} },
	// A pattern does not remove the entries that match.
	"tier-R15": func(b *breaker) tier.Session { return lazy{b} },
	// Invalidations during a migration have no effect.
	"tier-R17": func(b *breaker) tier.Session { return optimistic{b} },
	// A promotion goes unnoticed.
	"tier-R21": func(b *breaker) tier.Session { return blind{b} },
	// Intents are not entered.
	"tier-R24-Begin": func(b *breaker) tier.Session { return forgetful{b} },
	// The end of an intent removes the intent and invalidates nothing.
	"tier-R24-End": func(b *breaker) tier.Session { return quiet{b} },
	// Entries that intents cover do not end at their deadlines.
	"tier-R24-Cap": func(b *breaker) tier.Session { return patient{b} },
	// The log does not hold the deadline of an intent.
	"tier-R24-Told": func(b *breaker) tier.Session { return vague{b} },
	// The head does not hold the open intents before it.
	"tier-R24-Until": func(b *breaker) tier.Session { return newborn{b} },
	// Abandoning an intent removes the intents of others as well.
	"tier-R24-Lift": func(b *breaker) tier.Session { return careless{b} },
	// A batch is compared with no log.
	"tier-R30": func(b *breaker) tier.Session { return unmoved{b} },
	// No marks are left of the lag of replicas.
	"tier-R26": func(b *breaker) tier.Session { return unmarked{b} },
	// Readers do not learn of queued changes.
	"tier-R27-Queued": func(b *breaker) tier.Session { return silent{b} },
	// Settling a change removes a later change of the same key.
	"tier-R27-Version": func(b *breaker) tier.Session { return forgetting{b} },
	// A queue has any number of workers at a time.
	"tier-R27-Lease": func(b *breaker) tier.Session { return crowded{b} },
	// The changes queued longest are claimed last.
	"tier-R27-Order": func(b *breaker) tier.Session { return reversed{b} },
	// A change whose caller has given up is queued.
	"tier-R27-Within": func(b *breaker) tier.Session { return unhurried{b} },
}

type breaker struct {
	tier.Session
}

func breakRule(ses tier.Session, rule string) tier.Session {
	make, ok := broken[rule]
	if !ok {
		panic("no such rule: " + rule)
	}
	return make(&breaker{Session: ses})
}

type reusing struct{ *breaker }

func same(tag, token string) string {
	if token == "" {
		return ""
	}
	return "always " + tag
}

func (s reusing) Get(ctx context.Context, key string, tags []string) (tier.Entry, []string, error) {
	e, gens, err := s.Session.Get(ctx, key, tags)
	for i := range gens {
		gens[i] = same(tags[i], gens[i])
	}
	return e, gens, err
}

func (s reusing) Generations(ctx context.Context, tags []string) ([]string, error) {
	gens, err := s.Session.Generations(ctx, tags)
	for i := range gens {
		gens[i] = same(tags[i], gens[i])
	}
	return gens, err
}

func (s reusing) Acquire(ctx context.Context, key, seen string, tags []string, d time.Duration) (tier.Lease, error) {
	l, err := s.Session.Acquire(ctx, key, seen, tags, d)
	for i := range l.Generations {
		l.Generations[i].Token = same(l.Generations[i].Tag, l.Generations[i].Token)
	}
	return l, err
}

func (s reusing) Late(ctx context.Context, tag string, since tier.Position) (tier.Late, error) {
	l, err := s.Session.Late(ctx, tag, since)
	l.Token = same(tag, l.Token)
	return l, err
}

type closedEyes struct{ *breaker }

func (s closedEyes) Acquire(ctx context.Context, key, seen string, tags []string, d time.Duration) (tier.Lease, error) {
	l, err := s.Session.Acquire(ctx, key, seen, tags, d)
	l.Open = 0
	for i := range l.Generations {
		l.Generations[i].Open = 0
	}
	return l, err
}

func (s closedEyes) Late(ctx context.Context, tag string, since tier.Position) (tier.Late, error) {
	l, err := s.Session.Late(ctx, tag, since)
	l.Open = 0
	return l, err
}

type capturingLate struct{ *breaker }

func (s capturingLate) Fill(ctx context.Context, l tier.Lease, f tier.Fill) (bool, error) {
	var tags []string
	for _, g := range l.Generations {
		tags = append(tags, g.Tag)
	}
	// An Acquire of another key makes the generations that are missing.
	now, err := s.Session.Acquire(ctx, "captured:"+l.Token, "", tags, 1)
	if err != nil {
		return false, err
	}
	f.Entry.Tags = slices.Clone(f.Entry.Tags)
	for i := range f.Entry.Tags {
		for _, g := range now.Generations {
			if g.Tag == f.Entry.Tags[i].Tag {
				f.Entry.Tags[i].Token = g.Token
			}
		}
	}
	return s.Session.Fill(ctx, l, f)
}

type filling struct{ *breaker }

func (s filling) Fill(ctx context.Context, l tier.Lease, f tier.Fill) (bool, error) {
	ok, err := s.Session.Fill(ctx, l, f)
	if ok || err != nil {
		return ok, err
	}
	again, err := s.Session.Acquire(ctx, l.Key, "", nil, 1e9)
	if err != nil || again.Token == "" {
		return false, err
	}
	return s.Session.Fill(ctx, again, f)
}

type keeping struct{ *breaker }

func (s keeping) Change(ctx context.Context, c tier.Change) ([]tier.Logged, error) {
	was := map[string]tier.Entry{}
	for _, it := range c.Items {
		if it.Kind == tier.Key {
			if e, _, err := s.Session.Get(ctx, it.Value, nil); err == nil && e.ID != "" {
				was[it.Value] = e
			}
		}
	}
	logged, err := s.Session.Change(ctx, c)
	for key, e := range was {
		if l, lerr := s.Session.Acquire(ctx, key, "", nil, 1e9); lerr == nil && l.Token != "" {
			_, _ = s.Session.Fill(ctx, l, tier.Fill{Key: key, Entry: e})
		}
	}
	return logged, err
}

type lazy struct{ *breaker }

func (lazy) Scan(context.Context, tier.Scan) (tier.Scanned, error) {
	return tier.Scanned{Sure: true}, nil
}

type optimistic struct{ *breaker }

func (s optimistic) Change(ctx context.Context, c tier.Change) ([]tier.Logged, error) {
	logged, err := s.Session.Change(ctx, c)
	if errors.Is(err, tier.ErrMigrating) {
		return nil, nil
	}
	return logged, err
}

type blind struct{ *breaker }

func (s blind) Heads(ctx context.Context) ([]tier.Head, error) {
	heads, err := s.Session.Heads(ctx)
	for i := range heads {
		heads[i].Confirmed = heads[i].Server
	}
	return heads, err
}

type forgetful struct{ *breaker }

func (s forgetful) Change(ctx context.Context, c tier.Change) ([]tier.Logged, error) {
	if c.Mode == tier.Begin {
		c.Mode, c.Intent = tier.NoIntent, ""
	}
	return s.Session.Change(ctx, c)
}

type patient struct{ *breaker }

func (s patient) Change(ctx context.Context, c tier.Change) ([]tier.Logged, error) {
	if c.Mode == tier.Begin {
		c.Lasts += time.Hour
	}
	return s.Session.Change(ctx, c)
}

type vague struct{ *breaker }

// postponed returns items whose deadlines are another hour away.
func postponed(items []tier.Logged) []tier.Logged {
	items = slices.Clone(items)
	for i := range items {
		if in, ok := tier.IntentOf(items[i].Item); ok {
			in.Deadline += time.Hour.Milliseconds()
			items[i].Item = in.Begun()
		}
	}
	return items
}

func (s vague) Change(ctx context.Context, c tier.Change) ([]tier.Logged, error) {
	logged, err := s.Session.Change(ctx, c)
	return postponed(logged), err
}

func (s vague) Log(ctx context.Context, p int, after tier.Position) (tier.Log, error) {
	l, err := s.Session.Log(ctx, p, after)
	l.Items = postponed(l.Items)
	return l, err
}

func (s vague) Hints(ctx context.Context, ready func(), fn func(tier.Hint)) error {
	return s.Session.Hints(ctx, ready, func(h tier.Hint) {
		h.Item = postponed([]tier.Logged{h.Item})[0]
		fn(h)
	})
}

type newborn struct{ *breaker }

func (s newborn) Heads(ctx context.Context) ([]tier.Head, error) {
	heads, err := s.Session.Heads(ctx)
	for i := range heads {
		heads[i].Until = 0
	}
	return heads, err
}

type careless struct{ *breaker }

// begun belongs to the process that runs without the rule.
var begun sync.Map // ids of intents

func (s careless) Change(ctx context.Context, c tier.Change) ([]tier.Logged, error) {
	switch c.Mode {
	case tier.Begin:
		begun.Store(c.Intent, true)
	case tier.Abandon:
		own := c.Intent
		begun.Range(func(id, _ any) bool {
			if c.Intent = id.(string); c.Intent != own {
				_, _ = s.Session.Change(ctx, c)
			}
			return true
		})
		c.Intent = own
	}
	return s.Session.Change(ctx, c)
}

type quiet struct{ *breaker }

func (s quiet) Change(ctx context.Context, c tier.Change) ([]tier.Logged, error) {
	if c.Mode == tier.End {
		c.Mode = tier.Abandon
	}
	return s.Session.Change(ctx, c)
}

type unmarked struct{ *breaker }

func (s unmarked) Change(ctx context.Context, c tier.Change) ([]tier.Logged, error) {
	c.Lag = 0
	return s.Session.Change(ctx, c)
}

type silent struct{ *breaker }

func (s silent) Acquire(ctx context.Context, key, seen string, tags []string, d time.Duration) (tier.Lease, error) {
	l, err := s.Session.Acquire(ctx, key, seen, tags, d)
	l.Queued = nil
	return l, err
}

type forgetting struct{ *breaker }

func (s forgetting) Settle(ctx context.Context, st tier.Settle) (tier.Settlement, error) {
	c, err := s.Session.Claim(ctx, tier.Claim{
		Partition: st.Partition, Queue: st.Queue, Worker: st.Worker, Max: tier.MaxClaim, Lease: 5 * time.Second,
	})
	if err == nil {
		st.Records = slices.Clone(st.Records)
		for i, r := range st.Records {
			for _, q := range c.Records {
				if q.Key == r.Key {
					st.Records[i].Version = q.Version
				}
			}
		}
	}
	return s.Session.Settle(ctx, st)
}

type crowded struct{ *breaker }

func (s crowded) Claim(ctx context.Context, c tier.Claim) (tier.Claimed, error) {
	c.Worker = "everybody"
	return s.Session.Claim(ctx, c)
}

func (s crowded) Settle(ctx context.Context, st tier.Settle) (tier.Settlement, error) {
	st.Worker = "everybody"
	return s.Session.Settle(ctx, st)
}

type reversed struct{ *breaker }

func (s reversed) Claim(ctx context.Context, c tier.Claim) (tier.Claimed, error) {
	most := c.Max
	c.Max = tier.MaxClaim
	got, err := s.Session.Claim(ctx, c)
	if n := len(got.Records); n > most {
		got.Records, got.More = got.Records[n-most:], true
	}
	return got, err
}

type unhurried struct{ *breaker }

func (s unhurried) Enqueue(ctx context.Context, e tier.Enqueue) ([]tier.Enqueued, error) {
	e.Within = 0
	return s.Session.Enqueue(ctx, e)
}

// brokenRules lists them.
func brokenRules() (list []string) {
	for name := range broken {
		list = append(list, name)
	}
	slices.SortFunc(list, strings.Compare)
	return list
}
