package local

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"weak"

	"github.com/larderhq/larder/core/internal/tier"
)

// Generation is a generation of a tag, or an era. It dies once and never comes back.
type Generation struct {
	tag  string // "": an era
	dead atomic.Bool
	// known mirrors the generation in the shared tier. It is learned under the
	// journal's lock and forgotten with the generation. Its size also keeps the generation
	// in a block of its own: smaller ones share one, which is kept as long as any.
	known atomic.Pointer[mirrored]
}

// mirrored is a tag's generation in the shared tier, valid in one era of the tag's
// partition.
type mirrored struct {
	token string
	era   *Generation
}

// generations finds the living generation of each tag. It holds them weakly: a generation lives
// as long as an entry or a load that was made under it.
type generations struct {
	ended  func() // called when a living generation has ended; it does not wait
	seed   maphash.Seed
	shards [256]generationShard
}

type generationShard struct {
	mu     sync.Mutex
	m      map[string]weak.Pointer[Generation]
	canary weak.Pointer[canary] // nil: memory has been collected since the shard was pruned
}

// canary is collected by each garbage collection.
type canary struct {
	_ *canary // with a pointer, and so in a block of its own
	_ [2]uintptr
}

// prune removes the pointers whose generations have been collected: what evicted entries have
// left behind. It walks through the shard at most once per garbage collection. The caller holds
// the shard's lock.
func (sh *generationShard) prune() {
	if sh.canary.Value() != nil {
		return
	}
	sh.canary = weak.Make(new(canary))
	for tag, p := range sh.m {
		if p.Value() == nil {
			delete(sh.m, tag)
		}
	}
}

// Mirrored returns the generation that a tag has in the shared tier, "" if it is not known.
func (c *Cache) Mirrored(tag string) string {
	g := c.generations.peek(tag)
	if g == nil || g.dead.Load() {
		return ""
	}
	if m := g.known.Load(); m != nil && !m.era.dead.Load() {
		return m.token
	}
	return ""
}

// Mirror notes the generation of a tag that was read from the shared tier after the position
// pos of the log, unless something that was applied since may concern it (R5). It returns the
// generation of this process where the tag had no such note.
func (c *Cache) Mirror(pos uint64, tag, token string) (first *Generation) {
	g, _ := c.generations.get(tag)
	era := c.eras[tier.Partition(tag, c.Partitions())].Load()
	c.journal.mu.RLock()
	defer c.journal.mu.RUnlock()
	if c.concern(pos, "", []string{tag}) != 0 || era.dead.Load() || !c.intents.mayKeep(c.Now(), c.Now()) {
		return nil
	}
	if g.known.Swap(&mirrored{token, era}) == nil {
		return g
	}
	return nil
}

func newGenerations() *generations {
	s := &generations{seed: maphash.MakeSeed(), ended: func() {}}
	for i := range s.shards {
		s.shards[i].m = make(map[string]weak.Pointer[Generation])
	}
	return s
}

func (s *generations) shard(tag string) *generationShard {
	return &s.shards[maphash.String(s.seed, tag)%uint64(len(s.shards))]
}

// get returns the living generation of tag, and makes one if there is none.
func (s *generations) get(tag string) (g *Generation, made bool) {
	sh := s.shard(tag)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if g := sh.m[tag].Value(); g != nil {
		return g, false
	}
	sh.prune()
	g = &Generation{tag: tag}
	sh.m[tag] = weak.Make(g)
	return g, true
}

// peek returns the living generation of tag, if there is one.
func (s *generations) peek(tag string) *Generation {
	sh := s.shard(tag)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.m[tag].Value()
}

// kill ends the living generation of tag, and with it all that was made under it.
func (s *generations) kill(tag string) {
	sh := s.shard(tag)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if g := sh.m[tag].Value(); g != nil {
		g.dead.Store(true)
		s.ended()
	}
	delete(sh.m, tag)
}

// count returns how many tags are known, dead pointers that have not been swept
// included.
func (s *generations) count() int {
	n := 0
	for i := range s.shards {
		s.shards[i].mu.Lock()
		n += len(s.shards[i].m)
		s.shards[i].mu.Unlock()
	}
	return n
}
