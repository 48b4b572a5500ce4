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

// KeepPlan is the configuration of Keep.
type KeepPlan struct {
	Plan                // of a round; Skip and Progress are not used
	Top   int           // number of names that are kept warm
	Every time.Duration // the interval between rounds, with jitter
	// Round is called after each round, if not nil.
	Round func(Round)
}

// Round is the result of one round.
type Round struct {
	Hot int // names that are kept warm
	Due int // hot names without an entry, or with one that expires soon
	// Filled are the due names whose values were stored, and Failed those whose load failed.
	// Another instance has refreshed the others, or is doing so.
	Filled, Failed int
	Elapsed        time.Duration
}

// Keeper keeps the entries of the most requested names warm. Its sketch learns the names
// while Keep runs.
type Keeper[T any] struct {
	Engine *coherence.Engine
	Plan   KeepPlan
	// Sketch is the sketch that counts requests. It is nil while Keep does not run.
	Sketch *atomic.Pointer[hotkeys.Sketch[T]]
	Closed error // the result of Keep when the engine is closed
	Twice  error // the result of Keep while another Keep uses the sketch
	// Note is the key under which the hot names are stored for instances that start.
	Note string
	// Enabled reports whether rounds load.
	Enabled func() bool
	// Key returns the key of a name's entry. ok is false for a name of another instance that
	// is invalid.
	Key func(hotkeys.Item[T]) (key string, ok bool)
	// Leave reports whether an entry is not to be refreshed.
	Leave func(*local.Entry) bool
	// Renew loads the items that are still Due. It returns the numbers of stored values and of
	// failed loads.
	Renew func(ctx context.Context, due Due, batch []hotkeys.Item[T]) (filled, failed int)
}

// Due reports whether an entry will expire too soon.
type Due func(*local.Entry) bool

const (
	// halfLife is the time after which a request counts for half.
	halfLife = 10 * time.Minute
	// restRounds is the number of rounds for which a name is left out if it has no entry after
	// its load. A load that fails, or whose value cannot be stored, is therefore not repeated
	// in each round.
	restRounds = 8
	// The hot set is stored for other instances every noteEvery, for noteTTL, in at most
	// maxNote bytes.
	noteEvery = time.Minute
	noteTTL   = 24 * time.Hour
	maxNote   = 64 << 10
)

// Keep runs rounds until ctx ends or the engine is closed. It returns the error of ctx, or
// Closed.
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
		// The jitter separates instances that were started together.
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

// round loads the hot names whose entries expire before the end of the next round, estimated
// by the time since the previous one.
func (k Keeper[T]) round(ctx context.Context, sketch *hotkeys.Sketch[T], resting map[string]int, since time.Duration) {
	e := k.Engine
	e.Awaken(ctx)
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
					resting[it.Name] = restRounds
				}
			}
		}
	}
	if k.Plan.Round != nil && ctx.Err() == nil {
		k.Plan.Round(r)
	}
}

// note stores the hot names for instances that start later.
func (k Keeper[T]) note(sketch *hotkeys.Sketch[T]) {
	top := sketch.Top()
	if len(top) == 0 || !k.Engine.Shares() {
		return
	}
	// This process does not need the note.
	k.Engine.Note(k.Note, noted[T](top), 0, noteTTL, noteCodec[T]{})
	k.Engine.Drop(k.Note)
}

// noted returns the hot names that another instance, or an earlier process, has stored.
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

// noted is the value of the note.
type noted[T any] []hotkeys.Item[T]

// noteCodec encodes a list as consecutive JSON values, as many as fit into maxNote.
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
