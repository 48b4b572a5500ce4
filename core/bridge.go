package core

import (
	"github.com/larderhq/larder/core/internal/bridge"
	"github.com/larderhq/larder/core/internal/warmup"
)

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
