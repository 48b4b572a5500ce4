package core

import "github.com/larderhq/larder/core/internal/remote"

// Remote is a tier that several instances share: package redisstore has the one on
// Redis. Package storetest says what every one must do, and can test another.
//
// With a Remote, what an instance keeps in its own memory is answered only while
// the Remote's log of invalidations is known to be followed: for at most
// Options.MaxStaleness after the last proof. Without that proof, requests go to
// their handlers.
type Remote = remote.Tier

// The parts of a Remote, for those who implement one.
type (
	RemoteSession = remote.Session
	RemoteLayout  = remote.Layout
)
