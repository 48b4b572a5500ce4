package writebehind

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/larderhq/larder/core/internal/coherence"
	"github.com/larderhq/larder/core/internal/naming"
	"github.com/larderhq/larder/core/internal/tier"
)

// Errors of a Pipeline.
var (
	ErrNotQueued = errors.New("larder: the change is not known to be queued")
	ErrQueueFull = errors.New("larder: the write-behind queue is full")
	ErrPoison    = errors.New("larder: a change that can never be applied")
	// ErrMalformed is the error of a record that another type of value, or another version
	// of this library, has queued.
	ErrMalformed = errors.New("larder: a queued change does not decode")
)

// Target applies changes. Apply and OnDead may panic or end their goroutine.
type Target interface {
	// Decode returns the change of a record. With an error it returns the part that decodes.
	Decode(rec *tier.Queued) (change any, err error)
	// Apply applies decoded changes. each has the errors of single changes, by index, or is
	// nil. rest is the error of all other changes.
	Apply(ctx context.Context, changes []any) (each []error, rest error)
	// OnDead receives each change that has become a dead letter, and the last error.
	OnDead(change any, reason error)
	// Class returns the lag of the replicas from which values are loaded, and the time for
	// which readers keep a value.
	Class() (replicaLag, ttl time.Duration)
	// Panicked returns the error of a call that panicked with value. A nil value stands for a
	// call that ended its goroutine.
	Panicked(value any, stack []byte) error
}

// Config is the configuration of a Pipeline, without defaults.
type Config struct {
	Queue  string // the name of the queue: one for each map
	Engine *coherence.Engine
	Target Target
	Logger *slog.Logger
	Closed error // the error of calls after Close
	// Bound returns a context for a call to the tier that must not end with ctx.
	Bound     func(ctx context.Context) (context.Context, context.CancelFunc)
	Committer CommitterConfig
	Worker    WorkerConfig
}

// CommitterConfig bounds the queue and the wait for it.
type CommitterConfig struct {
	MaxQueued int           // ids in the queue
	Wait      time.Duration // for room and for the tier
}

// WorkerConfig is the configuration of the workers.
type WorkerConfig struct {
	Workers         int // 0 or less: none
	Batch           int
	Interval        time.Duration
	ApplyTimeout    time.Duration
	Retry, MaxRetry time.Duration
	MaxAttempts     int
}

const (
	// callTimeout bounds a call to the tier for which no caller waits.
	callTimeout = time.Second
	// pollInterval is the interval at which a worker looks for changes that other instances
	// have queued, or that workers of stopped instances have left.
	pollInterval = time.Second
	// durabilityInterval is the interval at which a worker checks whether the tier may evict
	// queued changes.
	durabilityInterval = 30 * time.Second
)

// shared is the part of a Pipeline that its committer and its workers have in common.
type shared struct {
	Config
	ctx      context.Context // of applies; it ends with the context of Close
	stop     context.CancelFunc
	counters counters
}

// quota returns the maximum number of ids in the queue of one partition.
func (s *shared) quota() int {
	n := s.Engine.Partitions()
	if n == 1 {
		return s.Committer.MaxQueued
	}
	return max(1, s.Committer.MaxQueued*3/2/n)
}

// states returns the state of the queue in each partition.
func (s *shared) states(ctx context.Context) ([]tier.QueueState, error) {
	q, err := s.Engine.Queue()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	states, err := q.States(ctx, s.Queue)
	for _, st := range states {
		err = errors.Join(err, st.Err)
	}
	return states, err
}

func keyItem(key string) tier.Item { return tier.Item{Kind: tier.Key, Value: key} }

// tagItem returns the tag of the entries that are made of a key.
func tagItem(key string) tier.Item {
	return tier.Item{Kind: tier.Tag, Value: naming.Tag(key)}
}
