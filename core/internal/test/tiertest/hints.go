package tiertest

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/tier"
)

func hintCases() []testCase {
	cases := []testCase{
		{name: "what is logged is published to every client, in order", run: func(s *store) {
			a, b := s.open(), s.open()
			la, lb := a.listen(), b.listen()
			var logged []tier.Logged
			for i := range 5 {
				items := []tier.Item{key(in(1, fmt.Sprint("key", i))), tag(in(1, fmt.Sprint("t", i)))}
				logged = append(logged, a.change(tier.Change{Partition: 1, Items: items})...)
			}
			logged = append(logged, b.change(tier.Change{Partition: 1, Items: []tier.Item{pattern("x*"), all()}})...)
			for _, l := range []*listener{la, lb} {
				s.eventually(func() bool { return len(l.items(1)) >= len(logged) }, "every item")
				require.Equal(s, logged, l.items(1))
				require.Empty(s, l.items(0))
			}
		}},

		{name: "items arrive as any strings", run: func(s *store) {
			a, b := s.open(), s.open()
			l := b.listen()
			want := map[string]bool{}
			for _, name := range oddNames() {
				a.invalidate(tag(name))
				want[name] = true
			}
			s.eventually(func() bool {
				for p := range partitions {
					for _, it := range l.items(p) {
						if it.Kind == tier.Tag {
							delete(want, it.Value)
						}
					}
				}
				return len(want) == 0
			}, "every name")
		}},

		{name: "a new era is published", run: func(s *store) {
			a, b := s.open(), s.open()
			l := b.listen()
			require.NoError(s, a.NewEra(s.ctx(), 2, "", true))
			s.eventually(func() bool { return len(l.eras(2)) > 0 }, "the era")
			require.Equal(s, strconv.Itoa(2), l.eras(2)[0].Value)
		}},

		{name: "begin, end and abandon are published as they are logged", run: func(s *store) {
			a, b := s.open(), s.open()
			l := b.listen()
			before := b.heads()[home("key")].Position
			a.begin("intent", minute, key("key"))
			a.end("intent", key("key"))
			a.begin("other", minute, key("key"))
			a.abandon("other", key("key"))
			s.eventually(func() bool { return len(l.items(home("key"))) >= 5 }, "all")
			require.ElementsMatch(s, b.log(home("key"), before).Items, l.items(home("key")))
		}},

		{name: "namespaces do not hear each other", run: func(s *store) {
			a, b := s.open(), newStore(s.TB, s.h).open()
			la, lb := a.listen(), b.listen()
			a.invalidate(key("one"))
			b.invalidate(key("two"))
			p, q := home("one"), home("two")
			s.eventually(func() bool { return len(la.items(p)) > 0 && len(lb.items(q)) > 0 }, "both")
			s.wait(short / 4)
			require.Equal(s, []string{"one"}, values(la.all()))
			require.Equal(s, []string{"two"}, values(lb.all()))
		}},

		{name: "fn is called by one goroutine, and may be slow", run: func(s *store) {
			a, b := s.open(), s.open()
			var running, most, got atomic.Int64
			b.listenWith(func(tier.Hint) {
				most.Store(max(most.Load(), running.Add(1)))
				s.wait(short / 40)
				running.Add(-1)
				got.Add(1)
			})
			for i := range 10 {
				a.invalidate(key(fmt.Sprint(i)))
			}
			s.eventually(func() bool { return got.Load() >= 10 }, "all")
			require.EqualValues(s, 1, most.Load())
		}},

		{name: "given the end of its context, hints ends", run: func(s *store) {
			c := s.open()
			l := c.listen()
			l.cancel()
			require.Error(s, l.ended())
			c.invalidate(key("key"))
			s.wait(short / 4)
			require.Empty(s, l.all(), "fn is not called any more")
		}},

		{name: "given a closed session, hints ends", run: func(s *store) {
			c := s.open()
			l := c.listen()
			require.NoError(s, c.Close())
			require.Error(s, l.ended())
		}},

		{name: "a session may listen again", run: func(s *store) {
			c := s.open()
			l := c.listen()
			l.cancel()
			require.Error(s, l.ended())
			l = c.listen()
			c.invalidate(key("key"))
			s.eventually(func() bool { return len(l.all()) > 0 }, "the item")
		}},

		{name: "given a restart, the subscription is cut and another works", needs: needsRestart, alone: true,
			run: func(s *store) {
				c := s.open()
				l := c.listen()
				s.h.Restart(s.TB)
				require.Error(s, l.ended())
				s.eventually(func() bool {
					_, err := c.Heads(s.ctx())
					return err == nil
				}, "the server")
				l = c.listen()
				c.invalidate(key("key"))
				s.eventually(func() bool { return len(l.all()) > 0 }, "the item")
			}},
	}
	for _, e := range leaseEnds() {
		cases = append(cases, testCase{
			name: "given an instance that got busy, " + e.name + " wakes it",
			run: func(s *store) {
				holder, waiter, version := s.open(), s.open(), s.openVersion("v2")
				l := waiter.listen()
				held := holder.acquire("key")
				require.Positive(s, waiter.ask("key", "", minute).Busy)
				require.Empty(s, l.woken())
				e.end(holder, version, held)
				s.eventually(func() bool { return len(l.woken()) > 0 }, "the wake")
				h := l.woken()[0]
				require.Equal(s, "key", h.Wake)
				require.Equal(s, home("key"), h.Partition)
				require.Equal(s, tier.Logged{}, h.Item, "it is one or the other")
				require.Zero(s, waiter.ask("key", "", minute).Busy, "who is woken need not wait")
			},
		})
	}
	return cases
}

// leaseEnd is a way for a lease to end.
type leaseEnd struct {
	name string
	end  func(holder, other *client, l tier.Lease)
}

func leaseEnds() []leaseEnd {
	refused := func(holder *client, l tier.Lease, f tier.Fill) {
		require.False(holder, holder.fill(l, f))
	}
	return []leaseEnd{
		{"a fill", func(holder, _ *client, l tier.Lease) {
			require.True(holder, holder.fill(l, value(l, "payload")))
		}},
		{"a fill under another key of the name", func(holder, _ *client, l tier.Lease) {
			f := value(l, "payload")
			f.Key += string(tier.NameEnd) + "gzip"
			require.True(holder, holder.fill(l, f))
		}},
		{"a release", func(holder, _ *client, l tier.Lease) {
			require.NoError(holder, holder.Release(holder.ctx(), l))
		}},
		{"an extension and a release", func(holder, _ *client, l tier.Lease) {
			require.True(holder, holder.extend(l, minute))
			require.NoError(holder, holder.Release(holder.ctx(), l))
		}},
		{"an invalidation by key", func(holder, _ *client, _ tier.Lease) { holder.invalidate(key("key")) }},
		{"an invalidation by key from another version", func(_, other *client, _ tier.Lease) {
			other.invalidate(key("key"))
		}},
		{"a writer's begin", func(_, other *client, _ tier.Lease) { other.begin("intent", minute, key("key")) }},
		{"a fill that a pattern refuses", func(holder, other *client, l tier.Lease) {
			other.invalidate(pattern("*"))
			refused(holder, l, value(l, "payload"))
		}},
		{"a fill that an era refuses", func(holder, other *client, l tier.Lease) {
			other.invalidate(all())
			refused(holder, l, value(l, "payload"))
		}},
		{"a fill that came after NotAfter", func(holder, _ *client, l tier.Lease) {
			f := value(l, "payload")
			f.NotAfter = l.Now - 1
			refused(holder, l, f)
		}},
		{"a fill that came after KeepUntil", func(holder, _ *client, l tier.Lease) {
			f := value(l, "payload")
			f.Entry.KeepUntil = l.Now - 1
			refused(holder, l, f)
		}},
	}
}

// listener is a subscription.
type listener struct {
	*client
	cancel context.CancelFunc
	done   chan struct{}
	err    error

	mu    sync.Mutex
	hints []tier.Hint
}

// listen subscribes, and returns when the tier says that it listens.
func (c *client) listen() *listener {
	c.Helper()
	return c.listenWith(func(tier.Hint) {})
}

func (c *client) listenWith(fn func(tier.Hint)) *listener {
	c.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &listener{client: c, cancel: cancel, done: make(chan struct{})}
	var ready atomic.Int64
	go func() {
		defer close(l.done)
		l.err = c.Hints(ctx, func() { ready.Add(1) }, func(h tier.Hint) {
			l.mu.Lock()
			l.hints = append(l.hints, h)
			l.mu.Unlock()
			fn(h)
		})
	}()
	c.Cleanup(func() {
		cancel()
		_ = l.ended()
	})
	c.eventually(func() bool { return ready.Load() > 0 || l.over() }, "the subscription")
	require.False(c, l.over(), "the subscription has ended")
	require.EqualValues(c, 1, ready.Load())
	return l
}

func (l *listener) over() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// ended waits for the end and returns why it came.
func (l *listener) ended() error {
	l.Helper()
	l.eventually(l.over, "the end of the subscription")
	return l.err
}

// all returns what was heard of items.
func (l *listener) all() []tier.Logged {
	var got []tier.Logged
	for p := range partitions {
		got = append(got, l.items(p)...)
	}
	return got
}

// items returns what was heard of the items of a partition, each once. Eras are
// none of them: those that were made when the case began may still arrive.
func (l *listener) items(partition int) []tier.Logged {
	return l.heard(partition, func(it tier.Logged) bool { return it.Kind != tier.Era })
}

func (l *listener) eras(partition int) []tier.Logged {
	return l.heard(partition, func(it tier.Logged) bool { return it.Kind == tier.Era })
}

func (l *listener) heard(partition int, which func(tier.Logged) bool) []tier.Logged {
	l.mu.Lock()
	defer l.mu.Unlock()
	var got []tier.Logged
	seen := map[tier.Logged]bool{}
	for _, h := range l.hints {
		if h.Partition == partition && h.Wake == "" && which(h.Item) && !seen[h.Item] {
			seen[h.Item] = true
			got = append(got, h.Item)
		}
	}
	return got
}

func (l *listener) woken() []tier.Hint {
	l.mu.Lock()
	defer l.mu.Unlock()
	var got []tier.Hint
	for _, h := range l.hints {
		if h.Wake != "" {
			got = append(got, h)
		}
	}
	return got
}
