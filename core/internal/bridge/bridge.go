// Package bridge gives package httpcache the parts of a core.Cache that are not in core's
// public API. Package core fills in the functions when it is initialised. Caches and
// options are passed as any, since core imports this package.
package bridge

import (
	"github.com/larderhq/larder/core/internal/coherence"
	"github.com/larderhq/larder/core/internal/loadscope"
	"github.com/larderhq/larder/core/internal/warmup"
)

// Parts are the parts of a cache.
type Parts struct {
	Engine *coherence.Engine
	// NewScope returns a scope for a load or a write of the cache.
	NewScope func() *loadscope.Scope
	// ClassRevision returns the number of successful calls of SetClasses. A route resolves its
	// class again when the revision has changed.
	ClassRevision func() uint64
}

// Core has the functions of package core.
type Core struct {
	// Parts returns the parts of a *core.Cache.
	Parts func(cache any) Parts
	// WarmPlan validates a core.WarmOptions.
	WarmPlan func(options any) (warmup.Plan, error)
	// KeepWarmPlan validates a core.KeepWarmOptions.
	KeepWarmPlan func(options any) (warmup.KeepPlan, error)
}

var linked Core //nolint:gochecknoglobals // set once, when core is initialised

// Link sets the functions. Only package core calls it.
func Link(c Core) { linked = c }

// Of returns the parts of a *core.Cache.
func Of(cache any) Parts { return linked.Parts(cache) }

// WarmPlan returns a core.WarmOptions as a plan, or its *core.ConfigError.
func WarmPlan(options any) (warmup.Plan, error) { return linked.WarmPlan(options) }

// KeepWarmPlan returns a core.KeepWarmOptions as a plan, or its *core.ConfigError.
func KeepWarmPlan(options any) (warmup.KeepPlan, error) { return linked.KeepWarmPlan(options) }
