// Package loadscope carries the properties that a handler or loader declares of its own result
// (tags, lifetime), from core's context functions to the code that stores the result.
package loadscope

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/larderhq/larder/core/internal/waitgraph"
)

// Key finds the scope in a context. It is a plain string, since some frameworks'
// contexts look up nothing else (gin.Context.Value, and Fiber's user values).
const Key = "github.com/larderhq/larder/scope"

// Scope holds the declared properties of one load or one write.
type Scope struct {
	mu   sync.Mutex
	said Said

	Owner
	Place
	Replaced
}

// Owner is the cache to which a scope belongs.
type Owner struct {
	Of any
	// Invalidate is Cache.Invalidate of the cache. targets is a []core.Target.
	Invalidate func(ctx context.Context, targets any) error
	// WaitEverywhere is Cache.WaitEverywhere of the cache.
	WaitEverywhere func(ctx context.Context) error
	// MaxTags bounds the tags.
	MaxTags int
}

// Place is the place of a load among the flights and the other loads.
type Place struct {
	// Leads is the key whose flight the load leads. LeadsToo are those of a load of several values.
	Leads    string
	LeadsToo map[string]bool
	// Beside is the key that the load loads outside any flight.
	Beside string
	// Outer is the scope of the load of which this one is a part. nil: it is not nested.
	Outer *Scope
	// Load is the load for which others may wait. nil: the scope has no load of its own.
	Load *waitgraph.Load
}

// Replaced is the value that a load is to replace.
type Replaced struct {
	// Single: the load has one value, which can have a validator.
	Single bool
	// Prior returns a pointer to a copy of the value, nil if there is none. A nil Prior offers no
	// value.
	Prior func(ctx context.Context) (v any, validator string)
}

// Within reports whether s is part of a load that leads the flight of a cache's key. Such a
// load would wait for itself if it joined the flight.
func (s *Scope) Within(of any, key string) bool {
	for ; s != nil; s = s.Outer {
		if s.Of == of && (s.Leads == key || s.LeadsToo[key]) {
			return true
		}
	}
	return false
}

// Loading returns the load of which s is a part, nil if there is none.
func (s *Scope) Loading() *waitgraph.Load {
	for ; s != nil; s = s.Outer {
		if s.Load != nil {
			return s.Load
		}
	}
	return nil
}

// Begins records that the load of which s is a part waits for one that it has begun, until leave
// is called.
func (s *Scope) Begins(other *waitgraph.Load) (leave func()) {
	if l := s.Loading(); l != nil {
		return l.Begins(other)
	}
	return func() {}
}

// Besides returns the number of loads of a cache's key outside its flight of which s is a
// part.
func (s *Scope) Besides(of any, key string) (n int) {
	for ; s != nil; s = s.Outer {
		if s.Of == of && s.Beside == key {
			n++
		}
	}
	return n
}

// With returns a context that carries s.
func With(ctx context.Context, s *Scope) context.Context {
	return context.WithValue(ctx, Key, s) //nolint:staticcheck // a string on purpose, see Key
}

// From returns the scope that ctx carries, or nil.
func From(ctx context.Context) *Scope {
	s, _ := ctx.Value(Key).(*Scope)
	return s
}

// AddTags adds tags. A result with more than MaxTags tags must not be stored: no invalidation
// by a missing tag would reach it.
func (s *Scope) AddTags(tags []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range tags {
		if !slices.Contains(s.said.Tags, t) {
			s.said.Tags = append(s.said.Tags, t)
		}
	}
	if len(s.said.Tags) > s.MaxTags {
		s.said.NoStore, s.said.Unnamed, s.said.TooManyTags = true, true, true
		s.said.Tags = s.said.Tags[:s.MaxTags]
	}
}

// SetUnnamed declares that the result depends on more than its tags name. It can then be
// neither stored nor shared.
func (s *Scope) SetUnnamed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.said.NoStore, s.said.Unnamed = true, true
}

// SetTTL replaces the class's TTL.
func (s *Scope) SetTTL(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.said.TTL, s.said.TTLSet = d, true
}

// SetNoStore forbids storing the result.
func (s *Scope) SetNoStore() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.said.NoStore = true
}

// SetValidator sets the validator of the result.
func (s *Scope) SetValidator(v string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.said.Validator, s.said.ValidatorSet = v, true
}

// ReadsReplica declares that the result may depend on a replica with a lag.
func (s *Scope) ReadsReplica(lag time.Duration) {
	if s == nil || lag <= 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.said.ReplicaLag = max(s.said.ReplicaLag, lag)
}

// Contains declares that the result contains the value of a load that began at a time, on the
// clock of the cache. 0 is no load.
func (s *Scope) Contains(began int64) {
	if s == nil || began == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.said.Oldest == 0 || began < s.said.Oldest {
		s.said.Oldest = began
	}
}

// Inherit declares that the result depends on that of a nested load.
func (s *Scope) Inherit(nested Said) {
	s.ReadsReplica(nested.ReplicaLag)
	s.Contains(nested.Oldest)
}

// Said is a snapshot of the declared properties of a scope.
type Said struct {
	Tags         []string
	TTL          time.Duration
	TTLSet       bool
	NoStore      bool
	Unnamed      bool // the result depends on more than Tags names
	TooManyTags  bool // the reason: they are more than MaxTags
	Validator    string
	ValidatorSet bool
	ReplicaLag   time.Duration // the largest lag of the replicas on which it depends
	Oldest       int64         // when the earliest load began whose value it contains; 0: none
}

// Said returns the properties that have been declared so far.
func (s *Scope) Said() Said {
	s.mu.Lock()
	defer s.mu.Unlock()
	said := s.said
	said.Tags = slices.Clone(said.Tags)
	return said
}
