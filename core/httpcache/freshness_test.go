package httpcache

import (
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/loadscope"
	"github.com/larderhq/larder/core/internal/local"
)

// judgedClasses are the classes that responses are drawn for.
var judgedClasses = core.Classes{
	"":            {},
	"ttl":         {TTL: time.Minute},
	"windows":     {TTL: time.Minute, StaleWhileRevalidate: 30 * time.Second, StaleIfError: 2 * time.Minute, NegativeTTL: 10 * time.Second},
	"negative":    {NegativeTTL: 10 * time.Second, StaleIfError: time.Minute},
	"guess":       {HTTP: core.HTTPPolicy{NoHeuristic: true}},
	"cookies":     {TTL: time.Second, HTTP: core.HTTPPolicy{AllowSetCookie: true, Cookies: []string{}}},
	"anew":        {TTL: 10 * time.Second, StaleWhileRevalidate: 20 * time.Second, HTTP: core.HTTPPolicy{NoValidation: true}},
	"anew, guess": {HTTP: core.HTTPPolicy{NoValidation: true}},
	"deaf":        {TTL: time.Minute, HTTP: core.HTTPPolicy{RequestDirectives: []string{}}},
	"half deaf":   {HTTP: core.HTTPPolicy{RequestDirectives: []string{"max-age", "only-if-cached"}}},
	"other half":  {StaleWhileRevalidate: time.Minute, TTL: time.Hour, HTTP: core.HTTPPolicy{RequestDirectives: []string{"no-cache", "max-stale", "min-fresh"}}},
}

var judgedNames = slices.Sorted(maps.Keys(judgedClasses))

// judges are the routes by class, without and with an identity.
type judges map[string][2]*routeSnapshot

func newJudges(tb testing.TB) judges {
	cache, err := core.New(core.Options{Classes: judgedClasses})
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, cache.Close()) })
	all := judges{}
	for class := range judgedClasses {
		var pair [2]*routeSnapshot
		for i, identity := range []func(Exchange) (string, bool){nil, func(Exchange) (string, bool) { return "u", true }} {
			rt, err := NewRoute(Config{Cache: cache, Class: class, Identity: identity})
			require.NoError(tb, err)
			pair[i] = rt.snapshot()
		}
		all[class] = pair
	}
	return all
}

// check draws one response and some requests, and compares the route with the
// model.
func (all judges) check(tb testing.TB, d *dice) {
	tb.Helper()
	o, class := d.origin()
	rt := all[class][0]
	if o.identity {
		rt = all[class][1]
	}
	o.class, o.now = rt.class, time.Now()
	d.times(&o)
	h := d.render(&o)
	creds := credentials{}
	if !o.identity { // as Route.identify reads them
		creds = credentials{authorization: o.authorization, cookies: o.cookie && rt.class.HTTP.Cookies == nil}
	}
	said := loadscope.Said{TTL: max(0, o.saidTTL), TTLSet: o.saidTTL >= 0}

	want := o.judge()
	got := rt.decide(o.status, h, creds, said)
	require.Equal(tb, want.store, got.store, "stored (%s): %d %v, %+v", got.reason, o.status, h, o)
	if !got.store {
		return
	}

	r, _ := rt.newResponse(o.status, h, []byte("body"), &got, nil, time.Now())
	const came = int64(time.Hour) // on the engine's clock
	r.born = came - int64(o.delay)
	since := came
	if got.stated { // as loading.settle does
		since = r.born
	}
	en := &local.Entry{Value: r, Born: r.born, FreshUntil: since + int64(got.lifetime.Fresh)}
	en.StaleUntil = en.FreshUntil + int64(got.lifetime.Stale)
	en.KeepUntil = en.FreshUntil + int64(max(got.lifetime.Stale, got.lifetime.Fallback))
	require.Equal(tb, want.fresh, time.Duration(en.FreshUntil-came), "fresh for: %d %v", o.status, h)
	require.Equal(tb, want.mustValidate, r.validate, "to be validated: %v", h)
	require.GreaterOrEqual(tb, got.lifetime.Fallback, max(0, want.fallback), "kept for: %v", h)
	if want.validator { // section 4.3: however stale it was when it came
		require.GreaterOrEqual(tb, time.Duration(en.KeepUntil-since), keepForValidation, "kept to be validated: %v", h)
	}

	for range 4 {
		q := asked{class: rt.class}
		ex := d.asked(&q)
		t := d.later(&want, &q)
		now := came + int64(t)
		state := en.State(now)
		if state == local.Gone { // nothing to answer, whatever would be allowed
			require.False(tb, want.replacesError(t), "kept no longer than %v: %v", t, h)
			require.False(tb, want.answers(t, &asked{class: rt.class}), "kept no longer than %v: %v", t, h)
			continue
		}
		w := rt.requestDirectivesOf(ex)
		require.Equal(tb, want.answers(t, &q), w.allows(r, en, state, now), "answered %v later to %q %q: %d %v\n%+v",
			t, ex.header["Cache-Control"], ex.header["Pragma"], o.status, h, want)
		require.Equal(tb, want.replacesError(t), r.mayReplaceError(en, now), "in place of an error %v later: %d %v", t, o.status, h)
	}
	for _, name := range []string{"Set-Cookie", "X-A"} { // sections 5.2.2.4 and 5.2.2.7
		want := len(h.Values(name)) > 0 && !slices.Contains(o.strips(), name)
		require.Equal(tb, want, len(r.header().Values(name)) > 0, "%s is stored: %v", name, h)
	}
}

// The RFCs say which responses may be stored, how long they are fresh, and which requests
// they may be answered to.
func TestFreshnessIsThatOfTheRFCs(t *testing.T) {
	draws := 200_000
	if testing.Short() {
		draws = 20_000
	}
	all := newJudges(t)
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(300 * time.Millisecond) // no whole second
		for seed := range draws {
			all.check(t, &dice{rng: rand.New(rand.NewPCG(uint64(seed), 0))})
		}
	})
}

func FuzzFreshness(f *testing.F) {
	for seed := range byte(20) {
		rolls := make([]byte, 120)
		rng := rand.NewChaCha8([32]byte{seed})
		_, _ = rng.Read(rolls) // it never fails
		f.Add(rolls)
	}
	all := newJudges(f)
	f.Fuzz(func(t *testing.T, rolls []byte) {
		synctest.Test(t, func(t *testing.T) { all.check(t, &dice{rolls: rolls}) })
	})
}

// A zero time.Time is a plausible Expires of a Go handler. It is long over.
func TestAnExpiresBeforeAllTimesIsOver(t *testing.T) {
	rt := newJudges(t)[""][0]
	for _, expires := range []string{time.Time{}.Format(http.TimeFormat), "Mon, 01 Jan 1601 00:00:00 GMT"} {
		d := rt.decide(200, storedHeader{
			{Name: "Expires", Values: []string{expires}}, {Name: "Age", Values: []string{"1"}},
		}, credentials{}, loadscope.Said{})
		require.False(t, d.store, "%s: fresh for %v", expires, d.lifetime.Fresh)
	}
}
