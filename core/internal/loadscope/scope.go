// Package loadscope carries the statements of a handler or loader about its own result
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

// Scope holds the statements of one load, or one write, so far.
type Scope struct {
	mu      sync.Mutex
	tags    []string
	ttl     time.Duration
	ttlSet  bool
	noStore bool
	unnamed bool
	lag     time.Duration // see Reads
	valid   string        // the validator
	isValid bool          // it has been set

	// Invalidate runs core.Invalidate of the cache this scope belongs to.
	// Targets are core's.
	Invalidate func(ctx context.Context, targets any) error
	// WaitEverywhere runs Cache.WaitEverywhere of that cache.
	WaitEverywhere func(ctx context.Context) error
	// MaxTags bounds Tags.
	MaxTags int
	// Of is the cache that the scope belongs to.
	Of any
	// Leads is the key whose flight this load leads, Outer the scope of the load
	// that it is part of, Beside the key that it loads beside any flight.
	Leads  string
	Outer  *Scope
	Beside string
	// Load is the load that others wait for. nil: the scope is not a load's own.
	Load *waitgraph.Load
	// Single: the load is of one value, which can have a validator.
	Single bool
	// Prior offers the value that the load is to replace, as a pointer to a copy of
	// its own, nil if there is none. A nil Prior offers none.
	Prior func(ctx context.Context) (v any, validator string)
	// LeadsToo are the keys of the flights that a load of several leads.
	LeadsToo map[string]bool
}

// Within reports whether s is part of a load that leads key of a cache. A wait for that
// load would be a wait for itself.
func (s *Scope) Within(of any, key string) bool {
	for ; s != nil; s = s.Outer {
		if s.Of == of && (s.Leads == key || s.LeadsToo[key]) {
			return true
		}
	}
	return false
}

// Loading returns the load that s is part of, nil if there is none.
func (s *Scope) Loading() *waitgraph.Load {
	for ; s != nil; s = s.Outer {
		if s.Load != nil {
			return s.Load
		}
	}
	return nil
}

// Begins notes that the load that s is part of waits for one that it has begun, until
// leave is called.
func (s *Scope) Begins(other *waitgraph.Load) (leave func()) {
	if l := s.Loading(); l != nil {
		return l.Begins(other)
	}
	return func() {}
}

// Besides returns how often key of a cache is loaded beside its flight, within s.
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

// AddTags adds tags. Over the limit nothing may be stored: an entry that lacked
// one of its tags could not be invalidated by it.
func (s *Scope) AddTags(tags []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range tags {
		if !slices.Contains(s.tags, t) {
			s.tags = append(s.tags, t)
		}
	}
	if len(s.tags) > s.MaxTags {
		s.noStore, s.unnamed = true, true
		s.tags = s.tags[:s.MaxTags]
	}
}

// SetUnnamed says that the result depends on something that has no name here:
// it can be neither stored nor shared.
func (s *Scope) SetUnnamed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noStore, s.unnamed = true, true
}

// SetTTL replaces the class's TTL.
func (s *Scope) SetTTL(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ttl, s.ttlSet = d, true
}

// SetNoStore forbids storing the result.
func (s *Scope) SetNoStore() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noStore = true
}

// SetValidator sets the validator of the result.
func (s *Scope) SetValidator(v string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.valid, s.isValid = v, true
}

// Reads notes that the result may depend on a replica with that lag.
func (s *Scope) Reads(lag time.Duration) {
	if s == nil || lag <= 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lag = max(s.lag, lag)
}

// Said is a copy of the statements of a scope.
type Said struct {
	Tags         []string
	TTL          time.Duration
	TTLSet       bool
	NoStore      bool
	Unnamed      bool // it depends on more than Tags says
	Validator    string
	ValidatorSet bool
	ReplicaLag   time.Duration // the largest lag of the replicas that it depends on
}

// Said returns the statements so far.
func (s *Scope) Said() Said {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Said{
		Tags: slices.Clone(s.tags), TTL: s.ttl, TTLSet: s.ttlSet, NoStore: s.noStore, Unnamed: s.unnamed,
		Validator: s.valid, ValidatorSet: s.isValid, ReplicaLag: s.lag,
	}
}
