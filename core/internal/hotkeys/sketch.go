// Package hotkeys learns the most requested names in bounded memory, at almost no cost for a
// request. It samples the requests, counts the samples by Space-Saving (Metwally, Agrawal, El
// Abbadi, "Efficient Computation of Frequent and Top-k Elements in Data Streams", ICDT 2005),
// and reduces the weight of old requests.
package hotkeys

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
)

// Sketch holds the names that were requested most often of late, each with data about it. It
// is safe for concurrent use.
type Sketch[T any] struct {
	top   int
	room  int // for names
	quota int // number of counted requests after which the sampling rate falls

	rare atomic.Uint32 // one request in rare+1 is counted; rare+1 is a power of two

	mu      sync.Mutex
	heap    []node[T] // the least requested first
	at      map[string]int
	counted int // since rare changed last
}

// node is a name with its count, which is too high by excess at most.
type node[T any] struct {
	Item[T]
	count, excess float64
}

// Item is a name, and the data about it from its first request.
type Item[T any] struct {
	Name  string
	About T
}

// The sketch counts more names than it returns, so that a name that is requested once does not
// evict a frequent one: factor times as many, at least minRoom, at most maxExtra more. rarest
// bounds Sketch.rare.
const (
	factor   = 4
	minRoom  = 1 << 10
	maxExtra = 100_000
	rarest   = 1<<10 - 1
)

// New returns a sketch of the top names.
func New[T any](top int) *Sketch[T] {
	room := max(min(factor*top, top+maxExtra), minRoom)
	return &Sketch[T]{top: top, room: room, quota: 4 * room, at: make(map[string]int)}
}

// Sampled reports whether this request is counted. It takes no lock.
func (s *Sketch[T]) Sampled() bool {
	rare := s.rare.Load()
	return rare == 0 || rand.Uint32()&rare == 0
}

// Saw counts a sampled request. A request that would have to wait for another is not
// counted.
func (s *Sketch[T]) Saw(name string, about T) {
	if !s.mu.TryLock() {
		return
	}
	defer s.mu.Unlock()
	rare := s.rare.Load()
	s.add(Item[T]{name, about}, float64(rare)+1)
	if s.counted++; s.counted >= s.quota && rare < rarest {
		s.rare.Store(2*rare + 1)
		s.counted = 0
	}
}

func (s *Sketch[T]) add(it Item[T], weight float64) {
	i, ok := s.at[it.Name]
	switch {
	case ok:
		s.heap[i].count += weight
		s.down(i)
	case len(s.heap) < s.room:
		s.heap = append(s.heap, node[T]{it, weight, 0})
		s.at[it.Name] = len(s.heap) - 1
		s.up(len(s.heap) - 1)
	default:
		least := s.heap[0].count
		delete(s.at, s.heap[0].Name)
		s.heap[0] = node[T]{it, least + weight, least}
		s.at[it.Name] = 0
		s.down(0)
	}
}

func (s *Sketch[T]) swap(i, j int) {
	s.heap[i], s.heap[j] = s.heap[j], s.heap[i]
	s.at[s.heap[i].Name], s.at[s.heap[j].Name] = i, j
}

func (s *Sketch[T]) up(i int) {
	for i > 0 && s.heap[i].count < s.heap[(i-1)/2].count {
		s.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
}

func (s *Sketch[T]) down(i int) {
	for {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(s.heap); child++ {
			if s.heap[child].count < s.heap[least].count {
				least = child
			}
		}
		if least == i {
			return
		}
		s.swap(i, least)
		i = least
	}
}

// Top returns the names that were certainly counted more than once recently, the most
// requested first.
func (s *Sketch[T]) Top() []Item[T] {
	s.mu.Lock()
	nodes := slices.Clone(s.heap)
	s.mu.Unlock()
	once := float64(s.rare.Load()) + 1
	nodes = slices.DeleteFunc(nodes, func(n node[T]) bool { return n.count-n.excess <= once })
	slices.SortFunc(nodes, func(a, b node[T]) int {
		return cmp.Or(cmp.Compare(b.count-b.excess, a.count-a.excess), cmp.Compare(a.Name, b.Name))
	})
	items := make([]Item[T], min(len(nodes), s.top))
	for i := range items {
		items[i] = nodes[i].Item
	}
	return items
}

// Fade multiplies all counts by a factor below 1. It raises the sampling rate if few requests
// were counted since the last change of the rate.
func (s *Sketch[T]) Fade(factor float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.heap {
		s.heap[i].count *= factor
		s.heap[i].excess *= factor
	}
	if rare := s.rare.Load(); s.counted < s.quota/4 && rare > 0 {
		s.rare.Store(rare / 2)
	}
	s.counted = 0
}

// Seed adds names, in the order of an earlier Top, as if each had been requested twice.
func (s *Sketch[T]) Seed(items []Item[T]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, it := range items[:min(len(items), s.top)] {
		if _, ok := s.at[it.Name]; !ok {
			s.add(it, 2)
		}
	}
}
