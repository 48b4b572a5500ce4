package main

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestMain lets the tests start instances of this program.
func TestMain(m *testing.M) {
	if settings := os.Getenv(childVariable); settings != "" {
		if err := instance(settings); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// quick makes a run too short to measure anything.
func quick(t *testing.T, args ...string) config {
	t.Helper()
	cfg, err := parse(append([]string{"-rounds", "3", "-slice", "100µs"}, args...), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// The differences are known. A release of a cache that changes one fails here.
func TestAnswersOfCachesDifferAsKnown(t *testing.T) {
	const adds = "adds `Age`, `Cache-Status`, `Date`, `Etag`"
	known := map[string]string{
		"net/http/Larder":                    adds,
		"net/http/go-chi/stampede":           "the query is ignored; `Vary` is ignored; a client gets another's `Set-Cookie`",
		"net/http/victorspringer/http-cache": "203 becomes 200; a repeated field is cut or joined; `Vary` is ignored; a client gets another's `Set-Cookie`",
		"Gin/Larder":                         adds,
		"Gin/gin-contrib/cache":              "a repeated field is cut or joined; `Vary` is ignored; a client gets another's `Set-Cookie`",
		"Gin/chenyahui/gin-cache":            "a repeated field is cut or joined; `Vary` is ignored; a client gets another's `Set-Cookie`",
		"Echo/Larder":                        adds,
		"Fiber v2/Larder":                    "adds `Accept-Ranges`, `Age`, `Cache-Status`, `Date`, `Etag`",
		"Fiber v2/Fiber v2's own":            "adds `X-Cache`; a repeated field is cut or joined; the query is ignored; `Vary` is ignored; a client gets another's `Set-Cookie`",
		"Fiber v3/Fiber v3's own":            "adds `Age`, `X-Cache`; a repeated field is cut or joined; the query is ignored; a client gets another's `Set-Cookie`",
	}
	seen := 0
	for _, f := range frameworks() {
		list, done, err := contenders(f, sizes[0], true)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range list {
			if c.name == same || c.name == bare {
				continue
			}
			seen++
			if want, ok := known[f.name+"/"+c.name]; !ok || c.differs != want {
				t.Errorf("%s, %s: %q, not %q", f.name, c.name, c.differs, want)
			}
		}
		if err := done(); err != nil {
			t.Error(err)
		}
	}
	if seen != len(known) {
		t.Errorf("%d caches, not %d", seen, len(known))
	}
}

// Only Larder's number is demanded: that of others may depend on the order of events.
func TestOneRunAnswersConcurrentRequests(t *testing.T) {
	for _, f := range frameworks() {
		list, done, err := contenders(f, sizes[0], true)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range list {
			if runs := c.herd(); runs < 1 || runs > herdSize || c.name == ours && runs != 1 {
				t.Errorf("%s: %d runs", c.name, runs)
			}
		}
		if err := done(); err != nil {
			t.Error(err)
		}
	}
}

func TestSameWritesLardersHit(t *testing.T) {
	for _, f := range frameworks() {
		if f.larder == nil {
			continue
		}
		for _, size := range sizes {
			t.Run(fmt.Sprintf("%s, %d bytes", f.name, size), func(t *testing.T) {
				list, done, err := contenders(f, size, false)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = done() }()
				hit, bare := list[0].app.get(pageTarget), list[1].app.get(pageTarget)
				if d := changed(bare, hit); list[1].name != same || d != nil && !onlyTheAge(d) {
					t.Errorf("%s differs: %q", list[1].name, d)
				}
			})
		}
	}
}

// onlyTheAge reports whether two answers differ only in fields that change with the time.
func onlyTheAge(differences []string) bool {
	for _, d := range differences {
		if d != "another `Age`" && d != "another `Cache-Status`" {
			return false
		}
	}
	return true
}

func TestARunWritesEveryContender(t *testing.T) {
	dir := t.TempDir()
	var out strings.Builder
	if err := run(quick(t, "-peers", "-quick", "-write", dir, "-only", "hits,values"), &out); err != nil {
		t.Fatal(err)
	}
	written, err := os.ReadFile(filepath.Join(dir, "PEERS.md"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(string(written), out.String()) {
		t.Error("PEERS.md does not end with the tables that were printed")
	}
	for _, name := range []string{
		"go-chi/stampede v", "victorspringer/http-cache ", "gin-contrib/cache v", "chenyahui/gin-cache v", "Fiber v2's own v", "Fiber v3's own v",
		"otter v", "sturdyc v", "go-redis/cache v", "eko/gocache v", "**Larder**", "`same`", "`bare`",
	} {
		if !strings.Contains(out.String(), "\n| "+name) {
			t.Errorf("no row begins with %q:\n%s", name, out.String())
		}
	}
	plot, err := os.ReadFile(filepath.Join(dir, "peers.svg"))
	if err != nil {
		t.Fatal(err)
	}
	for d := xml.NewDecoder(strings.NewReader(string(plot))); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// A test judges no times; allocations do not depend on the machine.
func TestTheGateMeasuresEachAdapter(t *testing.T) {
	var out strings.Builder
	if err := gate(quick(t), &out); errors.Is(err, errAllocs) || err != nil && !errors.Is(err, errSlow) {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "allocations\n"); n != 6 {
		t.Errorf("%d lines, not 6:\n%s", n, out.String())
	}
	if err := checkAllocs("Gin", maxAllocs()["Gin"]+1); !errors.Is(err, errAllocs) {
		t.Errorf("one allocation more: %v", err)
	}
}

func TestErrorsOfWrongFlagsNameThem(t *testing.T) {
	for _, args := range [][]string{
		{"-rounds", "2"}, {"-rounds", "1002"}, {"-slice", "1ns"}, {"-slice", "2s"}, {"-only", "hit"}, {"peers"}, {"-rounds", "x"},
	} {
		_, err := parse(args, io.Discard)
		if err == nil || !strings.Contains(err.Error(), args[len(args)-1]) {
			t.Errorf("%q: %v", args, err)
		}
	}
}

func TestATimerCountsItsHits(t *testing.T) {
	for workers := 1; workers <= 2; workers++ {
		var n atomic.Int64
		timed := newTimer(func() func() { return func() { n.Add(1) } }, workers, time.Millisecond)
		n.Store(0)
		if ns := timed.run(); n.Load() != int64(timed.n*workers) || ns < 0 {
			t.Errorf("%d workers: %d hits of %.0f ns, not %d each", workers, n.Load(), ns, timed.n)
		}
	}
}

// A group of all frameworks over sockets takes too long here.
func TestEachGroupWritesItsTables(t *testing.T) {
	cfg := quick(t, "-quick")
	rows := map[string][]string{
		"redis":    {"miss, **Larder**", "hit, go-redis/cache", "`PUBLISH`", "miss, GET and SET"},
		"purge":    {"1 in process", "10000 over Redis"},
		"stampede": {"**Larder** | 1 |", "**Larder**, a route of net/http | 1 |", "**Larder**, 4 processes | 1 |"},
		"memory":   {"page, **Larder**", "value, otter v", "otter v2.4.0 by heap"},
		"growth":   {"1 |", "2 |"},
	}
	for _, g := range groups() {
		want, ok := rows[g.name]
		if !ok {
			continue
		}
		list, err := g.measure(cfg)
		if err != nil {
			t.Errorf("%s: %v", g.name, err)
		}
		var text strings.Builder
		for _, s := range list {
			text.WriteString(s.markdown())
		}
		for _, row := range want {
			if !strings.Contains(text.String(), "\n| "+row) {
				t.Errorf("%s: no row begins with %q:\n%s", g.name, row, text.String())
			}
		}
	}
}

func TestZipfDrawsSmallNumbersMoreOften(t *testing.T) {
	random, counts := newZipf(100, 0.9).from(1), make([]int, 100)
	for range 10_000 {
		counts[random()]++
	}
	if counts[0] < 2*counts[9] || counts[99] == 0 {
		t.Errorf("0: %d, 9: %d, 99: %d", counts[0], counts[9], counts[99])
	}
}

func TestAMissingProgramIsNamedWithItsPackage(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	cfg := quick(t, "-only", "redis,sockets")
	text, err := measureGroups(cfg)
	if !errors.Is(err, errMissing) {
		t.Fatal(err)
	}
	for _, want := range []string{"apt-get install redis-server", "apt-get install wrk"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in:\n%s", want, text)
		}
	}
}
