package coherence

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/tier"
)

var (
	errNotOpen = errors.New("larder: the shared tier has not been reached yet")
	errLayout  = errors.New("larder: the layout of the shared tier has changed")
)

// ErrPending is the error of an invalidation that the shared tier has not confirmed.
var ErrPending = errors.New("larder: invalidation pending: the shared tier has not confirmed it")

// Invalidate invalidates items. Every answer of this process that begins after it has returned
// comes from a load that began after the call. For every other instance the same holds within
// MaxStaleness. If the tier does not confirm the invalidation, the error is ErrPending: it is
// retried until it succeeds, and until then this process answers nothing from the tier that
// it concerns.
func (e *Engine) Invalidate(ctx context.Context, items []tier.Item) error {
	if e.shared == nil {
		e.Fence(items)
		return nil
	}
	return e.shared.invalidate(ctx, items, nil)
}

// InvalidateApplied is Invalidate for the tags of changes that have been applied, and returns
// the items that are pending. Later changes of the same keys are still queued: the own changes
// of this process treat the items as those of another instance.
func (e *Engine) InvalidateApplied(ctx context.Context, items []tier.Item) ([]tier.Item, error) {
	if e.shared == nil {
		e.Fence(items)
		return nil, nil
	}
	return e.shared.invalidateEach(ctx, items, &operation{applied: true})
}

// Replace invalidates items and stores f under key, which they concern, unless another call
// invalidates or replaces it concurrently. Of two such calls the later one wins. Other reasons
// may also prevent the store. The error is that of Invalidate.
func (e *Engine) Replace(ctx context.Context, items []tier.Item, key string, tags []string, f local.Fill) error {
	if e.shared == nil {
		e.FenceAndLoad(items, key, tags).Fill(f)
		return nil
	}
	s := e.shared
	before := s.places() // late tags are compared from here on
	op := &operation{logged: make(map[tier.Item]tier.Position)}
	if err := s.invalidate(ctx, items, op); err != nil {
		return err
	}
	// This process is fenced once more, in one step with the registration of the load. The
	// logs that are read below have the items of other instances in between.
	l := e.FenceAndLoad(items, key, tags)
	e.storeFor(ctx, key, tags, f, func(ctx context.Context, t *Turn) bool {
		t.Load = l
		if !t.held.inErasBefore(before) || !t.held.isLatest(ctx, &t.fetch.budget, op.logged, key, tags) {
			return false
		}
		t.held.before, t.held.registered = before, false
		return true
	})
	return nil
}

// storeFor stores the value of a writer if check permits it. check gets a turn with the lease.
// The writer waits within the budget of a request. A store that takes longer continues behind
// the writer's call, under the same conditions.
func (e *Engine) storeFor(ctx context.Context, key string, tags []string, f local.Fill, check func(context.Context, *Turn) bool) {
	e.outlast(ctx, e.shared.Budget, func(ctx context.Context) {
		t := e.Alone(key, tags)
		t.behind = true
		defer t.Finish(local.Outcome{Verdict: local.Unshareable})
		t.Fetch(ctx, Query{Codec: f.Codec, LeaseOnly: true, Background: true})
		if t.held != nil && check(ctx, t) {
			t.Fill(ctx, f)
		}
	})
}

// isLatest reports whether no other item since this instance's own concerns the key or the
// tags. A later item ends the lease, or a generation or era that came with it.
func (h *heldLease) isLatest(ctx context.Context, b *budget, own map[tier.Item]tier.Position, key string, tags []string) bool {
	n := h.s.local.Partitions()
	items := []tier.Item{{Kind: tier.Key, Value: key}}
	for _, tag := range tags {
		items = append(items, tier.Item{Kind: tier.Tag, Value: tag})
	}
	logs := make([]tier.Log, len(items))
	questions := make([]func(context.Context) error, len(items))
	for i, it := range items {
		questions[i] = func(ctx context.Context) (err error) {
			pos, ok := own[it]
			if !ok {
				return errNotLogged // a new era instead
			}
			logs[i], err = h.ses.Log(ctx, tier.Partition(it.Value, n), pos)
			return err
		}
	}
	return b.together(ctx, questions) == nil && !slices.ContainsFunc(logs, func(l tier.Log) bool {
		return !l.Joined || slices.ContainsFunc(l.Items, func(it tier.Logged) bool {
			return !isOwn(own, it) && h.s.local.Concerns(it.Item, key, tags)
		})
	})
}

// isOwn reports whether an item is one of the given positions.
func isOwn(own map[tier.Item]tier.Position, it tier.Logged) bool {
	return own[asInvalidation(it.Item)].Token == it.Token
}

// operation is the call of which an invalidation is a part: an intent, a replacement, a Sweep,
// or the application of queued changes. It is nil for any other invalidation.
type operation struct {
	// An intent:
	id     string
	mode   tier.IntentMode
	lasts  time.Duration
	remain time.Duration

	logged map[tier.Item]tier.Position // receives the position of each item; nil: they are not needed

	// A Sweep:
	stepWait time.Duration // the time for each step except the scan; 0: the operation is no Sweep
	swept    Swept

	applied bool // the items are the tags of applied changes
}

func (op *operation) isSweep() bool { return op != nil && op.stepWait > 0 }

func (op *operation) isApplied() bool { return op != nil && op.applied }

// step bounds a step of a Sweep that is not the scan. The step has to be made even if the
// context of the Sweep has ended.
func (op *operation) step(ctx context.Context) (context.Context, context.CancelFunc) {
	if !op.isSweep() {
		return ctx, func() {}
	}
	return context.WithTimeout(context.WithoutCancel(ctx), op.stepWait)
}

// setIntent makes a change part of the intent.
func (op *operation) setIntent(c *tier.Change) {
	if op != nil {
		c.Intent, c.Mode, c.Lasts, c.Remain = op.id, op.mode, op.lasts, op.remain
	}
}

// recordPositions records the positions of the items of a change.
func (op *operation) recordPositions(logged []tier.Logged) {
	if op == nil || op.logged == nil {
		return
	}
	for _, it := range logged {
		op.logged[asInvalidation(it.Item)] = it.Position
	}
}

// changePlan is an invalidation as steps of the tier: changes of single partitions, then
// patterns.
//
// Of several partitions, All is done twice in each (R15). While it is done in one after the other, a load
// under the new era of one partition may read an entry of another partition that has its old
// era. Its value is stored under an era that the second step ends. A load under the second
// era begins when all partitions have ended their first.
type changePlan struct {
	changes  map[int]*tier.Change
	patterns []tier.Item
	allTwice bool
}

// plan groups items by their partitions.
func (s *shared) plan(items []tier.Item) changePlan {
	n := s.local.Partitions()
	plan := changePlan{changes: make(map[int]*tier.Change)}
	add := func(p int, it tier.Item) {
		c := plan.changes[p]
		if c == nil {
			c = &tier.Change{Partition: p, Lag: s.replicaLag()}
			plan.changes[p] = c
		}
		c.Items = append(c.Items, it)
	}
	for _, it := range items {
		switch it.Kind {
		case tier.Key, tier.Tag:
			add(tier.Partition(tier.Name(it.Value), n), it)
		case tier.Pattern:
			plan.patterns = append(plan.patterns, it)
		default:
			for p := range n {
				add(p, tier.Item{Kind: tier.All})
			}
			plan.allTwice = n > 1
		}
	}
	return plan
}

// invalidate executes items in the tier, and fences this process after the reply (R14). Items
// that the tier does not confirm are pending.
func (s *shared) invalidate(ctx context.Context, items []tier.Item, op *operation) error {
	_, err := s.invalidateEach(ctx, items, op)
	return err
}

// invalidateEach is invalidate, and returns the items that are pending.
func (s *shared) invalidateEach(ctx context.Context, items []tier.Item, op *operation) (failed []tier.Item, err error) {
	s.local.Count.Invalidations.Add(int64(len(items)))
	if s.pending.isAll() {
		s.local.Fence(items)
		return items, pendingError(nil)
	}
	failed, err = s.execute(ctx, items, op)
	if len(failed) > 0 {
		s.pending.add(s.local, failed)
		s.requestRound()
	}
	if op.isApplied() && len(failed) == 0 {
		s.local.FenceLoads(items)
	} else {
		s.local.Fence(items)
	}
	if len(failed) > 0 {
		return failed, pendingError(err)
	}
	if slices.ContainsFunc(items, func(it tier.Item) bool { return it.Kind == tier.All }) {
		s.awaitEras(ctx)
	}
	return nil, nil
}

// awaitEras waits within the budget until the eras are known again after this instance has
// ended them. Until then no value with a late tag is stored.
func (s *shared) awaitEras(ctx context.Context) {
	b := budget{s: s, left: s.Budget}
	_ = b.use(ctx, func(ctx context.Context) error { // if it fails, the watchdog learns them later
		return s.awaitRounds(ctx, func() bool {
			return !slices.ContainsFunc(s.places(), func(p place) bool { return p.era == "" })
		})
	})
}

func pendingError(err error) error {
	if err == nil {
		return ErrPending
	}
	return fmt.Errorf("%w: %w", ErrPending, err)
}

// execute executes items in the tier, and returns those that the tier has not confirmed.
func (s *shared) execute(ctx context.Context, items []tier.Item, op *operation) (failed []tier.Item, err error) {
	box := s.session.Load()
	if box == nil {
		return items, errNotOpen
	}
	ses := *box
	plan := s.plan(items)
	for _, c := range plan.changes {
		op.setIntent(c)
	}
	call, cancel := op.step(ctx)
	err = s.changeAll(call, ses, slices.Collect(maps.Values(plan.changes)), func(c *tier.Change, logged []tier.Logged, err error) {
		op.recordPositions(logged)
		if err != nil {
			failed = append(failed, c.Items...)
			s.recordCall(call, c.Partition, 1<<c.Partition, err)
		}
	})
	cancel()
	if plan.allTwice && len(failed) == 0 {
		all := []tier.Item{{Kind: tier.All}}
		if err = s.everyPartition(ctx, ses, all, op); err != nil {
			return append(all, plan.patterns...), err
		}
	}
	if len(plan.patterns) > 0 {
		if perr := s.sweep(ctx, ses, plan.patterns, op); perr != nil {
			err = errors.Join(err, perr)
			failed = append(failed, plan.patterns...)
		}
	}
	return failed, err
}

// everyPartition executes items in every partition.
func (s *shared) everyPartition(ctx context.Context, ses tier.Session, items []tier.Item, op *operation) error {
	ctx, cancel := op.step(ctx)
	defer cancel()
	changes := make([]*tier.Change, s.local.Partitions())
	for p := range changes {
		changes[p] = &tier.Change{Partition: p, Items: items, Lag: s.replicaLag()}
	}
	return s.changeAll(ctx, ses, changes, func(*tier.Change, []tier.Logged, error) {})
}

// changeAll executes changes concurrently. It calls report for one change after the other.
func (s *shared) changeAll(
	ctx context.Context, ses tier.Session, changes []*tier.Change, report func(*tier.Change, []tier.Logged, error),
) (err error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	together := tier.NewBatch(len(changes))
	ctx = tier.WithBatch(ctx, together)
	for _, c := range changes {
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer together.Leave()
			logged, cerr := s.change(ctx, ses, c)
			mu.Lock()
			defer mu.Unlock()
			report(c, logged, cerr)
			err = errors.Join(err, cerr)
		}()
	}
	wg.Wait()
	return err
}

// change executes a change of one partition. During a migration the tier refuses scripts over
// several keys, and the era of the partition ends instead (R17).
func (s *shared) change(ctx context.Context, ses tier.Session, c *tier.Change) ([]tier.Logged, error) {
	era := s.parts[c.Partition].era()
	logged, err := ses.Change(ctx, *c)
	if errors.Is(err, tier.ErrMigrating) {
		return nil, s.changeMigrating(ctx, ses, c, era, err)
	}
	if err != nil {
		return nil, err
	}
	for _, it := range logged {
		s.applyOwn(c.Partition, it)
		if it.Kind == tier.All {
			s.retireEra(c.Partition, era)
		}
	}
	return logged, nil
}

// changeMigrating ends the era of a partition that is being migrated. A Begin fails even so,
// with the given error, since its intent was not entered. An Abandon does nothing: its intent
// lapses.
func (s *shared) changeMigrating(ctx context.Context, ses tier.Session, c *tier.Change, era string, refused error) error {
	if c.Mode == tier.Abandon {
		return nil
	}
	if err := ses.NewEra(ctx, c.Partition, "", true); err != nil {
		return err
	}
	s.follow.Lock()
	s.parts[c.Partition].endEra()
	s.parts[c.Partition].retire(era)
	s.age(c.Partition)
	s.follow.Unlock()
	s.requestRound()
	if c.Mode == tier.Begin {
		return refused
	}
	return nil
}

// AwaitEverywhere waits until all earlier invalidations hold on every instance (R23).
func (e *Engine) AwaitEverywhere(ctx context.Context) error {
	s := e.shared
	if s == nil {
		return nil
	}
	box := s.session.Load()
	if box == nil {
		return errNotOpen
	}
	ask, cancel := context.WithTimeout(ctx, openTimeout)
	l, err := (*box).Agree(ask)
	cancel()
	if err != nil {
		return fmt.Errorf("larder: the largest MaxStaleness of all instances: %w", err)
	}
	d := max(s.largestStaleness(l.MaxStaleness), s.Layout.MaxStaleness)
	d += d/500 + time.Millisecond // the rates of two clocks differ a little
	if !sleep(ctx, d, nil) {
		return ctx.Err()
	}
	return nil
}
