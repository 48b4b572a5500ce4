package warmup

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/larderhq/larder/core/internal/coherence"
	"github.com/larderhq/larder/core/internal/hotkeys"
	"github.com/larderhq/larder/core/internal/local"
)

// KeepPlan is how a hot set is kept warm.
type KeepPlan struct {
	Plan                // of a round; Skip and Progress are not used
	Top   int           // names
	Every time.Duration // between rounds, about
	// Round is called after each round, if not nil.
	Round func(Round)
}

// Round is the result of one round.
type Round struct {
	Hot int // the names that are kept warm
	Due int // hot names without an entry, or with one that expires soon
	// Filled and Failed are the due names that were loaded, and whose load failed. Another
	// instance has refreshed the others, or is about to.
	Filled, Failed int
	Elapsed        time.Duration
}

// Keeper keeps the entries of the most requested names warm. Its sketch learns the names
// while Keep runs.
type Keeper[T any] struct {
	Engine *coherence.Engine
	Plan   KeepPlan
	// Sketch is where requests are noted. It points to nil while Keep does not run.
	Sketch *atomic.Pointer[hotkeys.Sketch[T]]
	Closed error // the result of Keep when the engine is closed
	Twice  error // the result of Keep while another Keep uses the sketch
	// Note is the key of the hot names, for instances that start.
	Note string
	// Enabled reports whether rounds load.
	Enabled func() bool
	// Key returns the key of a name's entry. ok is false for a name of another instance that
	// is invalid.
	Key func(hotkeys.Item[T]) (key string, ok bool)
	// Leave reports whether an entry expires without a refresh.
	Leave func(*local.Entry) bool
	// Renew loads the items that are still Due, and returns how many it has stored and how
	// many failed.
	Renew func(ctx context.Context, due Due, batch []hotkeys.Item[T]) (filled, failed int)
}

// Due reports whether an entry will expire too soon.
type Due func(*local.Entry) bool

const (
	// halfLife is how long it takes until a request counts for half.
	halfLife = 10 * time.Minute
	// rests is for how many rounds a name is left alone that has no entry after its load, so
	// that a value that cannot be stored, or a load that fails, is not repeated in each round.
	rests = 8
	// noteEvery is how often the hot set is noted for others, noteLives how long that
	// lasts, maxNote its size.
	noteEvery = time.Minute
	noteLives = 24 * time.Hour
	maxNote   = 64 << 10
)

// Keep works in rounds until ctx ends, whose error it returns, or the engine is closed.
func (k Keeper[T]) Keep(ctx context.Context) error {
	sketch := hotkeys.New[T](k.Plan.Top)
	if !k.Sketch.CompareAndSwap(nil, sketch) {
		return k.Twice
	}
	defer k.Sketch.Store(nil)
	run, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(k.Engine.Life(), cancel)()

	sketch.Seed(k.noted(run))
	resting := make(map[string]int)
	began, noted := time.Now(), time.Now()
	for {
		last := time.Now()
		if k.Enabled() {
			k.round(run, sketch, resting, last.Sub(began))
		}
		if last.Sub(noted) >= noteEvery {
			noted = last
			k.note(sketch)
		}
		sketch.Fade(math.Pow(0.5, last.Sub(began).Seconds()/halfLife.Seconds()))
		began = last
		// Instances that were started together do not stay together.
		timer := time.NewTimer(time.Until(last.Add(k.Plan.Every - rand.N(k.Plan.Every/8+1))))
		select {
		case <-timer.C:
		case <-run.Done():
			timer.Stop()
			if ctx.Err() == nil {
				return k.Closed
			}
			return ctx.Err()
		}
	}
}

// round renews what expires before the end of the next round, as far as can be told
// from the time since the one before.
func (k Keeper[T]) round(ctx context.Context, sketch *hotkeys.Sketch[T], resting map[string]int, since time.Duration) {
	e := k.Engine
	ahead := int64(max(k.Plan.Every, since)) + int64(k.Plan.Every)/4
	due := func(en *local.Entry) bool { return en.FreshUntil-e.Now() <= ahead }
	top := sketch.Top()
	for name := range resting {
		if resting[name]--; resting[name] <= 0 {
			delete(resting, name)
		}
	}
	r := Round{Hot: len(top)}
	todo := slices.DeleteFunc(top, func(it hotkeys.Item[T]) bool {
		key, ok := k.Key(it)
		if !ok || resting[it.Name] > 0 || !e.CanStore(key) {
			return true
		}
		en, state := e.Lookup(key)
		return state != local.Gone && (!due(en) || k.Leave(en))
	})
	r.Due = len(todo)
	if len(todo) > 0 {
		done, _ := Run(ctx, slices.Values(todo), k.Plan.Plan, func(ctx context.Context, batch []hotkeys.Item[T]) (filled, failed int) {
			return k.Renew(ctx, due, batch)
		})
		r.Filled, r.Failed, r.Elapsed = done.Filled, done.Failed, done.Elapsed
		for _, it := range todo {
			if key, ok := k.Key(it); ok {
				if _, state := e.Lookup(key); state == local.Gone {
					resting[it.Name] = rests
				}
			}
		}
	}
	if k.Plan.Round != nil && ctx.Err() == nil {
		k.Plan.Round(r)
	}
}

// note tells instances that start later what is hot.
func (k Keeper[T]) note(sketch *hotkeys.Sketch[T]) {
	top := sketch.Top()
	if len(top) == 0 || !k.Engine.Shares() {
		return
	}
	// Nobody needs it in this process.
	k.Engine.Note(k.Note, noted[T](top), 0, noteLives, noteCodec[T]{})
	k.Engine.Drop(k.Note)
}

// noted returns what another instance, or the one before this, has found to be hot.
func (k Keeper[T]) noted(ctx context.Context) []hotkeys.Item[T] {
	turn := k.Engine.Alone(k.Note, nil)
	defer turn.Finish(local.Outcome{Verdict: local.Failed})
	found := turn.Look(ctx, coherence.Query{Codec: noteCodec[T]{}})
	if found.Entry == nil || found.State == local.Gone {
		return nil
	}
	k.Engine.Drop(k.Note)
	list, _ := found.Entry.Value.(noted[T])
	return slices.DeleteFunc(slices.Clone(list), func(it hotkeys.Item[T]) bool {
		_, ok := k.Key(it)
		return !ok
	})
}

type noted[T any] []hotkeys.Item[T]

// noteCodec writes a list as JSON values, one after the other: as many as there is room
// for.
type noteCodec[T any] struct{}

// Encode implements local.Codec.
func (noteCodec[T]) Encode(value any) (payload []byte, ok bool) {
	list, ok := value.(noted[T])
	for _, it := range list {
		data, err := json.Marshal(it)
		if err != nil || len(payload)+len(data) > maxNote {
			break
		}
		payload = append(payload, data...)
	}
	return payload, ok
}

// Decode implements local.Codec.
func (noteCodec[T]) Decode(payload []byte, _ int64) (value any, size int, ok bool) {
	if len(payload) > maxNote {
		return nil, 0, false
	}
	var list noted[T]
	for d := json.NewDecoder(bytes.NewReader(payload)); d.More(); {
		var it hotkeys.Item[T]
		if d.Decode(&it) != nil {
			return nil, 0, false
		}
		list = append(list, it)
	}
	return list, len(payload), true
}
