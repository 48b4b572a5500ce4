package core_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/tier"
)

// refusing is a tier whose servers refuse some calls.
type refusing struct {
	tier.Tier
	calls atomic.Pointer[map[string]error]
}

func (r *refusing) refuse(calls map[string]error) { r.calls.Store(&calls) }

func (r *refusing) err(call string) error {
	if calls := r.calls.Load(); calls != nil {
		return (*calls)[call]
	}
	return nil
}

func (r *refusing) Open(ctx context.Context, want tier.Layout) (tier.Session, error) {
	ses, err := r.Tier.Open(ctx, want)
	if err != nil {
		return nil, err
	}
	return &refusingSession{ses, r}, nil
}

type refusingSession struct {
	tier.Session
	of *refusing
}

func (s *refusingSession) NewEra(ctx context.Context, partition int, was string, always bool) error {
	if err := s.of.err("NewEra"); err != nil {
		return err
	}
	return s.Session.NewEra(ctx, partition, was, always)
}

func (s *refusingSession) Log(ctx context.Context, partition int, after tier.Position) (tier.Log, error) {
	if err := s.of.err("Log"); err != nil {
		return tier.Log{}, err
	}
	return s.Session.Log(ctx, partition, after)
}

func (s *refusingSession) Heads(ctx context.Context) ([]tier.Head, error) {
	if err := s.of.err("Heads"); err != nil {
		return nil, err
	}
	return s.Session.Heads(ctx)
}

func (s *refusingSession) Hints(ctx context.Context, ready func(), fn func(tier.Hint)) error {
	if err := s.of.err("Hints"); err != nil {
		return err
	}
	return s.Session.Hints(ctx, ready, fn)
}

func (s *refusingSession) Scan(ctx context.Context, scan tier.Scan) (tier.Scanned, error) {
	if err := s.of.err("Scan"); err != nil {
		return tier.Scanned{}, err
	}
	return s.Session.Scan(ctx, scan)
}

// lines is a log in memory.
type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

func refusal(kind string, permanent bool) error {
	return &tier.RefusalError{Kind: kind, Permanent: permanent, Err: errors.New("-" + kind + " said the server")}
}

// over makes an instance over the tier, with its log.
func (r *refusing) over(f *fleet, change ...func(*core.Options)) (core.Options, *lines) {
	log := new(lines)
	r.Tier = f.server.Tier("a")
	o := core.Options{
		Remote: r, MaxStaleness: time.Second, Logger: slog.New(slog.NewTextHandler(log, nil)),
		Classes: core.Classes{"c": {TTL: time.Hour, LoadTimeout: 10 * time.Second}},
	}
	for _, c := range change {
		c(&o)
	}
	return o, log
}

func required(o *core.Options) { o.RequireRemote = true }

func TestNewFailsWhenARequiredTierRefusesEras(t *testing.T) {
	for name, err := range map[string]error{
		"for good": refusal("NOPERM", true), "for now": refusal("MISCONF", false), "without an answer": errors.New("i/o timeout"),
	} {
		t.Run(name, func(t *testing.T) {
			share(t, func(t *testing.T, f *fleet) {
				var r refusing
				r.refuse(map[string]error{"NewEra": err})
				o, _ := r.over(f, required)
				_, got := core.New(o)
				require.ErrorIs(t, got, err)
				require.Equal(t, name == "for good", errors.Is(got, core.ErrUnusable))
			})
		})
	}
}

func TestNewFailsAtAPermanentRefusal(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		var r refusing
		r.refuse(map[string]error{"NewEra": refusal("NOPERM", true)})
		o, _ := r.over(f)
		_, err := core.New(o)
		require.ErrorIs(t, err, core.ErrUnusable)
	})
}

func TestRefusedErasAreLoggedOnceAndCounted(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		var r refusing
		r.refuse(map[string]error{"NewEra": errors.New("no era")})
		o, log := r.over(f)
		c, err := core.New(o)
		require.NoError(t, err)
		defer c.Close()
		time.Sleep(time.Minute)
		require.Equal(t, 1, log.count("no era"))
		require.Greater(t, c.Stats().RemoteErrors, int64(10))

		r.refuse(nil)
		time.Sleep(5 * time.Second)
		require.Equal(t, 1, log.count("answers again"))
	})
}

func TestEachKindOfFailureOfAnOutageIsLoggedOnce(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		var r refusing
		o, log := r.over(f)
		c, err := core.New(o)
		require.NoError(t, err)
		defer c.Close()
		kinds := []string{
			"NOAUTH", "WRONGPASS", "NOPERM", "MISCONF", "READONLY", "OOM", "LOADING", "CLUSTERDOWN", "WRONGTYPE", "unknown command",
		}
		r.refuse(map[string]error{"Heads": errors.New("connection refused")})
		time.Sleep(5 * time.Second)
		for range 3 {
			for _, kind := range kinds {
				r.refuse(map[string]error{"Heads": refusal(kind, true)})
				time.Sleep(5 * time.Second)
			}
		}
		require.Equal(t, 1, log.count("connection refused"))
		for _, kind := range kinds {
			require.Equal(t, 1, log.count("-"+kind+" said the server"), kind)
		}
		r.refuse(nil)
		time.Sleep(5 * time.Second)
		r.refuse(map[string]error{"Heads": refusal("WRONGPASS", true)})
		time.Sleep(15 * time.Second) // an instance without requests asks every ten seconds
		require.Equal(t, 2, log.count("-WRONGPASS said the server"), "another outage")
	})
}

func TestARefusedLogIsLoggedOnce(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		var r refusing
		o, log := r.over(f)
		c, err := core.New(o)
		require.NoError(t, err)
		defer c.Close()
		other := f.instance("b")
		r.refuse(map[string]error{"Log": refusal("NOPERM", true), "Hints": errors.New("cut")})
		f.server.CutHints()
		require.NoError(t, other.cache.Invalidate(t.Context(), core.Tag("x")))
		time.Sleep(10 * time.Second)
		require.Equal(t, 1, log.count("-NOPERM said the server"))
	})
}

func TestRefusedHintsAreLoggedOnce(t *testing.T) {
	for name, err := range map[string]error{"refused": refusal("NOPERM", true), "cut": errors.New("EOF from a proxy")} {
		t.Run(name, func(t *testing.T) {
			share(t, func(t *testing.T, f *fleet) {
				var r refusing
				r.refuse(map[string]error{"Hints": err})
				o, log := r.over(f)
				c, newErr := core.New(o)
				require.NoError(t, newErr)
				defer c.Close()
				time.Sleep(5 * time.Minute)
				require.Equal(t, 1, log.count(err.Error()))
			})
		})
	}
}

func TestAPatternInvalidatesEverythingWhereScansAreRefused(t *testing.T) {
	share(t, func(t *testing.T, f *fleet) {
		var r refusing
		o, _ := r.over(f)
		c, err := core.New(o)
		require.NoError(t, err)
		defer c.Close()
		other := f.instance("b")
		f.data.Store(1)
		require.EqualValues(t, 1, other.get(7))
		f.data.Store(2)
		r.refuse(map[string]error{"Scan": refusal("unknown command", true)})
		require.NoError(t, c.Invalidate(t.Context(), core.Pattern("item:7")))
		time.Sleep(2 * time.Second)
		require.EqualValues(t, 2, other.get(7))
	})
}
