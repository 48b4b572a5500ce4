package memtier

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/larderhq/larder/core/internal/tier"
)

// Config is what a Server is made with. All of it is optional.
type Config struct {
	// Rand draws the faults. The default is one with a fixed seed.
	Rand *rand.Rand
	// LogItems is how many items a partition's log holds. Default 64, so that
	// positions are trimmed.
	LogItems int
	// GenerationLife is how long a generation lives after it was last captured.
	// Default 24 h.
	GenerationLife time.Duration
	// History is how far back LoseLast reaches. Default 10 s.
	History time.Duration
}

// LayoutLapse is how long, beside twice its MaxStaleness, an instance's part of the layout holds unless it is
// renewed (on the server's clock).
const LayoutLapse = 2 * time.Minute

// Server is what the clients share.
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

// Stats counts what happened, so that a simulation can tell that it did happen.
type Stats struct {
	Executed      int // steps
	LostRequests  int
	LostReplies   int
	Resent        int
	Abandoned     int // calls that the caller left before they ended
	ExecutedLate  int // steps whose caller had left
	LostHints     int
	DoubledHints  int
	CutHints      int
	EvictedKeys   int
	RefusedFull   int
	FencedFills   int // fills that were refused
	TrimmedBefore int // reads of a log whose position had been trimmed
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

// Close ends everything that is under way. Later calls fail.
func (s *Server) Close() { s.stopped.Do(func() { close(s.stop) }) }

// Stats returns what has happened so far.
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

// partitions returns the shards that are meant: all where none are named.
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

// restart gives shards a new server id and breaks their connections. The caller
// holds mu, or nobody else has s yet.
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

// token makes a token of the caller's part and the execution's.
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

// refuseFull returns an error where memory has run out.
func (st *step) refuseFull() error {
	if st.server.full {
		st.server.stats.RefusedFull++
		return errFull
	}
	return nil
}
