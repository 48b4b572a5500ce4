package core

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/larderhq/larder/core/internal/bridge"
	"github.com/larderhq/larder/core/internal/coherence"
	"github.com/larderhq/larder/core/internal/loadscope"
	"github.com/larderhq/larder/core/internal/tier"
	"github.com/larderhq/larder/core/internal/warmup"
)

// Cache is a cache. Make one with [New], share it by all handlers and maps of the app,
// and [Cache.Close] it. All methods are safe for concurrent use.
type Cache struct {
	opts    Options // without the classes
	engine  *coherence.Engine
	off     atomic.Bool
	classes atomic.Pointer[classSet]

	// The limits of all classes, which the engine and the shared tier rely on.
	longestLoad, replicaLag time.Duration

	mu   sync.Mutex         // guards the fields below, and is held while classes change
	maps map[string]mapKind // by prefix
	// queues has the Close of each map's queue, by prefix.
	queues map[string]func(context.Context) error

	unencodable sync.Map // prefixes of maps for which a value that does not encode was logged
}

// New returns a cache. A field of o that is wrong is a *[ConfigError].
//
// With a Remote, New waits up to a second for it. If it cannot be reached, New succeeds
// and the cache connects later. With Options.RequireRemote, New waits up to 5 s, and then
// fails. If the Remote can be reached and cannot be used, the error is [ErrUnusable].
func New(o Options) (*Cache, error) {
	o, err := o.resolve()
	if err != nil {
		return nil, err
	}
	c := &Cache{maps: make(map[string]mapKind), queues: make(map[string]func(context.Context) error)}
	for _, class := range o.Classes {
		c.longestLoad = max(c.longestLoad, class.LoadTimeout)
		c.replicaLag = max(c.replicaLag, class.ReplicaLag)
	}
	c.classes.Store(&classSet{by: o.Classes})
	set := coherence.Settings{MaxBytes: uint64(o.MaxBytes), Refreshes: o.MaxRefreshes, LongestLoad: c.longestLoad}
	if o.Remote != nil {
		set.Shared = &coherence.Sharing{
			Tier: o.Remote, Required: o.RequireRemote, Budget: o.RemoteBudget, Log: o.Logger, Wall: o.wall,
			Layout: tier.Layout{
				Namespace: o.Namespace, Version: o.Version, Partitions: tier.DefaultPartitions,
				MaxStaleness: o.MaxStaleness, ReplicaLag: c.replicaLag,
			},
		}
	}
	o.Classes = nil
	c.opts = o
	if c.engine, err = coherence.New(set); err != nil {
		return nil, err
	}
	return c, nil
}

// Close ends the cache's goroutines and frees its memory. It closes the write-behind
// queues first ([WriteBehind.Close]), for up to Options.CloseTimeout. Then it cancels the
// loads in the background, and waits for up to Options.CloseTimeout again until all loads
// have ended: a load that a caller waits for is not cancelled.
//
// The error says which loads or queued changes are left; the cache is closed in any case.
// Handlers and maps stay usable: they run as if there were no cache. A second Close does
// nothing.
func (c *Cache) Close() error {
	queues := c.closeQueues()
	ctx, cancel := context.WithTimeout(context.Background(), c.opts.CloseTimeout)
	defer cancel()
	if err := c.engine.Close(ctx); err != nil {
		return errors.Join(queues, fmt.Errorf("larder: close: loads still running after %v: %w", c.opts.CloseTimeout, err))
	}
	return queues
}

func (c *Cache) closeQueues() (err error) {
	c.mu.Lock()
	queues := c.queues
	c.queues = nil
	c.mu.Unlock()
	if len(queues) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.opts.CloseTimeout)
	defer cancel()
	for _, shut := range queues {
		err = errors.Join(err, shut(ctx))
	}
	return err
}

// own makes Close close the queue of a map.
func (c *Cache) own(prefix string, shut func(context.Context) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.queues == nil:
		return ErrClosed
	case c.queues[prefix] != nil:
		return &ConfigError{"map", prefix, "one that has no write-behind queue in this cache yet"}
	}
	c.queues[prefix] = shut
	return nil
}

func (c *Cache) disown(prefix string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.queues, prefix)
}

// Enabled reports whether the cache is open and switched on. See [Cache.SetEnabled].
func (c *Cache) Enabled() bool { return !c.off.Load() && !c.engine.Closed() }

// SetEnabled switches the cache off and on at run time. While it is off, every request
// goes to its handler and every Get to its loader, and nothing is stored. Invalidations
// still happen, so that the entries are valid when the cache is switched on. A new cache
// is on.
func (c *Cache) SetEnabled(on bool) { c.off.Store(!on) }

// Class returns the class of that name as of the latest [Cache.SetClasses], with its
// defaults filled in. A name that no class has is a *[ConfigError], with the zero Class.
func (c *Cache) Class(name string) (Class, error) {
	classes := c.classes.Load().by
	class, ok := classes[name]
	if !ok {
		names := slices.Sorted(maps.Keys(classes))
		return Class{}, &ConfigError{"class", strings.Clone(name), "one of " + fmt.Sprintf("%q", names)}
	}
	return class, nil
}

// Options returns the options with their defaults filled in, and the classes as of the
// latest [Cache.SetClasses]. The map of classes is the caller's own.
func (c *Cache) Options() Options {
	o := c.opts
	o.Classes = maps.Clone(c.classes.Load().by)
	return o
}

// scope returns a scope for a load or a write of this cache.
func (c *Cache) scope() *loadscope.Scope {
	return &loadscope.Scope{Owner: loadscope.Owner{
		MaxTags: MaxTagsPerEntry, Of: c.engine,
		Invalidate: func(ctx context.Context, targets any) error {
			return c.Invalidate(ctx, targets.([]Target)...)
		},
		WaitEverywhere: c.WaitEverywhere,
	}}
}

// mapKind is the class and the type of the map that has a prefix.
type mapKind struct{ class, text string }

// register claims a prefix for a kind of map, whose class needs a TTL from then on.
func (c *Cache) register(prefix string, kind mapKind) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.classes.Load().by[kind.class].TTL == 0 {
		return &ConfigError{classField(kind.class, "TTL"), "0s", "1ms or more: values of a map do not state their lifetime"}
	}
	for p, other := range c.maps {
		if p == prefix && other == kind {
			return nil
		}
		if p == prefix {
			return &ConfigError{"MapOptions.Prefix", prefix, fmt.Sprintf("one that no other map has (taken by %s)", other.text)}
		}
		if strings.HasPrefix(p, prefix+":") || strings.HasPrefix(prefix, p+":") {
			return &ConfigError{"MapOptions.Prefix", prefix, fmt.Sprintf("one whose keys cannot be those of another map (%q is taken)", p)}
		}
	}
	c.maps[prefix] = kind
	return nil
}

func init() { //nolint:gochecknoinits // the link to httpcache, see package bridge
	bridge.Link(bridge.Core{
		Parts: func(cache any) bridge.Parts {
			c := cache.(*Cache)
			return bridge.Parts{Engine: c.engine, NewScope: c.scope, ClassRevision: c.classRevision}
		},
		WarmPlan:     func(o any) (warmup.Plan, error) { return o.(WarmOptions).plan() },
		KeepWarmPlan: func(o any) (warmup.KeepPlan, error) { return o.(KeepWarmOptions).plan() },
	})
}
