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

// Errors about the shared tier.
var (
	errNotOpen = errors.New("larder: the shared tier has not been reached yet")
	errLayout  = errors.New("larder: the layout of the shared tier has changed")
	errMoved   = errors.New("larder: the servers of the shared tier changed during the scan")
	errHurry   = errors.New("larder: more entries than can be looked at in half of the time there is")
)

// ErrPending says that an invalidation has not reached the shared tier, or that
// nobody knows.
var ErrPending = errors.New("larder: invalidation pending: the shared tier has not confirmed it")

// Invalidate makes every answer of this process that begins after it returned
// come from a load that began after it was called, and of every other instance
// within MaxStaleness. If the tier does not confirm it, the error is ErrPending: it
// is tried until it succeeds, and until then this process answers nothing of the
// tier that it concerns.
func (e *Engine) Invalidate(ctx context.Context, items []tier.Item) error {
	if e.shared == nil {
		e.Fence(items)
		return nil
	}
	return e.shared.invalidate(ctx, items, nil)
}

// InvalidateApplied is Invalidate of the tags of changes that have been applied, and returns
// which are pending. Later changes of the same keys are queued yet: those that this process
// keeps hear of it as of another instance's call.
func (e *Engine) InvalidateApplied(ctx context.Context, items []tier.Item) ([]tier.Item, error) {
	if e.shared == nil {
		e.Fence(items)
		return nil, nil
	}
	return e.shared.invalidateEach(ctx, items, &doing{applied: true})
}

// Swept says what a Sweep has done to the tier.
type Swept struct {
	tier.Scanned
	Everything error // why everything was invalidated instead; nil: it was not
}

// Sweep is Invalidate, but that its scans last for as long as they take or ctx
// does, and leave half of each server's time to others. If ctx ends first
// everything is invalidated instead. All other steps wait for the tier for no longer
// than wait. One Sweep runs at a time: while another does, ctx may end before this one
// has done anything, and its error is returned.
func (e *Engine) Sweep(ctx context.Context, items []tier.Item, wait time.Duration) (Swept, error) {
	if err := ctx.Err(); err != nil {
		return Swept{}, fmt.Errorf("larder: sweep: %w", err)
	}
	s := e.shared
	if s == nil {
		e.Fence(items)
		return Swept{}, nil
	}
	select {
	case s.sweeping <- struct{}{}:
		defer func() { <-s.sweeping }()
	case <-ctx.Done():
		return Swept{}, fmt.Errorf("larder: sweep: another one runs: %w", ctx.Err())
	}
	do := &doing{wait: wait}
	err := s.invalidate(ctx, items, do)
	return do.swept, err
}

// Replace invalidates items and stores f under key, which they concern, unless
// somebody else does either at the same time: of two the later one wins. The value
// may not be stored for other reasons; the error is Invalidate's.
func (e *Engine) Replace(ctx context.Context, items []tier.Item, key string, tags []string, f local.Fill) error {
	if e.shared == nil {
		e.FenceAndLoad(items, key, tags).Fill(f)
		return nil
	}
	s := e.shared
	since := s.places() // before it: late tags are compared from here on
	did := &doing{logged: make(map[tier.Item]tier.Position)}
	if err := s.invalidate(ctx, items, did); err != nil {
		return err
	}
	// This process is fenced once more, in one step with the registration: the items
	// of others that came in between are found in the tier's logs below.
	l := e.FenceAndLoad(items, key, tags)
	e.storeFor(ctx, key, tags, f, func(ctx context.Context, t *Turn) bool {
		t.Load = l
		if !t.held.inErasOf(since) || !t.held.stillLast(ctx, &t.asked.budget, did.logged, key, tags) {
			return false
		}
		t.held.since = since
		return true
	})
	return nil
}

// inErasOf reports whether the lease and its generations are of the eras that there were
// before: the end of an era, which stands for whatever was invalidated, is in no log.
func (h *held) inErasOf(before []place) bool {
	n := h.s.local.Partitions()
	if len(before) != n || h.lease.Era == "" || h.lease.Era != before[tier.Partition(tier.Name(h.lease.Key), n)].era {
		return false
	}
	return !slices.ContainsFunc(h.lease.Generations, func(g tier.Generation) bool {
		return g.Era != before[tier.Partition(g.Tag, n)].era
	})
}

// storeFor stores the value that a writer brings, if check, which is given a turn with the
// lease, lets it. The writer waits for that for the budget of a request; what takes longer
// is stored behind him, under the same conditions.
func (e *Engine) storeFor(ctx context.Context, key string, tags []string, f local.Fill, check func(context.Context, *Turn) bool) {
	e.outlast(ctx, e.shared.Budget, func(ctx context.Context) {
		t := e.Alone(key, tags)
		t.behind = true
		defer t.Finish(local.Outcome{Verdict: local.Unshareable})
		t.Fetch(ctx, Query{Codec: f.Codec, Anew: true, Background: true})
		if t.held != nil && check(ctx, t) {
			t.Fill(ctx, f)
		}
	})
}

// stillLast reports whether no other item concerns the key or the tags since the
// positions of this instance's own. One that comes later ends the lease, or a
// generation or era that came with it.
func (h *held) stillLast(ctx context.Context, b *budget, own map[tier.Item]tier.Position, key string, tags []string) bool {
	n := h.s.local.Partitions()
	mine := []tier.Item{{Kind: tier.Key, Value: key}}
	for _, tag := range tags {
		mine = append(mine, tier.Item{Kind: tier.Tag, Value: tag})
	}
	logs := make([]tier.Log, len(mine))
	asks := make([]func(context.Context) error, len(mine))
	for i, it := range mine {
		asks[i] = func(ctx context.Context) (err error) {
			pos, ok := own[it]
			if !ok {
				return errNotLogged // a new era instead
			}
			logs[i], err = h.ses.Log(ctx, tier.Partition(it.Value, n), pos)
			return err
		}
	}
	return b.together(ctx, asks) == nil && !slices.ContainsFunc(logs, func(l tier.Log) bool {
		return !l.Joined || slices.ContainsFunc(l.Items, func(it tier.Logged) bool {
			return !ownItem(own, it) && h.s.local.Concerns(it.Item, key, tags)
		})
	})
}

// ownItem reports whether an item is one of the change that own tells of.
func ownItem(own map[tier.Item]tier.Position, it tier.Logged) bool {
	return own[meant(it.Item)].Token == it.Token
}

// step is what an invalidation is to the tier: changes of single partitions, then
// patterns.
//
// All is done twice in each of several partitions (R15): while it is done in one after the
// other, a load that began under the new era of one may read what lies in another
// that has its old one. It is stored under what the second time ends. What begins to be loaded
// under that begins when all partitions have been through the first.
type step struct {
	changes  map[int]*tier.Change
	patterns []tier.Item
	all      bool // and there are several partitions
}

func (s *shared) plan(items []tier.Item) step {
	n := s.local.Partitions()
	st := step{changes: make(map[int]*tier.Change)}
	add := func(p int, it tier.Item) {
		c := st.changes[p]
		if c == nil {
			c = &tier.Change{Partition: p, Lag: time.Duration(s.lag.Load())}
			st.changes[p] = c
		}
		c.Items = append(c.Items, it)
	}
	for _, it := range items {
		switch it.Kind {
		case tier.Key, tier.Tag:
			add(tier.Partition(tier.Name(it.Value), n), it)
		case tier.Pattern:
			st.patterns = append(st.patterns, it)
		default:
			for p := range n {
				add(p, tier.Item{Kind: tier.All})
			}
			st.all = n > 1
		}
	}
	return st
}

// invalidate executes items in the tier and fences this process after the reply
// (R14). An item that the tier does not confirm is pending.
func (s *shared) invalidate(ctx context.Context, items []tier.Item, do *doing) error {
	_, err := s.invalidateEach(ctx, items, do)
	return err
}

func (s *shared) invalidateEach(ctx context.Context, items []tier.Item, do *doing) (failed []tier.Item, err error) {
	s.local.Count.Invalidations.Add(int64(len(items)))
	if s.pending.blockAll() { // the queue overflowed: everything is pending, this with it
		s.local.Fence(items)
		return items, pendingError(nil)
	}
	failed, err = s.try(ctx, items, do)
	if len(failed) > 0 {
		s.pending.add(s.local, failed)
		s.wake()
	}
	if do.hasApplied() && len(failed) == 0 {
		s.local.FenceLoads(items)
	} else {
		s.local.Fence(items)
	}
	if len(failed) > 0 {
		return failed, pendingError(err)
	}
	if slices.ContainsFunc(items, func(it tier.Item) bool { return it.Kind == tier.All }) {
		s.relearn(ctx)
	}
	return nil, nil
}

// relearn waits, within the budget, until the eras are known again that this
// instance has ended: until then it stores nothing of what names its tags late.
func (s *shared) relearn(ctx context.Context) {
	b := budget{s: s, left: s.Budget}
	_ = b.use(ctx, func(ctx context.Context) error { // if it fails the watchdog learns them later
		return s.untilKnown(ctx, func() bool {
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

// try executes items in the tier and returns those that did not succeed for sure.
func (s *shared) try(ctx context.Context, items []tier.Item, do *doing) (failed []tier.Item, err error) {
	box := s.session.Load()
	if box == nil {
		return items, errNotOpen
	}
	ses := *box
	st := s.plan(items)
	for _, c := range st.changes {
		do.sign(c)
	}
	call, cancel := do.step(ctx)
	err = s.changeAll(call, ses, slices.Collect(maps.Values(st.changes)), func(c *tier.Change, logged []tier.Logged, err error) {
		do.note(logged)
		if err != nil {
			failed = append(failed, c.Items...)
			s.outcome(call, c.Partition, 1<<c.Partition, err)
		}
	})
	cancel()
	if st.all && len(failed) == 0 {
		all := []tier.Item{{Kind: tier.All}}
		if err = s.everyPartition(ctx, ses, all, do); err != nil {
			return append(all, st.patterns...), err
		}
	}
	if len(st.patterns) > 0 {
		if perr := s.sweep(ctx, ses, st.patterns, do); perr != nil {
			err = errors.Join(err, perr)
			failed = append(failed, st.patterns...)
		}
	}
	return failed, err
}

// change executes a change of one partition. In the middle of a migration, when
// the tier refuses scripts over several keys, everything in the partition ends
// instead (R17).
func (s *shared) change(ctx context.Context, ses tier.Session, c *tier.Change) ([]tier.Logged, error) {
	era := s.parts[c.Partition].era()
	logged, err := ses.Change(ctx, *c)
	if errors.Is(err, tier.ErrMigrating) {
		if c.Mode == tier.Abandon {
			return nil, nil // it lapses
		}
		if err := ses.NewEra(ctx, c.Partition, "", true); err != nil {
			return nil, err
		}
		s.follow.Lock()
		s.parts[c.Partition].endEra()
		s.parts[c.Partition].bury(era)
		s.age(c.Partition)
		s.follow.Unlock()
		s.wake()
		if c.Mode == tier.Begin { // the intent itself is not there
			return nil, err
		}
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, it := range logged {
		s.told(c.Partition, it)
		if it.Kind == tier.All {
			s.over(c.Partition, era)
		}
	}
	return logged, nil
}

// sweep executes patterns: an item of each in every partition, a scan to the end, and
// the items again, since an instance could read and keep meanwhile what the scan had
// not reached (R15).
func (s *shared) sweep(ctx context.Context, ses tier.Session, patterns []tier.Item, do *doing) error {
	if err := s.everyPartition(ctx, ses, patterns, do); err != nil {
		return err
	}
	did, err := s.scan(ctx, ses, patterns, do)
	if do != nil {
		do.swept = did
	}
	if err != nil {
		return err
	}
	if did.Everything != nil {
		patterns = []tier.Item{{Kind: tier.All}}
		if err := s.everyPartition(ctx, ses, patterns, do); err != nil {
			return err
		}
	}
	return s.everyPartition(ctx, ses, patterns, do)
}

// scan removes what matches. If it cannot be to the end it says why everything has
// to go.
func (s *shared) scan(ctx context.Context, ses tier.Session, patterns []tier.Item, do *doing) (did Swept, err error) {
	scan := tier.Scan{Globs: make([]string, len(patterns)), Rest: do.atSize()}
	for i, it := range patterns {
		scan.Globs[i] = it.Value
	}
	hurry, cancel := ctx, context.CancelFunc(func() {})
	if deadline, ok := ctx.Deadline(); ok && !do.atSize() {
		hurry, cancel = context.WithTimeout(ctx, time.Until(deadline)/2)
	}
	defer cancel()
	did.Scanned, err = ses.Scan(hurry, scan)
	switch {
	case err == nil && !did.Sure:
		did.Everything = errMoved
	case err == nil:
	case tier.IsPermanent(err): // what cannot be found has to go with the rest
		did.Everything = err
	case do.atSize() && ctx.Err() != nil:
		did.Everything = ctx.Err()
	case ctx.Err() == nil && hurry.Err() != nil:
		did.Everything = errHurry
	default:
		return did, err
	}
	return did, nil
}

// everyPartition executes items in every partition.
func (s *shared) everyPartition(ctx context.Context, ses tier.Session, items []tier.Item, do *doing) error {
	ctx, cancel := do.step(ctx)
	defer cancel()
	changes := make([]*tier.Change, s.local.Partitions())
	for p := range changes {
		changes[p] = &tier.Change{Partition: p, Items: items, Lag: time.Duration(s.lag.Load())}
	}
	return s.changeAll(ctx, ses, changes, func(*tier.Change, []tier.Logged, error) {})
}

// changeAll executes changes at the same time and tells of each, one after the
// other.
func (s *shared) changeAll(
	ctx context.Context, ses tier.Session, changes []*tier.Change, tell func(*tier.Change, []tier.Logged, error),
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
			tell(c, logged, cerr)
			err = errors.Join(err, cerr)
		}()
	}
	wg.Wait()
	return err
}

// Everywhere waits until what has been invalidated before holds on every instance
// (R23).
func (e *Engine) Everywhere(ctx context.Context) error {
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
	d := max(s.seen(l.MaxStaleness), s.Layout.MaxStaleness)
	d += d/500 + time.Millisecond // clocks run at rates that differ a little
	if !sleep(ctx, d, nil) {
		return ctx.Err()
	}
	return nil
}

// foreign executes an invalidation that a program without this library has
// published: best effort. Whoever takes the lease does it for all.
func (s *shared) foreign(ctx context.Context, ses tier.Session, h tier.Hint) {
	it := h.Item.Item
	s.local.Fence([]tier.Item{it})
	if h.Partition != 0 && it.Kind != tier.Key && it.Kind != tier.Tag {
		return // it comes once for each partition
	}
	if s.foreigners.Add(1) > maxForeigners { // it was best effort, and is fenced here
		s.foreigners.Add(-1)
		return
	}
	ok := s.local.Spawn(ctx, s.Budget*20, func(ctx context.Context) {
		defer s.foreigners.Add(-1)
		name := fmt.Sprintf("larder:foreign:%d:%s", it.Kind, it.Value)
		l, err := ses.Acquire(ctx, name, "", nil, leaseTime)
		if err != nil || l.Token == "" {
			return
		}
		_ = s.invalidate(ctx, []tier.Item{it}, nil) // pending at worst
		_ = ses.Release(ctx, l)
	})
	if !ok {
		s.foreigners.Add(-1)
	}
}

// maxForeigners is how many invalidations of other programs are executed at a time.
const maxForeigners = 64

// doing is what an invalidation is part of: a writer's intent, a replacement, a sweep
// at size. nil: none of these.
type doing struct {
	id     string // of the intent
	mode   tier.IntentMode
	lasts  time.Duration
	remain time.Duration

	logged map[tier.Item]tier.Position // where each item is in its log; nil: nobody wants to know

	wait  time.Duration // of a sweep at size: for each step but the scan; 0: it is none
	swept Swept

	applied bool // it follows the application of queued changes
}

func (do *doing) hasApplied() bool { return do != nil && do.applied }

// atSize reports whether scans may last for as long as the context does.
func (do *doing) atSize() bool { return do != nil && do.wait > 0 }

// step bounds a step that is not the scan, and has to be made although the sweep's
// context may have ended.
func (do *doing) step(ctx context.Context) (context.Context, context.CancelFunc) {
	if !do.atSize() {
		return ctx, func() {}
	}
	return context.WithTimeout(context.WithoutCancel(ctx), do.wait)
}

// sign makes a change part of the intent's life.
func (do *doing) sign(c *tier.Change) {
	if do != nil {
		c.Intent, c.Mode, c.Lasts, c.Remain = do.id, do.mode, do.lasts, do.remain
	}
}

func (do *doing) note(logged []tier.Logged) {
	if do == nil || do.logged == nil {
		return
	}
	for _, it := range logged {
		do.logged[meant(it.Item)] = it.Position
	}
}
