package coherence

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"weak"
)

// stamp is a generation of a tag, or an era. It dies once and never comes back.
type stamp struct {
	tag  string // "": an era
	dead atomic.Bool
	// known mirrors the generation in the shared tier. It is learned under the
	// journal's lock and forgotten with the stamp. Its size also keeps the stamp
	// in a block of its own: smaller ones share one, which is kept as long as any.
	known atomic.Pointer[mirrored]
}

// mirrored is a tag's generation in the shared tier, valid in one era of the tag's
// partition.
type mirrored struct {
	token string
	era   *stamp
}

// stamps finds the living stamp of each tag. It holds them weakly: a stamp lives
// as long as an entry or a load that was made under it.
type stamps struct {
	seed   maphash.Seed
	shards [64]stampShard
}

type stampShard struct {
	mu    sync.Mutex
	m     map[string]weak.Pointer[stamp]
	sweep int // the size at which dead pointers are swept next
}

const minSweep = 256

func newStamps() *stamps {
	s := &stamps{seed: maphash.MakeSeed()}
	for i := range s.shards {
		s.shards[i].m = make(map[string]weak.Pointer[stamp])
		s.shards[i].sweep = minSweep
	}
	return s
}

func (s *stamps) shard(tag string) *stampShard {
	return &s.shards[maphash.String(s.seed, tag)%uint64(len(s.shards))]
}

// get returns the living stamp of tag and makes one if there is none.
func (s *stamps) get(tag string) *stamp {
	sh := s.shard(tag)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if st := sh.m[tag].Value(); st != nil {
		return st
	}
	if len(sh.m) >= sh.sweep {
		for t, p := range sh.m {
			if p.Value() == nil {
				delete(sh.m, t)
			}
		}
		sh.sweep = max(minSweep, 2*len(sh.m))
	}
	st := &stamp{tag: tag}
	sh.m[tag] = weak.Make(st)
	return st
}

// peek returns the living stamp of tag, if there is one.
func (s *stamps) peek(tag string) *stamp {
	sh := s.shard(tag)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.m[tag].Value()
}

// kill ends the living stamp of tag, and with it whatever was made under it.
func (s *stamps) kill(tag string) {
	sh := s.shard(tag)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if st := sh.m[tag].Value(); st != nil {
		st.dead.Store(true)
	}
	delete(sh.m, tag)
}

// count returns how many tags are known, dead pointers that have not been swept
// included.
func (s *stamps) count() int {
	n := 0
	for i := range s.shards {
		s.shards[i].mu.Lock()
		n += len(s.shards[i].m)
		s.shards[i].mu.Unlock()
	}
	return n
}
