package core

import "github.com/larderhq/larder/core/internal/tier"

// Remote is the tier that several instances share: redisstore.New returns the one on
// Redis. The interface is sealed: its types are internal, so that only this module
// implements it.
//
// With a Remote, an instance answers from its own memory only while it is known to follow
// the Remote's log of invalidations: for at most Options.MaxStaleness after the last
// proof. Without that proof, requests go to their handlers.
type Remote interface{ tier.Tier }
