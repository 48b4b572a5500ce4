package core_test

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
)

// refused demands a *ConfigError that names field, value and what is allowed.
func refused(t *testing.T, err error, field string, value any) {
	t.Helper()
	var bad *core.ConfigError
	require.ErrorAs(t, err, &bad)
	require.Equal(t, field, bad.Field)
	if f, ok := value.(float64); ok && math.IsNaN(f) {
		require.True(t, math.IsNaN(bad.Value.(float64)))
	} else {
		require.Equal(t, value, bad.Value)
	}
	require.NotEmpty(t, bad.Allowed)
	require.Contains(t, bad.Error(), bad.Field)
	require.Contains(t, bad.Error(), fmt.Sprintf("%#v", bad.Value))
	require.Contains(t, bad.Error(), bad.Allowed)
	require.True(t, strings.HasPrefix(bad.Error(), "larder: "))
}

func TestNewRefusesBadOptionsByFieldValueAndRange(t *testing.T) {
	type (
		o = core.Options
		c = core.Class
	)
	class := func(class c) o { return o{Classes: core.Classes{"x": class}} }
	policy := func(p core.HTTPPolicy) o { return class(c{HTTP: p}) }
	const year = 365 * 24 * time.Hour
	long := strings.Repeat("x", core.MaxKeyBytes+1)
	tests := []struct {
		name    string
		options o
		field   string
		value   any
	}{
		{"negative budget", o{RemoteBudget: -1}, "Options.RemoteBudget", "-1ns"},
		{"budget under a millisecond", o{RemoteBudget: time.Millisecond - 1}, "Options.RemoteBudget", "999.999µs"},
		{"absurd staleness", o{MaxStaleness: year + 1}, "Options.MaxStaleness", (year + 1).String()},
		{"staleness too short", o{MaxStaleness: 99 * time.Millisecond}, "Options.MaxStaleness", "99ms"},
		{"negative write timeout", o{WriteTimeout: -time.Hour}, "Options.WriteTimeout", "-1h0m0s"},
		{"absurd close timeout", o{CloseTimeout: math.MaxInt64}, "Options.CloseTimeout", time.Duration(math.MaxInt64).String()},
		{"negative size", o{MaxBytes: -1}, "Options.MaxBytes", int64(-1)},
		{"tiny size", o{MaxBytes: 65535}, "Options.MaxBytes", int64(65535)},
		{"negative refreshes", o{MaxRefreshes: -1}, "Options.MaxRefreshes", -1},
		{"absurd refreshes", o{MaxRefreshes: 65537}, "Options.MaxRefreshes", 65537},
		{"brace in namespace", o{Namespace: "a{b"}, "Options.Namespace", "a{b"},
		{"closing brace in namespace", o{Namespace: "a}b"}, "Options.Namespace", "a}b"},
		{"control character in namespace", o{Namespace: "a\nb"}, "Options.Namespace", "a\nb"},
		{"long namespace", o{Namespace: long}, "Options.Namespace", long[:32] + "…"},
		{"brace in version", o{Version: "{1}"}, "Options.Version", "{1}"},
		{"control character in version", o{Version: "\x7f"}, "Options.Version", "\x7f"},

		{"negative TTL", class(c{TTL: -time.Second}), `Classes["x"].TTL`, "-1s"},
		{"TTL under a millisecond", class(c{TTL: 1}), `Classes["x"].TTL`, "1ns"},
		{"absurd TTL", class(c{TTL: year + time.Second}), `Classes["x"].TTL`, "8760h0m1s"},
		{"negative stale window", class(c{TTL: hour, StaleWhileRevalidate: -1}), `Classes["x"].StaleWhileRevalidate`, "-1ns"},
		{"stale window under a millisecond", class(c{TTL: hour, StaleWhileRevalidate: 500}), `Classes["x"].StaleWhileRevalidate`, "500ns"},
		{"stale window without TTL", class(c{StaleWhileRevalidate: minute}), `Classes["x"].StaleWhileRevalidate`, "1m0s"},
		{"unknown request directive", class(c{HTTP: core.HTTPPolicy{RequestDirectives: []string{"no-cache", "immutable"}}}), `Classes["x"].HTTP.RequestDirectives[1]`, "immutable"},
		{"encoding twice", class(c{HTTP: core.HTTPPolicy{Encodings: []string{"gzip", "gzip"}}}), `Classes["x"].HTTP.Encodings[1]`, "gzip"},
		{"unknown encoding", class(c{HTTP: core.HTTPPolicy{Encodings: []string{"br"}}}), `Classes["x"].HTTP.Encodings[0]`, "br"},
		{"negative error window", class(c{TTL: hour, StaleIfError: -1}), `Classes["x"].StaleIfError`, "-1ns"},
		{"absurd negative TTL", class(c{NegativeTTL: year * 2}), `Classes["x"].NegativeTTL`, (year * 2).String()},
		{"negative load timeout", class(c{LoadTimeout: -1}), `Classes["x"].LoadTimeout`, "-1ns"},
		{"load timeout under a millisecond", class(c{LoadTimeout: time.Microsecond}), `Classes["x"].LoadTimeout`, "1µs"},
		{"negative lag", class(c{ReplicaLag: -1}), `Classes["x"].ReplicaLag`, "-1ns"},
		{"negative jitter", class(c{Jitter: -0.01}), `Classes["x"].Jitter`, -0.01},
		{"jitter above one", class(c{Jitter: 1.01}), `Classes["x"].Jitter`, 1.01},
		{"jitter that is no number", class(c{Jitter: math.NaN()}), `Classes["x"].Jitter`, math.NaN()},
		{"infinite jitter", class(c{Jitter: math.Inf(1)}), `Classes["x"].Jitter`, math.Inf(1)},
		{"negative body", class(c{MaxEntryBytes: -1}), `Classes["x"].MaxEntryBytes`, -1},
		{"absurd body", class(c{MaxEntryBytes: 1<<30 + 1}), `Classes["x"].MaxEntryBytes`, 1<<30 + 1},
		{"negative loads", class(c{MaxLoadsAfterError: -1}), `Classes["x"].MaxLoadsAfterError`, -1},
		{"absurd loads", class(c{MaxLoadsAfterError: 65537}), `Classes["x"].MaxLoadsAfterError`, 65537},
		{"negative variants", policy(core.HTTPPolicy{MaxVariants: -1}), `Classes["x"].HTTP.MaxVariants`, -1},
		{"absurd variants", policy(core.HTTPPolicy{MaxVariants: 1025}), `Classes["x"].HTTP.MaxVariants`, 1025},
		{"empty query parameter", policy(core.HTTPPolicy{Query: []string{"q", ""}}), `Classes["x"].HTTP.Query[1]`, ""},
		{"empty ignored parameter", policy(core.HTTPPolicy{IgnoreQuery: []string{""}}), `Classes["x"].HTTP.IgnoreQuery[0]`, ""},
		{"all parameters ignored", policy(core.HTTPPolicy{IgnoreQuery: []string{"a", "*"}}), `Classes["x"].HTTP.IgnoreQuery[1]`, "*"},
		{"pattern of parameters", policy(core.HTTPPolicy{IgnoreQuery: []string{"a*b"}}), `Classes["x"].HTTP.IgnoreQuery[0]`, "a*b"},
		{
			"parameters that count and ignored ones", policy(core.HTTPPolicy{Query: []string{}, IgnoreQuery: []string{"a"}}),
			`Classes["x"].HTTP.IgnoreQuery`, []string{"a"},
		},
		{"empty header", policy(core.HTTPPolicy{Headers: []string{""}}), `Classes["x"].HTTP.Headers[0]`, ""},
		{"space in header", policy(core.HTTPPolicy{Headers: []string{"X Y"}}), `Classes["x"].HTTP.Headers[0]`, "X Y"},
		{"colon in header", policy(core.HTTPPolicy{Headers: []string{"X:"}}), `Classes["x"].HTTP.Headers[0]`, "X:"},
		{"space in cookie", policy(core.HTTPPolicy{Cookies: []string{"a", "a b"}}), `Classes["x"].HTTP.Cookies[1]`, "a b"},
		{"space in credential", policy(core.HTTPPolicy{Credentials: []string{core.ClientCertificate, "X Key"}}), `Classes["x"].HTTP.Credentials[1]`, "X Key"},
		{"body larger than the tier", o{MaxBytes: 1 << 20, Classes: core.Classes{"x": {MaxEntryBytes: 1<<20 + 1}}}, `Classes["x"].MaxEntryBytes`, int64(1<<20 + 1)},
		{"control character in cookie", policy(core.HTTPPolicy{Cookies: []string{"a\x00"}}), `Classes["x"].HTTP.Cookies[0]`, "a\x00"},

		{"control character in class name", o{Classes: core.Classes{"a\tb": {}}}, "Options.Classes", "a\tb"},
		{"long class name", o{Classes: core.Classes{long: {}}}, "Options.Classes", long[:32] + "…"},
		{"wrong default class", o{Classes: core.Classes{"": {TTL: -1}}}, `Classes[""].TTL`, "-1ns"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			cache, err := core.New(test.options)
			require.Nil(t, cache)
			refused(t, err, test.field, test.value)
		})
	}
}

func TestNewAcceptsOptionsAtTheirLimits(t *testing.T) {
	const year = 365 * 24 * time.Hour
	for name, o := range map[string]core.Options{
		"nothing": {},
		"least": {
			RemoteBudget: time.Millisecond, MaxStaleness: 100 * time.Millisecond, MaxBytes: 65536, MaxRefreshes: 1,
			WriteTimeout: time.Millisecond, CloseTimeout: time.Millisecond, Namespace: "a", Version: "b",
			Classes: core.Classes{"": {TTL: time.Millisecond}, "x": {TTL: time.Millisecond, StaleWhileRevalidate: time.Millisecond, MaxEntryBytes: 1, MaxLoadsAfterError: 1}},
		},
		"most": {
			RemoteBudget: year, MaxStaleness: year, MaxBytes: math.MaxInt64, MaxRefreshes: 65536, WriteTimeout: year, CloseTimeout: year,
			Namespace: strings.Repeat("ü", core.MaxKeyBytes/2),
			Classes: core.Classes{"x": {
				TTL: year, StaleWhileRevalidate: year, StaleIfError: year, NegativeTTL: year, LoadTimeout: year, ReplicaLag: year, Jitter: 1,
				MaxEntryBytes: 1 << 30, MaxLoadsAfterError: 65536, HTTP: core.HTTPPolicy{MaxVariants: 1024},
			}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := core.New(o)
			require.NoError(t, err)
			require.NoError(t, c.Close())
		})
	}
}

func TestDefaultsAreThoseOfTheDocumentation(t *testing.T) {
	c := open(t, core.Options{Classes: core.Classes{"x": {TTL: hour, HTTP: core.HTTPPolicy{Headers: []string{"accept-language"}}}}})
	o := c.Options()
	require.Equal(t, 50*time.Millisecond, o.RemoteBudget)
	require.Equal(t, time.Second, o.MaxStaleness)
	require.Equal(t, 30*time.Second, o.WriteTimeout)
	require.Equal(t, 5*time.Second, o.CloseTimeout)
	require.EqualValues(t, 64<<20, o.MaxBytes)
	require.Equal(t, 64, o.MaxRefreshes)
	require.Equal(t, "larder", o.Namespace)
	x, err := c.Class("x")
	require.NoError(t, err)
	require.Equal(t, 30*time.Second, x.LoadTimeout)
	require.Equal(t, 1<<20, x.MaxEntryBytes)
	require.Equal(t, 4, x.MaxLoadsAfterError)
	require.Equal(t, 32, x.HTTP.MaxVariants)
	require.Equal(t, []string{"Accept-Language"}, x.HTTP.Headers)
	fallback, err := c.Class("")
	require.NoError(t, err)
	require.Zero(t, fallback.TTL)
}

func TestTheCacheCopiesTheClassesOfTheCaller(t *testing.T) {
	headers := []string{"accept"}
	classes := core.Classes{"x": {TTL: hour, HTTP: core.HTTPPolicy{Headers: headers}}}
	c := open(t, core.Options{Classes: classes})
	delete(classes, "x")
	headers[0] = "cookie"
	x, err := c.Class("x")
	require.NoError(t, err)
	require.Equal(t, hour, x.TTL)
	require.Equal(t, []string{"Accept"}, x.HTTP.Headers)
}

func TestNewMapRefusesBadOptionsByFieldValueAndRange(t *testing.T) {
	c := open(t, core.Options{Classes: core.Classes{"item": {TTL: hour}, "bare": {}}})
	long := strings.Repeat("x", core.MaxKeyBytes+1)
	newMap := func(class, prefix string) error {
		_, err := core.NewMap(c, core.MapOptions[int, item]{Class: class, Prefix: prefix})
		return err
	}
	_, err := core.NewMap(nil, core.MapOptions[int, item]{Class: "item", Prefix: "item"})
	refused(t, err, "cache", nil)
	refused(t, newMap("itme", "item"), "class", "itme")
	require.ErrorContains(t, newMap("itme", "item"), `"item"`, "the error says which classes there are")
	refused(t, newMap("bare", "item"), `Classes["bare"].TTL`, "0s")
	refused(t, newMap("", "item"), `Classes[""].TTL`, "0s")
	refused(t, newMap("item", ""), "MapOptions.Prefix", "")
	refused(t, newMap("item", "a\x00"), "MapOptions.Prefix", "a\x00")
	refused(t, newMap("item", long), "MapOptions.Prefix", long[:32]+"…")
	refused(t, newMap("item", "http"), "MapOptions.Prefix", "http")
	refused(t, newMap("item", "https"), "MapOptions.Prefix", "https")
	_, err = core.NewMap(c, core.MapOptions[float64, item]{Class: "item", Prefix: "item"})
	refused(t, err, "K", "float64")
	_, err = core.NewMap(c, core.MapOptions[[2]int, item]{Class: "item", Prefix: "item"})
	refused(t, err, "K", "[2]int")
}

func TestTwoTypesOfMapsCannotShareKeys(t *testing.T) {
	c := open(t, core.Options{Classes: core.Classes{"item": {TTL: hour}}})
	make1 := func(prefix string) error {
		_, err := core.NewMap(c, core.MapOptions[int, item]{Class: "item", Prefix: prefix})
		return err
	}
	make2 := func(prefix string) error {
		_, err := core.NewMap(c, core.MapOptions[int, string]{Class: "item", Prefix: prefix})
		return err
	}
	make3 := func(prefix string) error {
		_, err := core.NewMap(c, core.MapOptions[string, item]{Class: "item", Prefix: prefix})
		return err
	}
	require.NoError(t, make1("item"))
	require.NoError(t, make1("item"), "the same type may be made again")
	refused(t, make2("item"), "MapOptions.Prefix", "item")
	refused(t, make3("item"), "MapOptions.Prefix", "item")
	require.ErrorContains(t, make2("item"), "core.Map[int,", "the error says which type it is")
	refused(t, make1("item:x"), "MapOptions.Prefix", "item:x")
	refused(t, make3("item:x:y"), "MapOptions.Prefix", "item:x:y")
	require.NoError(t, make2("items"), "a name that only begins alike is another one")
	require.NoError(t, make2("a:b:c"))
	refused(t, make3("a"), "MapOptions.Prefix", "a")
	refused(t, make2("a:b"), "MapOptions.Prefix", "a:b")
	require.NoError(t, make1("a:c"))
}

type userID string

func TestDifferentIDsHaveDifferentKeys(t *testing.T) {
	c := open(t, core.Options{Classes: core.Classes{"item": {TTL: hour}}})
	require.Equal(t, "int:-5", keyOf(t, c, "int", -5))
	require.Equal(t, "int8:-128", keyOf(t, c, "int8", int8(-128)))
	require.Equal(t, "uint64:18446744073709551615", keyOf(t, c, "uint64", uint64(math.MaxUint64)))
	require.Equal(t, "bool:true", keyOf(t, c, "bool", true))
	require.Equal(t, "name:a:b", keyOf(t, c, "name", "a:b"))
	require.Equal(t, "named:x", keyOf(t, c, "named", userID("x")))
	require.Equal(t, "addr:::1", keyOf(t, c, "addr", netip.MustParseAddr("::1")))
	require.Equal(t, "when:2026-01-02T03:04:05Z", keyOf(t, c, "when", time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)))
}

func keyOf[K comparable](t *testing.T, c *core.Cache, prefix string, id K) string {
	t.Helper()
	m, err := core.NewMap(c, core.MapOptions[K, item]{Class: "item", Prefix: prefix})
	require.NoError(t, err)
	key, err := m.Key(id)
	require.NoError(t, err)
	return key
}

func TestABadIDIsRefusedBeforeAnythingIsDone(t *testing.T) {
	c := open(t, core.Options{Classes: core.Classes{"item": {TTL: hour}}})
	m, err := core.NewMap(c, core.MapOptions[string, item]{Class: "item", Prefix: "item"})
	require.NoError(t, err)
	load := func(context.Context, string) (item, error) { t.Error("it loads"); return item{}, nil }
	long := strings.Repeat("x", core.MaxKeyBytes)
	for _, bad := range []struct{ id, field, value string }{
		{"", "id of item", ""},
		{"a\nb", "id of item", "a\nb"},
		{"a\x1fb", "id of item", "a\x1fb"},
		{long + "x", "id of item", long[:32] + "…"},
		{long, "key", "item:" + long[:27] + "…"},
	} {
		_, err := m.Get(t.Context(), bad.id, load)
		refused(t, err, bad.field, bad.value)
		refused(t, m.Put(t.Context(), bad.id, item{}), bad.field, bad.value)
		refused(t, m.Invalidate(t.Context(), "good", bad.id), bad.field, bad.value)
	}
	_, err = m.Get(t.Context(), "a", nil)
	refused(t, err, "load", nil)
	_, err = m.Warm(t.Context(), nil, func(context.Context, []string) (map[string]item, error) { return nil, nil }, core.WarmOptions{})
	refused(t, err, "ids", nil)
	_, err = m.Warm(t.Context(), slices.Values([]string{"a"}), nil, core.WarmOptions{})
	refused(t, err, "load", nil)
	require.Zero(t, c.Stats().Invalidations)
	require.Zero(t, c.Stats().Misses)
}

func TestBadTargetsAreRefusedBeforeAnythingIsDone(t *testing.T) {
	c := open(t, core.Options{})
	long := strings.Repeat("x", core.MaxKeyBytes+1)
	cut := long[:32] + "…"
	for _, test := range []struct {
		name   string
		target core.Target
		field  string
		value  any
	}{
		{"empty key", core.Key(""), "Key", ""},
		{"long key", core.Key(long), "Key", cut},
		{"control character in key", core.Key("user:\x00"), "Key", "user:\x00"},
		{"control character in URL", core.Key("https://a/\n"), "Key", "https://a/\n"},
		{"empty tag", core.Tag(""), "Tag", ""},
		{"long tag", core.Tag(long), "Tag", cut},
		{"control character in tag", core.Tag("\x7f"), "Tag", "\x7f"},
		{"empty pattern", core.Pattern(""), "Pattern", ""},
		{"long pattern", core.Pattern(long), "Pattern", cut},
		{"control character in pattern", core.Pattern("a*\r"), "Pattern", "a*\r"},
		{"pattern with an open class", core.Pattern("a["), "Pattern", "a["},
		{"pattern with an empty class", core.Pattern("a[]b"), "Pattern", "a[]b"},
		{"pattern with an open range", core.Pattern("a[0-]"), "Pattern", "a[0-]"},
		{"pattern that ends in an escape", core.Pattern(`a\`), "Pattern", `a\`},
		{"empty prefix", core.Prefix(""), "Prefix", ""},
		{"long prefix", core.Prefix(long), "Prefix", cut},
		{"control character in prefix", core.Prefix("a\x1f"), "Prefix", "a\x1f"},
		{"empty path", core.Path(""), "Path", ""},
		{"relative path", core.Path("items"), "Path", "items"},
		{"path with query", core.Path("/items?page=1"), "Path", "/items?page=1"},
		{"path with fragment", core.Path("/items#top"), "Path", "/items#top"},
		{"URL with query", core.Path("https://a/items?page=1"), "Path", "https://a/items?page=1"},
		{"URL that is none", core.Path("https://a b/"), "Path", "https://a b/"},
		{"zero target", core.Target{}, "Target", core.Target{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			refused(t, c.Invalidate(t.Context(), core.Key("good"), test.target), test.field, test.value)
			_, err := c.Begin(t.Context(), core.Tag("good"), test.target)
			if test.field == "Pattern" || test.field == "Prefix" {
				require.Error(t, err)
			} else {
				refused(t, err, test.field, test.value)
			}
		})
	}
	refused(t, c.Invalidate(t.Context()), "targets", 0)
	refused(t, c.InvalidateEverywhere(t.Context()), "targets", 0)
	_, err := c.Begin(t.Context())
	refused(t, err, "targets", 0)
	_, err = c.Begin(t.Context(), core.Tag("good"), core.Pattern("x*"))
	refused(t, err, "targets", "x*")
	_, err = c.Begin(t.Context(), core.Tag("good"), core.Prefix("x"))
	refused(t, err, "targets", "x")
	_, err = c.Begin(t.Context(), core.All())
	refused(t, err, "targets", "")
	require.Zero(t, c.Stats().Invalidations)
	require.NoError(t, c.InvalidateEverywhere(t.Context(), core.Key("good")))
	require.EqualValues(t, 1, c.Stats().Invalidations)
}
