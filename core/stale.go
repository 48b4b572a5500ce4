package core

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/larderhq/larder/core/internal/coherence"
	"github.com/larderhq/larder/core/internal/loadscope"
	"github.com/larderhq/larder/core/internal/local"
	"github.com/larderhq/larder/core/internal/naming"
	"github.com/larderhq/larder/core/internal/packed"
)

// A loader may find that the value that it is to replace still holds. A renewed value is
// valid under the present generations and eras, as if it had been loaded: so it must not
// be one that an invalidation has removed, here or in another instance whose message has
// not arrived. Let I be an invalidation, G the load's
// registration and lease, S the offer of the stale value, F the fill.
//
//	I < S, known here           the entry is gone: it is not offered
//	I < S, not yet known here   S asks for the logs since G (Turn.StillValid); what came
//	                            before G and was not known then is in them as well, since
//	                            they are read from where this process is. Not offered
//	S < I < F                   F is refused as any load's: the lease is gone, or the
//	                            generation; for tags that only the stale value carried
//	                            the logs since G are compared (late tags, R10)
//	F < I                       I takes out what was renewed: it carries its old tags too
//	I names a tag of the stale  those who joined after I load again: they are compared
//	value alone, S < I < joined with these tags too
//	a writer dies, S < deadline F is refused: its intent lapsed during the load
//
// Without a lease nothing is stored, and what is answered is what this process may
// answer by what it has verified.

// keepForValidation is how long a value with a validator is kept when its windows
// have passed, to be validated.
const keepForValidation = time.Hour

// StaleValue returns the value that the running loader is to replace, a copy of its own,
// and its validator, "" if none was set. ctx is the loader's. ok is false, and the others
// are zero, if there is no such value, if it has been invalidated, if V is not the map's
// type, and in a [ManyLoader].
//
// A loader that finds that the value still holds returns [ErrNotModified]: the value is
// kept for another TTL, with its tags and its validator, and with those that the loader
// adds. The loader must find that by a read that began after the loader did.
//
// With a shared tier the first call asks whether another instance has invalidated the
// value; a loader that does not call StaleValue costs nothing more.
func StaleValue[V any](ctx context.Context) (v V, validator string, ok bool) {
	s := loadscope.From(ctx)
	if s == nil || s.Prior == nil {
		return v, "", false
	}
	offered, validator := s.Prior(ctx)
	p, ok := offered.(*V)
	if !ok {
		return v, "", false
	}
	return *p, validator, true
}

// SetValidator sets the validator of the value that the running loader is about to
// return: an ETag, a row's version or its time of change, of 1 to [MaxValidatorBytes]
// bytes. [StaleValue] returns it with the value. A value with a validator is kept for at
// least an hour after its TTL, to be validated and for nothing else.
//
// The error is a *[ConfigError] for the length, or [ErrNoScope]: also in a loader of
// several values ([Map.GetMany]), which has no use for validators, and in a handler,
// whose response has an ETag instead.
func SetValidator(ctx context.Context, validator string) error {
	s := loadscope.From(ctx)
	switch {
	case s == nil:
		return ErrNoScope
	case !s.Single:
		return fmt.Errorf("larder: SetValidator outside a loader of one value: %w", ErrNoScope)
	case validator == "" || len(validator) > MaxValidatorBytes:
		return &ConfigError{"SetValidator", strings.Clone(validator[:min(len(validator), 32)]), fmt.Sprintf("a string of 1 to %d bytes", MaxValidatorBytes)}
	}
	s.SetValidator(strings.Clone(validator))
	return nil
}

// scope returns the scope of a load of one value, within the scope of ctx.
func (b *mapBase) scope(ctx context.Context) *loadscope.Scope {
	sc := b.c.scope()
	sc.Single, sc.Outer = true, loadscope.From(ctx)
	return sc
}

// prior is the value that a load is to replace. It is looked up when its loader asks.
type prior struct {
	s    *snapshot
	turn *coherence.Turn

	mu    sync.Mutex // its loader may have several goroutines
	asked bool
	over  bool
	entry *local.Entry
}

// offer is loadscope.Scope.Prior.
func (p *prior) offer(ctx context.Context) (value any, validator string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return nil, ""
	}
	if !p.asked {
		p.asked = true
		p.entry = p.find(ctx)
	}
	if p.entry == nil {
		return nil, ""
	}
	a, ok := p.s.read(p.entry)
	if !ok || a.err != nil {
		p.entry = nil
		return nil, ""
	}
	if va, ok := p.entry.Value.(validated); ok {
		validator = va.validator
	}
	return a.value, validator
}

// find looks for a value that may be renewed: one that is valid as of after the
// load was registered.
func (p *prior) find(ctx context.Context) *local.Entry {
	en, state := p.s.c.engine.Lookup(p.turn.Key())
	if state == local.Gone {
		return nil
	}
	if _, isAbsent := en.Value.(absent); isAbsent || !p.turn.StillValid(ctx, en, p.turn.Key(), slices.Concat(en.Tags(), p.turn.Tags())) {
		return nil
	}
	return en
}

// end ends the offer, and returns the offered entry.
func (p *prior) end() *local.Entry {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	return p.entry
}

// revalidate replaces ErrNotModified by the value that the loader was offered, and reports
// whether it has: fill, r and said are then those of that value.
func (s *snapshot) revalidate(key string, fill *local.Fill, said *loadscope.Said, r *loaded) bool {
	if !errors.Is(r.err, ErrNotModified) {
		return false
	}
	en := r.prior
	if en == nil {
		r.err = fmt.Errorf("larder: a loader of %s was offered no stale value to renew (see StaleValue): %w", s.prefix, r.err)
		return false
	}
	a, ok := s.read(en)
	if !ok || a.err != nil { // it was read before
		return false
	}
	r.answer = a
	s.refill(fill, en.Value, &said.Validator, said.ValidatorSet)
	own := naming.Tag(key) // the load has it
	for _, tag := range en.Tags() {
		if tag != own && !slices.Contains(said.Tags, tag) {
			said.Tags = append(said.Tags, tag)
		}
	}
	if len(said.Tags) > MaxTagsPerEntry {
		said.NoStore, said.Unnamed = true, true
	}
	return true
}

// refill puts a stored value into fill, with its validator unless the loader has set another.
func (s *snapshot) refill(fill *local.Fill, stored any, validator *string, set bool) {
	if v, ok := stored.(validated); ok {
		if stored = v.value; !set {
			*validator = v.validator
		}
	}
	switch v := stored.(type) {
	case []byte:
		fill.Size, fill.Memory = len(v), len(v)+headBytes
	case kept:
		fill.Size, fill.Memory = v.size, local.Footprint(v.value)+headBytes
	case packed.Value:
		data, _ := s.values.encode(s.values.unpack(v)) // it has been encoded before
		fill.Size, fill.Memory = len(data), v.Size()
		fill.Codec = mapCodec{&s.values, data}
	}
	fill.Value = withValidator(stored, *validator)
	fill.Size, fill.Memory = fill.Size+len(*validator), fill.Memory+len(*validator)
}
