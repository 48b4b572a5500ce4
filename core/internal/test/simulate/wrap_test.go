package simulate_test

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/larderhq/larder/core/internal/tier"
)

// wrap returns the tier of an instance: with the history's number of partitions, traced, and
// without a rule where the history lacks one.
func (h *history) wrap(in *instance) tier.Tier { return &wrapped{h, in} }

type wrapped struct {
	h  *history
	in *instance
}

func (t *wrapped) Open(ctx context.Context, want tier.Layout) (tier.Session, error) {
	want.Partitions = t.h.parts
	ses, err := t.in.tier.Open(ctx, want)
	if err != nil {
		return nil, err
	}
	if t.h.broken != "" {
		ses = breakRule(ses, t.h.broken)
	}
	ses = &lined{ses, &t.in.line}
	if t.h.trace {
		ses = &traced{Session: ses, h: t.h, in: t.in}
	}
	return ses, nil
}

// tracer records the instances' calls of the tier.
type tracer struct {
	mu     sync.Mutex
	events map[int][]event
}

func (tr *tracer) note(k int, e event) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if tr.events == nil {
		tr.events = map[int][]event{}
	}
	list := tr.events[k]
	if len(list) > 400 {
		list = list[200:]
	}
	tr.events[k] = append(list, e)
}

func (tr *tracer) of(k int) []event {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return append(append([]event(nil), tr.events[k]...), tr.events[-1]...)
}

// traced records calls and their results.
type traced struct {
	tier.Session
	h  *history
	in *instance
}

func (s *traced) say(key, format string, args ...any) {
	k := -1
	_, _ = fmt.Sscanf(key, "row:%d", &k)
	s.h.traces.note(k, event{s.h.now(), s.in.id, "    " + fmt.Sprintf(format, args...), -1})
}

func show(e tier.Entry) string {
	if e.ID == "" && e.Payload == nil {
		return "nothing"
	}
	return fmt.Sprintf("%s %x tags %v eras %v provisional %v, born %d, fresh for %v, kept for %v", e.ID, e.Payload[:min(12, len(e.Payload))], e.Tags, e.Eras, e.Provisional, e.Born,
		time.Duration(e.FreshUntil-e.Now)*time.Millisecond, time.Duration(e.KeepUntil-e.Now)*time.Millisecond)
}

func (s *traced) Get(ctx context.Context, key string, tags []string) (tier.Entry, []string, error) {
	e, g, err := s.Session.Get(ctx, key, tags)
	s.say(key, "Get(%q, %q) = %s, %q, %v", key, tags, show(e), g, err)
	return e, g, err
}

func (s *traced) Generations(ctx context.Context, tags []string) ([]string, error) {
	g, err := s.Session.Generations(ctx, tags)
	s.say("", "Generations(%q) = %q, %v", tags, g, err)
	return g, err
}

func (s *traced) Acquire(ctx context.Context, key, seen string, tags []string, d time.Duration) (tier.Lease, error) {
	l, err := s.Session.Acquire(ctx, key, seen, tags, d)
	s.say(key, "Acquire(%q, seen %q) = token %q era %q sweep %q open %v gens %v, found %s, busy %v, %v", key, seen, l.Token, l.Era, l.Sweep, l.Open, l.Generations, show(l.Found), l.Busy, err)
	return l, err
}

func (s *traced) Fill(ctx context.Context, l tier.Lease, f tier.Fill) (bool, error) {
	ok, err := s.Session.Fill(ctx, l, f)
	s.say(l.Key, "Fill(%q, %s, not after %d) = %v, %v", l.Token, show(f.Entry), f.NotAfter, ok, err)
	return ok, err
}

func (s *traced) Late(ctx context.Context, tag string, since tier.Position) (tier.Late, error) {
	l, err := s.Session.Late(ctx, tag, since)
	s.say("", "Late(%q, %v) = %+v, %v", tag, since, l, err)
	return l, err
}

func (s *traced) Change(ctx context.Context, c tier.Change) ([]tier.Logged, error) {
	l, err := s.Session.Change(ctx, c)
	s.say("", "Change(%+v) = %v, %v", c, l, err)
	return l, err
}

func (s *traced) NewEra(ctx context.Context, p int, was string, always bool) error {
	err := s.Session.NewEra(ctx, p, was, always)
	s.say("", "NewEra(%d, %q, %v) = %v", p, was, always, err)
	return err
}

func (s *traced) Heads(ctx context.Context) ([]tier.Head, error) {
	hs, err := s.Session.Heads(ctx)
	text := ""
	for _, h := range hs {
		text += fmt.Sprintf("[%s era %s confirmed %s server %s missing %v err %v] ", h.Position.Token, h.Era, h.Confirmed, h.Server, h.Missing, h.Err)
	}
	s.say("", "Heads = %s %v", text, err)
	return hs, err
}

func (s *traced) Log(ctx context.Context, p int, after tier.Position) (tier.Log, error) {
	l, err := s.Session.Log(ctx, p, after)
	s.say("", "Log(%d, %v) = %+v, %v", p, after, l, err)
	return l, err
}

func (s *traced) Enqueue(ctx context.Context, e tier.Enqueue) ([]tier.Enqueued, error) {
	done, err := s.Session.Enqueue(ctx, e)
	s.say("", "Enqueue(within %v, %q) = %+v, %v", e.Within, e.Changes, done, err)
	return done, err
}

func (s *traced) Claim(ctx context.Context, c tier.Claim) (tier.Claimed, error) {
	got, err := s.Session.Claim(ctx, c)
	if len(got.Records) > 0 || got.Busy > 0 || err != nil || c.Keep {
		s.say("", "Claim(%+v) = %+v, %v", c, got, err)
	}
	return got, err
}

func (s *traced) Settle(ctx context.Context, st tier.Settle) (tier.Settlement, error) {
	done, err := s.Session.Settle(ctx, st)
	s.say("", "Settle(%+v) = %+v, %v", st, done, err)
	return done, err
}

func (s *traced) Hints(ctx context.Context, ready func(), fn func(tier.Hint)) error {
	return s.Session.Hints(ctx, ready, func(h tier.Hint) {
		s.say("", "hint %+v", h)
		fn(h)
	})
}
