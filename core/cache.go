package core

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/larderhq/larder/core/internal/engine"
	"github.com/larderhq/larder/core/internal/scope"
)

// Cache is a cache. Make one with New, share it by all handlers and maps of the
// app, and Close it. All its methods are safe for concurrent use.
type Cache struct {
	opts   Options
	engine *engine.Engine
	off    atomic.Bool

	mu   sync.Mutex
	maps map[string]string // what kind of map has a prefix
}

// New makes a cache. It fails with a *ConfigError if o is wrong.
func New(o Options) (*Cache, error) {
	if o.Remote != nil {
		return nil, &ConfigError{"Options.Remote", fmt.Sprintf("%T", o.Remote), "nil: this version keeps everything in one process"}
	}
	o, err := o.resolve()
	if err != nil {
		return nil, err
	}
	var longest time.Duration
	for _, c := range o.Classes {
		longest = max(longest, c.LoadTimeout)
	}
	e, err := engine.New(engine.Settings{
		MaxBytes:    uint64(o.MaxBytes),
		LongestLoad: longest,
		Refreshes:   o.MaxRefreshes,
	})
	if err != nil {
		return nil, err
	}
	return &Cache{opts: o, engine: e, maps: make(map[string]string)}, nil
}

// Close ends the cache's goroutines and frees its memory. Loads in the
// background are cancelled and waited for up to Options.CloseTimeout; the error
// says that some went on. Handlers stay usable: they run as if there were no
// cache. A second Close does nothing.
func (c *Cache) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), c.opts.CloseTimeout)
	defer cancel()
	if err := c.engine.Close(ctx); err != nil {
		return fmt.Errorf("larder: close: loads still running after %v: %w", c.opts.CloseTimeout, err)
	}
	return nil
}

// Invalidate makes every answer that begins after it returned nil come from a
// load that began after it was called: whatever was stored, stale or on its way.
// All targets are checked before the first is acted on. ctx bounds the wait for a
// shared tier, not whether it happens: a request that has ended may have committed.
func (c *Cache) Invalidate(_ context.Context, targets ...Target) error {
	list, err := items(targets)
	if err != nil {
		return err
	}
	if c.engine.Closed() {
		return ErrClosed
	}
	c.engine.Invalidate(list)
	return nil
}

// Enabled reports whether the cache answers. See SetEnabled.
func (c *Cache) Enabled() bool { return !c.off.Load() && !c.engine.Closed() }

// SetEnabled switches the cache off and on at run time. Off, every request goes
// to its handler and every Get to its loader, nothing is stored, and
// invalidations still happen: what is there when it is switched on is valid.
func (c *Cache) SetEnabled(on bool) { c.off.Store(!on) }

// Class returns the class of that name with its defaults filled in.
func (c *Cache) Class(name string) (Class, error) {
	class, ok := c.opts.Classes[name]
	if !ok {
		names := slices.Sorted(maps.Keys(c.opts.Classes))
		return Class{}, &ConfigError{"class", name, "one of " + fmt.Sprintf("%q", names)}
	}
	return class, nil
}

// Engine returns the parts that package httpcache is built on. Its type is
// internal: it is no part of the compatibility promise.
func (c *Cache) Engine() *engine.Engine { return c.engine }

// Options returns the options with their defaults filled in.
func (c *Cache) Options() Options { return c.opts }

// Scope returns a scope for a load or a write of this cache.
func (c *Cache) Scope() *scope.Scope {
	return &scope.Scope{
		MaxTags: MaxTagsPerEntry,
		Invalidate: func(ctx context.Context, targets any) error {
			return c.Invalidate(ctx, targets.([]Target)...)
		},
	}
}

// register claims a prefix for a kind of map.
func (c *Cache) register(prefix, kind string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for p, other := range c.maps {
		if p == prefix && other == kind {
			return nil
		}
		if p == prefix {
			return &ConfigError{"prefix", prefix, fmt.Sprintf("one that no other map has (taken by %s)", other)}
		}
		if strings.HasPrefix(p, prefix+":") || strings.HasPrefix(prefix, p+":") {
			return &ConfigError{"prefix", prefix, fmt.Sprintf("one whose keys cannot be those of another map (%q is taken)", p)}
		}
	}
	c.maps[prefix] = kind
	return nil
}

// JitteredTTL returns the class's TTL, shortened by its jitter.
func (c Class) JitteredTTL() time.Duration {
	if c.Jitter == 0 || c.TTL == 0 {
		return c.TTL
	}
	return max(MinDuration, c.TTL-time.Duration(rand.Float64()*c.Jitter*float64(c.TTL)))
}
