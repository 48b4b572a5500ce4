package simulate_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/larderhq/larder/core"
)

// row is a row of the database, with the versions that its readers are owed.
type row struct {
	version   atomic.Int64
	kind      kind
	k         int     // its id
	index     int     // among those of the history
	of        *row    // the row whose versions it has: itself, or that of which it is a page
	table     *stored // later: the row of the database
	page      *row    // nil: none
	tablePage *row
	order     chan struct{} // a lock: writers of rows that are put hold it, as a transaction would

	mu        sync.Mutex
	committed []time.Duration // when each version was
	owed      []debt          // in the order of return
	events    [160]event
	next      int
}

// debt is an invalidation that has returned. Reads that begin later must see the version: on
// the instance by at once, on others after their MaxStaleness.
type debt struct {
	version    int64
	from, to   time.Duration // the call
	by         int           // -1: no instance has it at once
	everywhere bool
	void       bool // lost by a failover
	soft       bool // only while the tier answers, which knows the queued changes
	only       bool // it is pending: only the instance itself owes it
	how        string
}

func (d *debt) String() string {
	s := fmt.Sprintf("%s on instance %d, begun %v, returned %v", d.how, d.by, d.from, d.to)
	if d.by < 0 {
		s += " (due again since a failover, or since a deadline)"
	}
	return s
}

// event is an event of a row.
type event struct {
	at   time.Duration
	who  int
	what string
	n    int64
}

func (r *row) note(at time.Duration, who int, what string, n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.noteLocked(at, who, what, n)
}

func (r *row) noteLocked(at time.Duration, who int, what string, n int64) {
	r.events[r.next%len(r.events)] = event{at, who, what, n}
	r.next++
}

func (r *row) timeline(more []event) string {
	r.mu.Lock()
	list := slices.Clone(r.events[:min(r.next, len(r.events))])
	r.mu.Unlock()
	list = append(list, more...)
	slices.SortStableFunc(list, func(a, b event) int { return int(a.at - b.at) })
	var b strings.Builder
	for _, e := range list[max(0, len(list)-140):] {
		fmt.Fprintf(&b, "  %12v  instance %2d  %s", e.at, e.who, e.what)
		if e.n >= 0 {
			fmt.Fprintf(&b, " %d", e.n)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func (r *row) commit(at time.Duration, who int) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	v := r.version.Add(1)
	r.committed = append(r.committed, at)
	r.noteLocked(at, who, "commits version", v)
	return v
}

// as returns the version of a lagging replica, as of a time.
func (r *row) as(of time.Duration) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, _ := slices.BinarySearch(r.committed, of+1)
	return int64(n)
}

// absent reports whether the row does not exist in a version.
func absent(version int64) bool { return version%13 == 12 }

func anyAbsent(from, to int64) bool {
	for v := from; v <= to && v < from+13; v++ {
		if absent(v) {
			return true
		}
	}
	return false
}

var errDatabase = errors.New("the database says no")

// value is the cached value of a row.
type value struct {
	version int64
	size    int
}

// A value of Write is made before the database knows its version: it holds a token that
// stands for the version.
var (
	tokens    sync.Map
	lastToken atomic.Int64
)

const firstToken = 1 << 62

func newToken() (token int64, version *atomic.Int64) {
	token, version = firstToken+lastToken.Add(1), new(atomic.Int64)
	tokens.Store(token, version)
	return token, version
}

// resolved returns the version that a value holds, or its token stands for.
func resolved(version int64) int64 {
	if v, ok := tokens.Load(version); ok {
		return v.(*atomic.Int64).Load()
	}
	return version
}

// codec encodes a value in as many bytes as the value states.
type codec struct{}

func (codec) Marshal(v any) ([]byte, error) {
	val, ok := v.(value)
	if !ok {
		return nil, fmt.Errorf("not a value: %T", v)
	}
	b := make([]byte, 8+val.size)
	binary.BigEndian.PutUint64(b, uint64(val.version))
	return b, nil
}

func (codec) Unmarshal(b []byte, to any) error {
	p, ok := to.(*value)
	if !ok || len(b) < 8 {
		return fmt.Errorf("not a value: %T of %d bytes", to, len(b))
	}
	*p = value{resolved(int64(binary.BigEndian.Uint64(b))), len(b) - 8}
	return nil
}

var _ core.Codec = codec{}

const groups = 4

func groupTag(k int) string { return fmt.Sprint("group:", k%groups) }
func rowKey(k int) string   { return fmt.Sprint("row:", k) }
func rowPath(k int) string  { return fmt.Sprint("/rows/", k) }

// Values of rows with isPut are stored by Put, in the order of the database. Rows with
// isWritten are written by Write, concurrently. Neither have a path.
func isPut(k int) bool     { return k%4 == 3 }
func isWritten(k int) bool { return k%4 == 1 }
func hasPath(k int) bool   { return !isPut(k) && !isWritten(k) }
