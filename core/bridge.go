package core

import (
	"github.com/larderhq/larder/core/internal/bridge"
	"github.com/larderhq/larder/core/internal/warm"
)

func init() { //nolint:gochecknoinits // the link to httpcache, see package bridge
	bridge.Link(bridge.Core{
		Parts: func(cache any) bridge.Parts {
			c := cache.(*Cache)
			return bridge.Parts{Engine: c.engine, NewScope: c.scope, ClassRevision: c.classRevision}
		},
		WarmPlan:     func(o any) (warm.Plan, error) { return o.(WarmOptions).plan() },
		KeepWarmPlan: func(o any) (warm.KeepPlan, error) { return o.(KeepWarmOptions).plan() },
	})
}
