package simulate_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/test/memtier"
)

// The tier answers no reader in time. The instance that has queued a change still answers
// it, until it is superseded. The interleavings are those of coherence/own.go.

// idle lets changes of the actor be applied by others.
var idle = queueOpts{Workers: -1}

// unanswered reads id 1 while the tier answers no reader of the actor.
func (q *queue) unanswered() int64 {
	q.s.Helper()
	q.line.busy.Store(true)
	defer q.line.busy.Store(false)
	v, err := q.ids.Get(q.s.Context(), 1, q.load)
	require.NoError(q.s, err)
	return v.version
}

func (q *queue) load(context.Context, int) (value, error) {
	return value{version: q.s.data.Load()}, nil
}

func TestScenarioAnInstanceReadsItsOwnChangeWhenTheTierIsSlow(t *testing.T) {
	play(t, func(s *scene) {
		a, b := s.actor("a"), s.actor("b")
		p, q := a.queue(idle, nil), b.queue(idle, nil)
		time.Sleep(time.Second)
		p.reads(1)
		for v := int64(2); v < 5; v++ {
			p.put(1, v)
			require.Equal(s, v, p.unanswered())
			time.Sleep(10 * time.Second)
			require.Equal(s, v, p.unanswered(), "later")
		}
		require.EqualValues(s, 1, q.unanswered(), "another instance has not asked yet")
		a.line.busy.Store(true)
		many, err := p.ids.GetMany(s.Context(), []int{1, 2}, func(_ context.Context, ids []int) (map[int]value, error) {
			require.Equal(s, []int{2}, ids)
			return nil, nil
		})
		require.NoError(s, err)
		require.EqualValues(s, 4, many[1].version)
		found, err := p.ids.Lookup(s.Context(), 1, p.load)
		require.NoError(s, err)
		require.EqualValues(s, 4, found.Value.version)
		require.Equal(s, core.FromQueue, found.Source)
		require.EqualValues(s, 4, p.pageOfQueued())
		a.line.busy.Store(false)
		require.NoError(s, p.Delete(s.Context(), 1))
		a.line.busy.Store(true)
		_, err = p.ids.Get(s.Context(), 1, p.load)
		require.ErrorIs(s, err, core.ErrNotFound)
	})
}

// An own change does not hide what supersedes it, whatever the source.
func TestScenarioASupersededOwnChangeIsNotRead(t *testing.T) {
	poison := func(_ context.Context, list changes) error {
		failed := make(core.BatchError[int])
		for _, c := range list {
			failed[c.ID] = core.ErrPoison
		}
		return failed
	}
	for name, how := range map[string]func(s *scene, p, q *queue){
		"another instance changed it": func(_ *scene, _, q *queue) { q.put(1, 3) },
		"another instance changed it, and no message comes": func(s *scene, _, q *queue) {
			s.server.SetFaults(memtier.Faults{HintLost: 1})
			q.put(1, 3)
			time.Sleep(time.Second)
		},
		"another instance changed it, and nothing can be verified": func(s *scene, p, q *queue) {
			s.server.SetFaults(memtier.Faults{HintLost: 1})
			p.line.noHeads.Store(true)
			q.put(1, 3)
			time.Sleep(time.Second)
		},
		"it was applied and somebody else wrote": func(s *scene, p, q *queue) {
			s.actor("worker").queue(queueOpts{}, nil)
			require.NoError(s, p.Flush(s.Context()))
			require.EqualValues(s, 2, s.data.Load())
			s.data.Store(3)
			require.NoError(s, q.cache.Invalidate(s.Context(), core.Tag(laterKey(1))))
		},
		"it was applied and somebody else wrote, by key": func(s *scene, p, q *queue) {
			s.actor("worker").queue(queueOpts{}, nil)
			require.NoError(s, p.Flush(s.Context()))
			s.data.Store(3)
			require.NoError(s, q.cache.Invalidate(s.Context(), core.Key(laterKey(1))))
		},
		"it was applied, and nobody told of what came then": func(s *scene, p, _ *queue) {
			s.actor("worker").queue(queueOpts{}, nil)
			require.NoError(s, p.Flush(s.Context()))
			s.data.Store(3)
			time.Sleep(time.Hour) // the TTL
		},
		"this instance invalidated its tag": func(s *scene, p, _ *queue) {
			require.NoError(s, p.cache.Invalidate(s.Context(), core.Tag(laterKey(1))))
		},
		"another of its tags was invalidated": func(s *scene, _, q *queue) {
			require.NoError(s, q.cache.Invalidate(s.Context(), core.Tag("group")))
		},
		"a pattern was invalidated": func(s *scene, _, q *queue) {
			require.NoError(s, q.cache.Invalidate(s.Context(), core.Pattern("later:*")))
		},
		"everything was invalidated": func(s *scene, _, q *queue) {
			require.NoError(s, q.cache.Invalidate(s.Context(), core.All()))
		},
		"it is a dead letter": func(s *scene, p, _ *queue) {
			s.actor("worker").queue(queueOpts{}, poison)
			require.NoError(s, p.Flush(s.Context()))
		},
		"it was lost": func(s *scene, _, _ *queue) {
			s.server.Flush()
			time.Sleep(2 * time.Second)
		},
		"nobody knows what became of the next": func(s *scene, p, _ *queue) {
			s.server.SetFaults(memtier.Faults{ReplyLost: 1})
			require.ErrorIs(s, p.Put(s.Context(), 1, value{version: 3}), core.ErrNotQueued)
			s.server.SetFaults(memtier.Faults{})
		},
		"the id was written through": func(s *scene, _, q *queue) {
			require.NoError(s, q.ids.Put(s.Context(), 1, value{version: 3}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, func(s *scene) {
				p, q := s.actor("p").queue(idle, nil), s.actor("q").queue(idle, nil)
				time.Sleep(time.Second)
				require.NoError(s, p.Put(s.Context(), 1, value{version: 2}, "group"))
				require.EqualValues(s, 2, p.unanswered())
				how(s, p, q)
				time.Sleep(100 * ms)
				if v := p.unanswered(); v == 2 {
					s.Fatalf("STALE: version 2 was answered, which holds no longer")
				}
			})
		})
	}
}

// A worker that applies an earlier change invalidates the tag when the later one is queued.
func TestScenarioAnOwnChangeStaysWhenAnEarlierOneIsApplied(t *testing.T) {
	for name, works := range map[string]bool{"by this instance": true, "by another one": false} {
		t.Run(name, func(t *testing.T) {
			play(t, func(s *scene) {
				goOn := make(chan struct{})
				apply := func(ctx context.Context, list changes) error {
					select {
					case <-goOn:
						s.apply(list)
						return nil
					case <-ctx.Done():
						return ctx.Err()
					}
				}
				x := s.actor("x").queue(queueOpts{}, apply)
				p := x
				if !works {
					p = s.actor("p").queue(idle, nil)
				}
				time.Sleep(time.Second)
				p.put(1, 2)
				time.Sleep(2 * time.Second) // it is being applied
				p.put(1, 3)
				goOn <- struct{}{}
				time.Sleep(time.Second)
				require.EqualValues(s, 2, s.data.Load())
				require.EqualValues(s, 3, p.unanswered())
				goOn <- struct{}{}
				time.Sleep(time.Second)
				require.EqualValues(s, 3, s.data.Load())
				require.EqualValues(s, 3, p.unanswered())
			})
		})
	}
}

func TestScenarioAnOwnChangeStaysWhenTheNextIsRefused(t *testing.T) {
	play(t, func(s *scene) {
		p := s.actor("p", onePartition).queue(queueOpts{Workers: -1, MaxQueued: 1}, nil)
		time.Sleep(time.Second)
		p.put(1, 2)
		ctx, cancel := context.WithTimeout(s.Context(), 100*ms)
		defer cancel()
		err := p.PutMany(ctx, map[int]value{2: {version: 1}, 3: {version: 1}})
		var each core.BatchError[int]
		require.True(s, errors.As(err, &each) && len(each) == 2, "%v", err)
		require.EqualValues(s, 2, p.unanswered())
	})
}

// The message of another instance's change arrives before the reply to an earlier one.
func TestScenarioAnOwnChangeIsNotKeptWhenALaterOneWasHeardFirst(t *testing.T) {
	play(t, func(s *scene) {
		p, q := s.actor("p").queue(idle, nil), s.actor("q").queue(idle, nil)
		time.Sleep(time.Second)
		s.server.SetFaults(memtier.Faults{Reply: memtier.Delay{Min: 500 * ms, Max: 500 * ms}})
		done := make(chan error)
		go func() { done <- p.Put(context.Background(), 1, value{version: 2}) }()
		time.Sleep(10 * ms)
		s.server.SetFaults(memtier.Faults{})
		q.put(1, 3)
		require.NoError(s, <-done)
		if v := p.unanswered(); v == 2 {
			s.Fatalf("STALE: version 2 was answered, and 3 had been heard of")
		}
	})
}

// A late message may belong to a change before the own one.
func TestScenarioAnOwnChangeStaysWhenAnEarlierOneIsHeardLate(t *testing.T) {
	play(t, func(s *scene) {
		p, q := s.actor("p").queue(idle, nil), s.actor("q").queue(idle, nil)
		time.Sleep(time.Second)
		s.server.SetFaults(memtier.Faults{HintDelay: memtier.Delay{Min: 50 * ms, Max: 50 * ms}})
		q.put(1, 2)
		p.put(1, 3)
		time.Sleep(10 * time.Second)
		require.EqualValues(s, 3, p.unanswered())
	})
}

// An instance does not know the intents that were open when it began to follow a partition. Their
// writers may change anything until their last deadline, which drops the instance's own change.
func TestScenarioAnOwnChangeEndsAtTheDeadlineOfUnknownIntents(t *testing.T) {
	play(t, func(s *scene) {
		a := s.actor("a", onePartition)
		time.Sleep(time.Second)
		_, err := a.cache.Begin(s.Context(), core.Key("another"))
		require.NoError(s, err)

		b := s.actor("b", onePartition)
		q := b.queue(idle, nil)
		time.Sleep(time.Second)
		q.put(1, 2)
		require.EqualValues(s, 2, q.unanswered())
		time.Sleep(40 * time.Second) // WriteTimeout is 30 s
		require.EqualValues(s, 1, q.unanswered(), "the database's")
		q.reads(2)

		q.put(1, 3)
		time.Sleep(40 * time.Second)
		require.EqualValues(s, 3, q.unanswered(), "no intent is unknown any more")
	})
}
