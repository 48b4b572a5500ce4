package tiertest

import (
	"testing"
	"time"

	"github.com/larderhq/larder/core/internal/tier"
)

// Harness gives the suite access to a tier. Open is required.
type Harness struct {
	// Open opens another client of the server, as another process would. It fails
	// the test if it cannot. The suite closes the session.
	Open func(t testing.TB, layout tier.Layout) tier.Session

	// Evict removes something from the server, as an eviction does.
	Evict func(t testing.TB, what Stored)
	// Restart restarts the server with its data, or promotes a replica that has all
	// of it. It returns when the server answers again.
	Restart func(t testing.TB)
	// Flush removes everything from the server, in every namespace.
	Flush func(t testing.TB)
	// Migrate begins or ends the migration of a partition's slot.
	Migrate func(t testing.TB, layout tier.Layout, partition int, begin bool)

	// LogItems is about how many items a log holds. 0: the cases on trimming are
	// skipped.
	LogItems int
	// LayoutLapse is how long an instance's part of the layout holds without being
	// renewed. 0: the case on that is skipped. It is for tiers on virtual time.
	LayoutLapse time.Duration

	// Wait lets time pass, on the server as well. The default is time.Sleep.
	Wait func(d time.Duration)

	// Bubble runs a case, with a harness made for it: in a testing/synctest bubble
	// around a server of its own, for a tier that is in memory. Its harness may
	// differ in functions only; Bubble is not called again. The default runs it as
	// it is.
	Bubble func(t *testing.T, run func(t *testing.T, h Harness))
}

// Stored says what to evict.
type Stored struct {
	Kind      StoredKind
	Layout    tier.Layout // of the session that stored it, as agreed
	Partition int
	Name      string // the key or tag; "" for a head, a log, queues, or the layout
}

// StoredKind is a kind of thing that a tier stores.
type StoredKind uint8

// The kinds.
const (
	Entry StoredKind = iota + 1
	Lease
	Generation
	Intents // of a key or a tag
	Head
	Log
	Layout
	Queue // the records of all queues of a partition
)

// Run runs every case.
func Run(t *testing.T, h Harness) {
	for _, topic := range topics() {
		t.Run(topic.name, func(t *testing.T) {
			for _, c := range topic.cases {
				t.Run(c.name, func(t *testing.T) {
					if !c.alone {
						t.Parallel()
					}
					if c.needs != nil {
						if reason := c.needs(h); reason != "" {
							t.Skip(reason)
						}
					}
					if h.Bubble != nil {
						h.Bubble(t, func(t *testing.T, h Harness) { c.run(newStore(t, h)) })
						return
					}
					c.run(newStore(t, h))
				})
			}
		})
	}
}

type topic struct {
	name  string
	cases []testCase
}

func topics() []topic {
	return []topic{
		{"entries", entryCases()},
		{"leases", leaseCases()},
		{"together", togetherCases()},
		{"tags", tagCases()},
		{"intents", intentCases()},
		{"logs", logCases()},
		{"heads", headCases()},
		{"patterns", patternCases()},
		{"hints", hintCases()},
		{"layout", layoutCases()},
		{"queues", queueCases()},
		{"limits", limitCases()},
	}
}

// testCase is one promise.
type testCase struct {
	name  string
	run   func(s *store)
	needs func(h Harness) (missing string) // the reason to skip it, "" if there is none
	alone bool                             // it concerns the whole server
}

func needsEvict(h Harness) string {
	if h.Evict == nil {
		return "the harness cannot evict"
	}
	return ""
}

func needsRestart(h Harness) string {
	if h.Restart == nil {
		return "the harness cannot restart the server"
	}
	return ""
}

func needsFlush(h Harness) string {
	if h.Flush == nil {
		return "the harness cannot flush the server"
	}
	return ""
}

func needsMigrate(h Harness) string {
	if h.Migrate == nil {
		return "the harness cannot migrate a slot"
	}
	return ""
}

func needsLogItems(h Harness) string {
	if h.LogItems == 0 {
		return "the harness does not say how many items a log holds"
	}
	return ""
}

func needsLapse(h Harness) string {
	if h.LayoutLapse == 0 {
		return "the harness does not say when the layout lapses"
	}
	return ""
}
