package tiertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/tier"
)

func limitCases() []testCase {
	return []testCase{
		{name: "given a context that has ended, every call returns an error at once", run: func(s *store) {
			c := s.open()
			l := c.acquire("key")
			cancelled, cancel := context.WithCancel(context.Background())
			cancel()
			past, cancel := context.WithDeadline(context.Background(), time.Now().Add(-second))
			defer cancel()
			for _, call := range calls(c.Session, l) {
				for _, ctx := range []context.Context{cancelled, past} {
					require.Error(s, s.returns(call, ctx), call.name)
				}
			}
			require.True(s, c.fill(l, value(l, "payload")), "the session works as before")
		}},

		{name: "after close nothing panics or hangs", run: func(s *store) {
			c := s.open()
			l := c.acquire("key")
			require.NoError(s, c.Close())
			for _, call := range calls(c.Session, l) {
				_ = s.returns(call, s.ctx())
			}
			_ = c.Close()
		}},

		{name: "given calls under way, close ends them or lets them end", run: func(s *store) {
			c := s.open()
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Add(1)
				go func() {
					defer wg.Done()
					for j := range 20 {
						l, err := c.Acquire(s.ctx(), fmt.Sprint(i, "/", j), "", []string{"t1"}, minute)
						if err != nil {
							return
						}
						if _, err = c.Fill(s.ctx(), l, value(l, "payload")); err != nil {
							return
						}
					}
				}()
			}
			_ = c.Close()
			wg.Wait()
		}},

		{name: "one client's close does not concern another", run: func(s *store) {
			a, b := s.open(), s.open()
			e := a.put("key", "payload", "t1")
			l := a.acquire("leased")
			require.NoError(s, a.Close())
			require.Equal(s, e.ID, b.entry("key").ID)
			require.Positive(s, b.ask("leased", "", minute).Busy, "a lease is not its client's")
			require.True(s, b.fill(l, value(l, "payload")), "its token is enough")
		}},

		{name: "sessions and calls in parallel keep their data apart", run: func(s *store) {
			clients := []*client{s.open(), s.open()}
			failed := make(chan error, 16)
			var wg sync.WaitGroup
			for worker := range cap(failed) {
				wg.Add(1)
				go func() {
					defer wg.Done()
					c := clients[worker%len(clients)]
					for i := range 15 {
						name := fmt.Sprint("key ", worker, "/", i)
						payload := bytes.Repeat([]byte(name), 50)
						if err := roundTrip(s, c, name, payload); err != nil {
							failed <- fmt.Errorf("%s: %w", name, err)
							return
						}
					}
				}()
			}
			wg.Wait()
			close(failed)
			for err := range failed {
				require.NoError(s, err)
			}
		}},
	}
}

// roundTrip stores an entry, reads it, and takes it out.
func roundTrip(s *store, c *client, name string, payload []byte) error {
	tags := []string{"of " + name, "other of " + name}
	l, err := c.Acquire(s.ctx(), name, "", tags, minute)
	if err != nil {
		return err
	}
	if l.Token == "" || len(l.Generations) != len(tags) || l.Generations[0].Tag != tags[0] {
		return fmt.Errorf("no lease: %+v", l)
	}
	stored, err := c.Fill(s.ctx(), l, value(l, string(payload)))
	if err != nil || !stored {
		return errors.Join(errors.New("not stored"), err)
	}
	e, tokens, err := c.Get(s.ctx(), name, tags)
	if err != nil {
		return err
	}
	if !bytes.Equal(payload, e.Payload) || len(tokens) != 2 || e.Tags[1].Token != tokens[1] {
		return fmt.Errorf("another entry: %+v", e)
	}
	_, err = c.Change(s.ctx(), tier.Change{Partition: home(name), Items: []tier.Item{key(name)}})
	if err != nil {
		return err
	}
	if e, _, err = c.Get(s.ctx(), name, nil); err != nil || e.ID != "" {
		return errors.Join(errors.New("still there"), err)
	}
	return nil
}

type call struct {
	name string
	do   func(ctx context.Context) error
}

// calls are one call of every method that takes a context.
func calls(c tier.Session, l tier.Lease) []call {
	tags := []string{"t1", "t2"}
	return []call{
		{"Agree", func(ctx context.Context) error { _, err := c.Agree(ctx); return err }},
		{"Get", func(ctx context.Context) error { _, _, err := c.Get(ctx, "key", tags); return err }},
		{"Generations", func(ctx context.Context) error { _, err := c.Generations(ctx, tags); return err }},
		{"Acquire", func(ctx context.Context) error { _, err := c.Acquire(ctx, "new", "", tags, minute); return err }},
		{"Extend", func(ctx context.Context) error { _, err := c.Extend(ctx, l, minute); return err }},
		{"Fill", func(ctx context.Context) error { _, err := c.Fill(ctx, l, value(l, "never")); return err }},
		{"Release", func(ctx context.Context) error { return c.Release(ctx, l) }},
		{"Learn", func(ctx context.Context) error {
			_, err := c.Learn(ctx, "learnt", []byte("learnt"), minute)
			return err
		}},
		{"Note", func(ctx context.Context) error { return c.Note(ctx, "note", []byte("note"), minute) }},
		{"Late", func(ctx context.Context) error { _, err := c.Late(ctx, "t1", tier.Position{}); return err }},
		{"Change", func(ctx context.Context) error {
			_, err := c.Change(ctx, tier.Change{Items: []tier.Item{all()}})
			return err
		}},
		{"NewEra", func(ctx context.Context) error { return c.NewEra(ctx, 0, "", true) }},
		{"Scan", func(ctx context.Context) error { _, err := c.Scan(ctx, tier.Scan{Globs: []string{"*"}}); return err }},
		{"Heads", func(ctx context.Context) error {
			heads, err := c.Heads(ctx)
			for _, h := range heads {
				err = errors.Join(err, h.Err)
			}
			return err
		}},
		{"Log", func(ctx context.Context) error { _, err := c.Log(ctx, 0, tier.Position{}); return err }},
		{"Durable", c.Durable},
		{"Enqueue", func(ctx context.Context) error {
			_, err := c.Enqueue(ctx, tier.Enqueue{
				Partition: home("key"), Queue: "q", Limit: 1, Changes: []tier.QueueChange{{Key: "key", Payload: []byte("x")}},
			})
			return err
		}},
		{"Claim", func(ctx context.Context) error {
			_, err := c.Claim(ctx, tier.Claim{Queue: "q", Worker: "w", Max: 1, Lease: minute})
			return err
		}},
		{"Settle", func(ctx context.Context) error {
			_, err := c.Settle(ctx, tier.Settle{Queue: "q", Worker: "w"})
			return err
		}},
		{"States", func(ctx context.Context) error {
			states, err := c.States(ctx, "q")
			for _, s := range states {
				err = errors.Join(err, s.Err)
			}
			return err
		}},
		{"DeadLetters", func(ctx context.Context) error { _, err := c.DeadLetters(ctx, 0, "q", "", 1); return err }},
		{"Replay", func(ctx context.Context) error { _, err := c.Replay(ctx, 0, "q", "1"); return err }},
		{"Discard", func(ctx context.Context) error { _, err := c.Discard(ctx, 0, "q", "1"); return err }},
		{"Hints", func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, second)
			defer cancel()
			return c.Hints(ctx, func() {}, func(tier.Hint) {})
		}},
	}
}

// returns demands that a call returns soon, and returns its error.
func (s *store) returns(c call, ctx context.Context) error { //nolint:revive // the call is the subject
	s.Helper()
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		err = c.do(ctx)
	}()
	s.eventually(func() bool {
		select {
		case <-done:
			return true
		default:
			return false
		}
	}, "the return of "+c.name)
	return err
}
