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
	// known mirrors the generation in the shared tier. It is set under the journal's lock. Its
	// size also gives each generation a block of its own: the allocator puts several smaller
	// objects into one block, which stays as long as any of them.
	known atomic.Pointer[mirrored]
}

// mirrored is a tag's generation in the shared tier, valid in one era of the tag's
// partition.
type mirrored struct {
	token string
	era   *Generation
}

// generations finds the living generation of each tag. It holds weak pointers: a generation
// lives as long as an entry or a load that holds it.
type generations struct {
	ended  func() // called when a living generation has ended; must not block
	seed   maphash.Seed
	shards [256]generationShard
}

type generationShard struct {
	mu     sync.Mutex
	m      map[string]weak.Pointer[Generation]
	canary weak.Pointer[canary] // nil: a garbage collection has run since the shard was pruned
}

// canary is collected by each garbage collection.
type canary struct {
	_ *canary // with a pointer, and so in a block of its own
	_ [2]uintptr
}

// prune removes the pointers to generations that have been collected, which evicted entries have
// left behind. It reads the whole shard at most once per garbage collection. The caller holds
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

// Mirrored returns the generation of a tag in the shared tier, "" if it is unknown.
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

// Mirror records the generation of a tag that was read from the shared tier after the position
// pos of the log, unless an item that was applied since may concern it (R5). If the tag had no
// mirrored generation, Mirror returns the tag's generation of this process.
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

// get returns the living generation of tag. made: it was created by this call.
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

// peek returns the living generation of tag, nil if there is none.
func (s *generations) peek(tag string) *Generation {
	sh := s.shard(tag)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.m[tag].Value()
}

// kill ends the living generation of tag, and with it all entries that hold it.
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

// count returns the number of known tags, including pointers that have not been pruned.
func (s *generations) count() int {
	n := 0
	for i := range s.shards {
		s.shards[i].mu.Lock()
		n += len(s.shards[i].m)
		s.shards[i].mu.Unlock()
	}
	return n
}
