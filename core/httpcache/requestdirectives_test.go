package httpcache

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/local"
)

func directivesRoute(t *testing.T, honoured []string) *routeSnapshot {
	cache, err := core.New(core.Options{Classes: core.Classes{"": {HTTP: core.HTTPPolicy{RequestDirectives: honoured}}}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cache.Close()) })
	rt, err := NewRoute(Config{Cache: cache})
	require.NoError(t, err)
	return rt.snapshot()
}

// The response of these tests came 10 s old, is fresh for 90 s more, is answered
// stale for 30 s after that, and is kept for 1000 s.
func wished(at time.Duration) (*response, *local.Entry, local.State, int64) {
	const came = int64(5 * time.Second)
	r := &response{status: http.StatusOK, validators: validators{initialAge: 10, born: came}}
	en := &local.Entry{
		Value: r, Born: came, FreshUntil: came + int64(90*time.Second), StaleUntil: came + int64(120*time.Second), KeepUntil: came + int64(1000*time.Second),
	}
	now := came + int64(at)
	return r, en, en.State(now), now
}

func TestRequestDirectivesSelectStoredResponses(t *testing.T) {
	const s = time.Second
	for _, tt := range []struct {
		name, control string
		at            time.Duration
		want          bool
	}{
		{"nothing said: fresh", "", 89 * s, true},
		{"nothing said: in the response's own stale window", "", 119 * s, true},
		{"nothing said: after it", "", 120 * s, false},

		{"max-age, section 5.2.1.1: as old as that", "max-age=30", 20 * s, true},
		{"max-age: older", "max-age=30", 20*s + 1, false},
		{"max-age: it was older when it came", "max-age=9", 0, false},
		{"max-age=0: it came old", "max-age=0", 0, false},
		{"max-age: younger, but stale", "max-age=1000", 91 * s, false},
		{"max-age: stale at this very moment", "max-age=1000", 90 * s, false},
		{"max-age: malformed is 0", "max-age=1x", 0, false},
		{"max-age: quoted", `max-age="30"`, 20 * s, true},
		{"max-age: the smallest counts", "max-age=1000, max-age=30", 21 * s, false},
		{"max-age: too large for anything", "max-age=99999999999999999999", 89 * s, true},

		{"max-stale, section 5.2.1.2: fresh", "max-stale=5", 50 * s, true},
		{"max-stale: however stale", "max-stale", 999 * s, true},
		{"max-stale: as stale as that", "max-stale=200", 290 * s, true},
		{"max-stale: staler", "max-stale=200", 290*s + 1, false},
		{"max-stale: with and without a number, the number counts", "max-stale, max-stale=200", 291 * s, false},
		{"max-stale: malformed is 0", "max-stale=x", 121 * s, false},
		{"max-stale: gone is gone", "max-stale", 1000 * s, false},

		{"min-fresh, section 5.2.1.3: for as long as that", "min-fresh=20", 70 * s, true},
		{"min-fresh: not so long", "min-fresh=20", 70*s + 1, false},
		{"min-fresh: longer than it ever was", "min-fresh=91", 0, false},
		{"min-fresh=0: fresh", "min-fresh=0", 89 * s, true},
		{"min-fresh=0: stale is not fresh, window or not", "min-fresh=0", 91 * s, false},
		{"min-fresh=0: stale at this very moment", "min-fresh=0", 90 * s, false},
		{"min-fresh: the largest counts", "min-fresh=1, min-fresh=20", 71 * s, false},

		{"no-cache, section 5.2.1.4", "no-cache", 0, false},
		{"no-cache: in capitals", "NO-CACHE", 0, false},
		{"no-cache: with an argument that names nothing", `no-cache=""`, 0, false},
		{"no-cache: whatever else is wanted", "no-cache, max-stale, only-if-cached", 0, false},
		{"no-transform, section 5.2.1.6", "no-transform", 119 * s, true},

		{"only-if-cached, section 5.2.1.7: fresh", "only-if-cached", 89 * s, true},
		{"only-if-cached: stale, in the response's own window", "only-if-cached", 91 * s, true},
		{"only-if-cached: after it", "only-if-cached", 121 * s, false},
		{"only-if-cached: with an argument is none", "only-if-cached=1", 119 * s, true},
		{"only-if-cached and max-stale", "only-if-cached, max-stale", 121 * s, true},
		{"only-if-cached and max-age", "only-if-cached, max-age=30", 21 * s, false},

		{"max-age and max-stale: stale, and no older", "max-age=1000, max-stale=20", 110 * s, true},
		{"max-age and max-stale: too stale", "max-age=1000, max-stale=20", 111 * s, false},
		{"max-age and max-stale: beyond max-age by as much", "max-age=30, max-stale=5", 25 * s, true},
		{"max-age and max-stale: and no more", "max-age=30, max-stale=5", 26 * s, false},
		{"max-age=0 and max-stale", "max-age=0, max-stale", 999 * s, true},
		{"max-age and min-fresh: both hold", "max-age=40, min-fresh=20", 30 * s, true},
		{"max-age and min-fresh: too old", "max-age=40, min-fresh=20", 31 * s, false},
		{"max-age and min-fresh: not long enough", "max-age=90, min-fresh=20", 71 * s, false},
		{"min-fresh and max-stale: the stricter one counts", "min-fresh=10, max-stale", 81 * s, false},
		{"all three", "max-age=50, max-stale=30, min-fresh=20", 70 * s, true},
		{"all three: not long enough", "max-age=50, max-stale=30, min-fresh=21", 70 * s, false},
		{"what is unknown", "foo, max-fresh=3", 119 * s, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ex := &request{header: http.Header{}}
			if tt.control != "" {
				ex.header["Cache-Control"] = []string{tt.control}
			}
			r, en, state, now := wished(tt.at)
			w := directivesRoute(t, nil).requestDirectivesOf(ex)
			got := state != local.Gone && w.allows(r, en, state, now)
			require.Equal(t, tt.want, got)
		})
	}
}

// Section 4.2.4: a response that must not be answered stale is not, whatever the request says.
func TestNoDirectiveAllowsAStaleResponseThatForbidsIt(t *testing.T) {
	rt := directivesRoute(t, nil)
	for _, control := range []string{"max-stale", "max-stale=1000", "max-age=1000, max-stale", "only-if-cached, max-stale", "only-if-cached", "min-fresh=0", "foo"} {
		ex := &request{header: http.Header{"Cache-Control": {control}}}
		w := rt.requestDirectivesOf(ex)
		for _, at := range []time.Duration{90 * time.Second, 90*time.Second + 1, 200 * time.Second} {
			r, en, _, now := wished(at)
			r.strict, en.StaleUntil = true, en.FreshUntil // as Route.lifetime makes them
			require.False(t, w.allows(r, en, en.State(now), now), "%s after %v", control, at)
		}
		r, en, state, now := wished(89 * time.Second)
		r.strict = true
		require.True(t, w.allows(r, en, state, now), "%s: it is fresh", control)
	}
}

// Sections 4 and 5.2.2.4.
func TestNoDirectiveAllowsAResponseThatNeedsValidation(t *testing.T) {
	rt := directivesRoute(t, nil)
	for _, control := range []string{"", "max-stale", "max-age=1000", "only-if-cached", "min-fresh=0"} {
		ex := &request{header: http.Header{}}
		if control != "" {
			ex.header["Cache-Control"] = []string{control}
		}
		w := rt.requestDirectivesOf(ex)
		r, en, state, now := wished(0)
		r.validate, r.strict = true, true
		require.False(t, w.allows(r, en, state, now), control)
	}
}

// Section 5.4: Pragma counts where there is no Cache-Control.
func TestPragmaOfARequest(t *testing.T) {
	rt := directivesRoute(t, nil)
	for _, tt := range []struct {
		pragma, control []string
		want            bool
	}{
		{[]string{"no-cache"}, nil, false},
		{[]string{"a", "b, No-Cache"}, nil, false},
		{[]string{"no-cache=1"}, nil, true},
		{[]string{"no-cache"}, []string{"max-age=1000"}, true},
		{[]string{"no-cache"}, []string{""}, true},
		{[]string{"foo"}, nil, true},
	} {
		ex := &request{header: http.Header{}}
		ex.header["Pragma"] = tt.pragma
		if tt.control != nil {
			ex.header["Cache-Control"] = tt.control
		}
		r, en, state, now := wished(0)
		w := rt.requestDirectivesOf(ex)
		require.Equal(t, tt.want, w.allows(r, en, state, now), "%q %q", tt.pragma, tt.control)
	}
}

// A directive that the class does not list is not there, also not for what it
// would do to another one.
func TestAClassListsTheRequestDirectivesThatCount(t *testing.T) {
	const s = time.Second
	for _, tt := range []struct {
		honoured []string
		header   http.Header
		at       time.Duration
		want     bool
	}{
		{[]string{}, http.Header{"Cache-Control": {"no-cache, max-age=0, min-fresh=1000"}}, 0, true},
		{[]string{}, http.Header{"Pragma": {"no-cache"}}, 0, true},
		{[]string{}, http.Header{"Cache-Control": {"max-stale"}}, 121 * s, false},
		{[]string{"max-age"}, http.Header{"Pragma": {"no-cache"}}, 0, true},
		{[]string{"max-age"}, http.Header{"Cache-Control": {"no-cache, max-age=50"}}, 0, true},
		{[]string{"max-age"}, http.Header{"Cache-Control": {"max-age=30, max-stale"}}, 25 * s, false},
		{[]string{"max-stale"}, http.Header{"Cache-Control": {"max-age=30, max-stale"}}, 200 * s, true},
		{[]string{"max-stale"}, http.Header{"Cache-Control": {"max-age=30"}}, 119 * s, true},
		{[]string{"min-fresh"}, http.Header{"Cache-Control": {"min-fresh=20, no-cache"}}, 0, true},
		{[]string{"min-fresh"}, http.Header{"Cache-Control": {"min-fresh=20, max-age=0"}}, 71 * s, false},
		{[]string{"no-cache"}, http.Header{"Pragma": {"no-cache"}}, 0, false},
	} {
		r, en, state, now := wished(tt.at)
		w := directivesRoute(t, tt.honoured).requestDirectivesOf(&request{header: tt.header})
		require.Equal(t, tt.want, w.allows(r, en, state, now), "%q of %v", tt.honoured, tt.header)
	}
}

// A request that no stored response can satisfy causes no second lookup before the handler
// runs.
func TestDirectivesThatNoStoredResponseSatisfies(t *testing.T) {
	rt := directivesRoute(t, nil)
	for control, want := range map[string]bool{
		"no-cache": true, "max-age=0": true, "max-age=x": true, "no-cache, max-stale": true,
		"max-age=1": false, "max-age=0, max-stale": false, "max-age=0, max-stale=0": false, "min-fresh=5": false, "max-stale": false, "only-if-cached": false,
	} {
		w := rt.requestDirectivesOf(&request{header: http.Header{"Cache-Control": {control}}})
		require.Equal(t, want, w.demandsNew(), control)
	}
	both := &request{header: http.Header{"Cache-Control": {"no-store, only-if-cached"}}}
	w := rt.requestDirectivesOf(both)
	require.Equal(t, requestDirectives{noStore: true}, w, "only-if-cached is for a class that names it, and no-store takes anything")
	w = directivesRoute(t, []string{"no-store", "only-if-cached"}).requestDirectivesOf(both)
	require.Equal(t, requestDirectives{restricts: true, noStore: true, onlyIfCached: true}, w)
}
