package memtier

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/larderhq/larder/core/internal/tier"
)

// Config configures a Server. All fields are optional.
type Config struct {
	// Rand draws the faults. The default is one with a fixed seed.
	Rand *rand.Rand
	// LogItems is the number of items that the log of a partition holds. The default is 64, so
	// that positions are trimmed.
	LogItems int
	// GenerationLife is the lifetime of a generation after its last capture. The default is 24 h.
	GenerationLife time.Duration
	// History is the longest d of LoseLast. The default is 10 s.
	History time.Duration
}

// LayoutLapse is the time, in addition to twice its MaxStaleness, after which an instance's part of
// the layout lapses unless it is renewed, on the server's clock.
const LayoutLapse = 2 * time.Minute

// Server is the shared tier of several clients.
type Server struct {
	logItems       int
	generationLife time.Duration
	history        time.Duration
	stop           chan struct{}
	stopped        sync.Once

	mu         sync.Mutex
	rng        *rand.Rand
	faults     Faults
	full       bool
	spaces     map[where]*space
	versions   map[string]map[string]struct{} // by namespace
	shards     [layoutShard + 1]shard
	executions uint64 // makes tokens unique, whatever is lost or restored
	restarts   int
	subs       []*subscriber
	stats      Stats
}

// layoutShard is the index of the server that has the layout and publishes hints.
const layoutShard = tier.MaxPartitions

// shard is the server of one partition.
type shard struct {
	id        string
	skew      time.Duration
	down      bool
	migrating bool
	given     int64         // the last version of a change: see step.next
	thawed    chan struct{} // not nil: frozen until it is closed
	conn      chan struct{} // closed when the connections break
}

// Stats counts events, so that a simulation can report that they occurred.
type Stats struct {
	Executed                     int // steps
	LostRequests                 int
	LostReplies                  int
	Resent                       int
	Abandoned                    int // calls that the caller left before they ended
	ExecutedLate                 int // steps whose caller had left
	LostHints                    int
	DoubledHints                 int
	CutHints                     int
	EvictedKeys                  int
	RefusedFull                  int
	FencedFills                  int // fills that were refused
	StoredTogether, LeftTogether int // values of batches that were stored, and that were left out
	TrimmedBefore                int // reads of a log whose position had been trimmed
}

// New returns an empty server without faults.
func New(c Config) *Server {
	if c.Rand == nil {
		c.Rand = rand.New(rand.NewPCG(1, 2))
	}
	if c.LogItems <= 0 {
		c.LogItems = 64
	}
	if c.GenerationLife <= 0 {
		c.GenerationLife = 24 * time.Hour
	}
	if c.History <= 0 {
		c.History = 10 * time.Second
	}
	s := &Server{
		logItems: c.LogItems, generationLife: c.GenerationLife, history: c.History,
		stop: make(chan struct{}), rng: c.Rand,
		spaces: map[where]*space{}, versions: map[string]map[string]struct{}{},
	}
	s.restart(s.partitions(nil))
	return s
}

// Close ends all pending requests. Later calls fail.
func (s *Server) Close() { s.stopped.Do(func() { close(s.stop) }) }

// Stats returns the counts so far.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

// space returns a keyspace. The caller holds mu.
func (s *Server) space(w where) *space {
	sp := s.spaces[w]
	if sp == nil {
		sp = &space{keys: map[key]value{}}
		s.spaces[w] = sp
	}
	return sp
}

// partitions returns the named shards, or all if none is named.
func (s *Server) partitions(named []int) []int {
	if len(named) > 0 {
		return named
	}
	all := make([]int, len(s.shards))
	for i := range all {
		all[i] = i
	}
	return all
}

// restart gives shards a new server id and breaks their connections. The caller holds mu, or has
// not shared s yet.
func (s *Server) restart(shards []int) {
	s.restarts++
	for _, i := range shards {
		sh := &s.shards[i]
		sh.id = fmt.Sprintf("server-%d-%d", i, s.restarts)
		sh.disconnect()
	}
	if len(shards) > 0 {
		s.cut(nil)
	}
}

func (sh *shard) disconnect() {
	if sh.conn != nil {
		close(sh.conn)
	}
	sh.conn = make(chan struct{})
}

// step is one atomic execution in one partition. The server's lock is held.
type step struct {
	*space
	server    *Server
	session   *session
	shard     *shard
	partition int
	now       int64 // the server's clock, milliseconds
	nonce     string
}

// token returns a token from the caller's part and the execution's.
func (st *step) token() string {
	st.server.executions++
	return fmt.Sprintf("%s.%d", st.nonce, st.server.executions)
}

func (st *step) head() (head, bool) {
	v, ok := st.get(key{kind: Head}, st.now)
	if !ok {
		return head{}, false
	}
	return v.data.(head), true
}

func (st *step) setHead(h head) { st.set(key{kind: Head}, value{data: h}) }

// refuseFull returns an error if memory has run out.
func (st *step) refuseFull() error {
	if st.server.full {
		st.server.stats.RefusedFull++
		return errFull
	}
	return nil
}
