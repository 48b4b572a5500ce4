package field

import (
	"net/textproto"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

func secs(n int64) Seconds { return Seconds{n, true} }

func TestParseCacheControl(t *testing.T) {
	lines := func(s ...string) []string { return s }
	tests := []struct {
		name   string
		values []string
		want   CacheControl
	}{
		{"absent", nil, CacheControl{}},
		{"empty", lines(""), CacheControl{}},
		{"empty elements", lines(", ,\t,no-store,,"), CacheControl{NoStore: true}},
		{"names are case-insensitive", lines("No-Store, MAX-AGE=5"), CacheControl{NoStore: true, MaxAge: secs(5)}},
		{"everything a response can say",
			lines("public, must-revalidate, proxy-revalidate, must-understand, no-transform, immutable, max-age=1, s-maxage=2, stale-while-revalidate=3, stale-if-error=4"),
			CacheControl{Public: true, MustRevalidate: true, MayShare: true, ProxyRevalidate: true, MustUnderstand: true, NoTransform: true, Immutable: true,
				MaxAge: secs(1), SMaxAge: secs(2), StaleWhileRevalidate: secs(3), StaleIfError: secs(4)}},
		{"everything a request can say",
			lines("no-cache, no-store, only-if-cached, max-age=0, min-fresh=7, max-stale=8"),
			CacheControl{NoCache: true, NoStore: true, OnlyIfCached: true, MaxAge: secs(0), MinFresh: secs(7), MaxStale: secs(8)}},
		{"lines are joined", lines("max-age=9", "private"), CacheControl{MaxAge: secs(9), Private: true}},
		{"a quoted string may span lines", lines(`x="a`, `no-store, b"`), CacheControl{}},
		{"unknown directives", lines(`foo, bar=1, baz="no-store, max-age=5", community="UCI"`), CacheControl{}},
		{"longer than any known name", lines("stale-while-revalidatex=5, " + strings.Repeat("x", 99)), CacheControl{}},

		{"quoted number", lines(`max-age="3600"`), CacheControl{MaxAge: secs(3600)}},
		{"quoted number with escapes", lines(`max-age="3\600"`), CacheControl{MaxAge: secs(3600)}},
		{"leading zeros", lines("max-age=003600"), CacheControl{MaxAge: secs(3600)}},
		{"2^31", lines("max-age=2147483648"), CacheControl{MaxAge: secs(1 << 31)}},
		{"overflow", lines("max-age=99999999999999999999999999"), CacheControl{MaxAge: secs(1 << 31)}},
		{"negative", lines("max-age=-1"), CacheControl{MaxAge: secs(0)}},
		{"plus", lines("max-age=+1"), CacheControl{MaxAge: secs(0)}},
		{"decimal", lines("max-age=3600.0"), CacheControl{MaxAge: secs(0)}},
		{"leading letter", lines("max-age=a3600"), CacheControl{MaxAge: secs(0)}},
		{"trailing letter", lines("s-maxage=3600a"), CacheControl{SMaxAge: secs(0)}},
		{"single quotes", lines("max-age='3600'"), CacheControl{MaxAge: secs(0)}},
		{"no argument", lines("max-age, s-maxage="), CacheControl{MaxAge: secs(0), SMaxAge: secs(0)}},
		{"empty quoted argument", lines(`max-age=""`), CacheControl{MaxAge: secs(0)}},
		{"space before =", lines("max-age =3600"), CacheControl{MaxAge: secs(0)}},
		{"space after =", lines("max-age= 3600"), CacheControl{MaxAge: secs(0)}},
		{"malformed staleness is none", lines("stale-while-revalidate=x, stale-if-error"), CacheControl{StaleWhileRevalidate: secs(0), StaleIfError: secs(0)}},

		{"repeated: smallest lifetime, first", lines("max-age=1, max-age=1800"), CacheControl{MaxAge: secs(1)}},
		{"repeated: smallest lifetime, last", lines("max-age=1800", "max-age=1"), CacheControl{MaxAge: secs(1)}},
		{"repeated: malformed is smallest", lines("max-age=1800, max-age=x"), CacheControl{MaxAge: secs(0)}},
		{"repeated: largest min-fresh", lines("min-fresh=1, min-fresh=9, min-fresh=2"), CacheControl{MinFresh: secs(9)}},

		{"max-stale without argument", lines("max-stale"), CacheControl{MaxStaleAny: true}},
		{"max-stale with and without", lines("max-stale, max-stale=5"), CacheControl{MaxStale: secs(5)}},
		{"max-stale empty", lines("max-stale="), CacheControl{MaxStale: secs(0)}},

		{"qualified", lines(`private="set-cookie, X-User", no-cache=date`),
			CacheControl{PrivateFields: lines("Set-Cookie", "X-User"), NoCacheFields: lines("Date")}},
		{"qualified, twice", lines(`private=a`, `private=" ,b,,\c "`), CacheControl{PrivateFields: lines("A", "B", "C")}},
		{"qualified and unqualified", lines(`private="a", private`), CacheControl{Private: true, PrivateFields: lines("A")}},
		{"qualified by nothing", lines(`private="", no-cache=" , "`), CacheControl{Private: true, NoCache: true}},
		{"qualified by no field name", lines(`private="a, b c", no-cache="a:"`), CacheControl{Private: true, NoCache: true}},
		{"qualified, no end", lines(`no-cache="a`), CacheControl{NoCache: true}},
		{"qualified, after a space", lines(`private ="a"`), CacheControl{Private: true}},

		{"what forbids may have an argument", lines(`no-store=1, must-revalidate="x"`), CacheControl{NoStore: true, MustRevalidate: true}},
		{"what permits may not", lines(`public=0, immutable="", must-understand=no, only-if-cached=x`), CacheControl{}},
		{"semicolons", lines("private; max-age=60"), CacheControl{Private: true, MaxAge: secs(0)}},
		{"semicolons, permissive", lines("public; max-stale; immutable"), CacheControl{MaxStale: secs(0)}},
		{"spaces for commas", lines("max-age=60 no-store"), CacheControl{MaxAge: secs(0), NoStore: true}},
		{"quoted string without end, strict", lines(`x="y, no-store, private="a"`), CacheControl{NoStore: true, Private: true}},
		{"quoted string without end, permissive", lines(`max-age=60, x="y, public, max-age=3600`), CacheControl{MaxAge: secs(0)}},
		{"control character", lines("x=\"\x00\", no-store\x00"), CacheControl{NoStore: true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := ParseCacheControl(tt.values); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("ParseCacheControl(%q)\n got %+v\nwant %+v", tt.values, got, tt.want)
			}
		})
	}
}

func TestParseCacheControlDoesNotAllocate(t *testing.T) {
	values := []string{`public, max-age=60, S-MaxAge="120", x="a, b", stale-while-revalidate=30`}
	if n := testing.AllocsPerRun(100, func() { ParseCacheControl(values) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// The model of ParseCacheControl is the ABNF of RFC 9110 sections 5.6.2 and
// 5.6.4 and RFC 9111 section 5.2 as regular expressions, and one map.
const (
	abnfToken  = "[!#$%&'*+.^_`|~0-9A-Za-z-]+"
	abnfQuoted = `"(?:[\t \x21\x23-\x5b\x5d-\x7e\x{80}-\x{10ffff}]|\\[\t \x21-\x7e\x{80}-\x{10ffff}])*"`
)

var (
	modelMember    = regexp.MustCompile(`^(?s:[^",]|"(?:[^"\\]|\\.)*"|".*$)*`)
	modelDirective = regexp.MustCompile(`^(` + abnfToken + `)(?:=(?:(` + abnfToken + `)|(` + abnfQuoted + `)))?$`)
	modelTokens    = regexp.MustCompile(abnfToken)
	modelEscape    = regexp.MustCompile(`(?s)\\(.)`)
	modelNames     = regexp.MustCompile(`^[\t ,]*` + abnfToken + `(?:[\t ]*,[\t ]*(?:` + abnfToken + `)?)*[\t ]*$`)
	modelDigits    = regexp.MustCompile(`^[0-9]+$`)
)

func modelCacheControl(values []string) CacheControl {
	type directive struct {
		arg       string
		hasArg    bool
		malformed bool
	}
	found := map[string][]directive{}
	for rest := strings.Join(values, ","); ; {
		member := modelMember.FindString(rest)
		rest = strings.TrimPrefix(rest, member)
		if member = strings.Trim(member, " \t"); member == "" {
		} else if m := modelDirective.FindStringSubmatch(member); m != nil {
			arg := m[2]
			if m[3] != "" {
				arg = modelEscape.ReplaceAllString(m[3][1:len(m[3])-1], "$1")
			}
			name := strings.ToLower(m[1])
			found[name] = append(found[name], directive{arg: arg, hasArg: strings.Contains(member, "=")})
		} else {
			for _, token := range modelTokens.FindAllString(member, -1) {
				name := strings.ToLower(token)
				found[name] = append(found[name], directive{malformed: true})
			}
		}
		if rest == "" {
			break
		}
		rest = rest[1:] // the comma
	}

	forbids := func(name string) bool { return len(found[name]) > 0 }
	permits := func(name string) bool {
		for _, d := range found[name] {
			if !d.hasArg && !d.malformed {
				return true
			}
		}
		return false
	}
	number := func(name string, better func(a, b int64) bool) (best Seconds) {
		for _, d := range found[name] {
			if name == "max-stale" && !d.hasArg && !d.malformed {
				continue
			}
			n := int64(0)
			if modelDigits.MatchString(d.arg) {
				var err error
				if n, err = strconv.ParseInt(d.arg, 10, 64); err != nil || n > 1<<31 {
					n = 1 << 31
				}
			}
			if !best.Present || better(n, best.Value) {
				best = Seconds{n, true}
			}
		}
		return best
	}
	less := func(a, b int64) bool { return a < b }
	more := func(a, b int64) bool { return a > b }
	qualified := func(name string) (whole bool, fields []string) {
		for _, d := range found[name] {
			if !modelNames.MatchString(d.arg) {
				whole = true
				continue
			}
			for _, field := range modelTokens.FindAllString(d.arg, -1) {
				fields = append(fields, textproto.CanonicalMIMEHeaderKey(field))
			}
		}
		return whole, fields
	}

	c := CacheControl{
		MayShare: permits("must-revalidate"),
		NoStore:  forbids("no-store"), NoTransform: forbids("no-transform"),
		MustRevalidate: forbids("must-revalidate"), ProxyRevalidate: forbids("proxy-revalidate"),
		Public: permits("public"), MustUnderstand: permits("must-understand"),
		Immutable: permits("immutable"), OnlyIfCached: permits("only-if-cached"),
		MaxAge: number("max-age", less), SMaxAge: number("s-maxage", less),
		StaleWhileRevalidate: number("stale-while-revalidate", less), StaleIfError: number("stale-if-error", less),
		MinFresh: number("min-fresh", more), MaxStale: number("max-stale", less),
	}
	c.MaxStaleAny = permits("max-stale") && !c.MaxStale.Present
	c.NoCache, c.NoCacheFields = qualified("no-cache")
	c.Private, c.PrivateFields = qualified("private")
	return c
}

func FuzzCacheControl(f *testing.F) {
	for _, seed := range []string{
		"", "no-store", "public, max-age=60, s-maxage=120", `private="set-cookie, x-a", no-cache=date`,
		`x="a, no-store`, "x=\"a\nmax-age=5, b\"", `max-age="1\0", max-age =5`, "private; max-age=0",
		"max-stale, max-stale=5, min-fresh=9999999999", `no-cache=" ,a,,b ", private="a b"`, "a\\\"b,c",
		"max-age=-1\nmax-age=1.5", "stale-while-revalidate=30, stale-if-error", "\"\\",
		"must-understand, immutable=, only-if-cached, no-transform, proxy-revalidate",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, field string) {
		values := strings.Split(field, "\n")
		got, want := ParseCacheControl(values), modelCacheControl(values)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("ParseCacheControl(%q)\n got %+v\nwant %+v", values, got, want)
		}
	})
}

func BenchmarkParseCacheControl(b *testing.B) {
	values := []string{"public, max-age=60, stale-while-revalidate=30"}
	b.ReportAllocs()
	for b.Loop() {
		ParseCacheControl(values)
	}
}
