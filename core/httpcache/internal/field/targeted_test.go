package field

import (
	"reflect"
	"regexp"
	"strings"
	"testing"
)

func TestParseTargeted(t *testing.T) {
	lines := func(s ...string) []string { return s }
	ignored := CacheControl{NoTransform: true} // stands for ok == false
	tests := []struct {
		name   string
		values []string
		want   CacheControl
	}{
		{"absent", nil, ignored},
		{"empty, RFC 9213 section 2.1", lines(""), ignored},
		{"only spaces", lines("  "), ignored},
		{"no parsing, RFC 9213 section 2.1", lines("max-age=10000, &&&&&"), ignored},
		{"capitals, RFC 9651 section 3.2", lines("Max-Age=60"), ignored},
		{"a comma too much", lines("max-age=60,"), ignored},
		{"an empty line", lines("max-age=60", ""), ignored},
		{"a space before =", lines("max-age =60"), ignored},
		{"a space after =", lines("max-age= 60"), ignored},
		{"a string without end", lines(`private="a`), ignored},
		{"a display string without end", lines(`x=%"`), ignored},
		{"a date without end", lines("x=@"), ignored},

		{"RFC 9213 section 2", lines("max-age=60"), CacheControl{MaxAge: secs(60)}},
		{"nothing known, RFC 9213 section 3.1", lines("none"), CacheControl{}},
		{"everything a response can say",
			lines("public, must-revalidate, proxy-revalidate, must-understand, no-store, no-cache, private, immutable", "max-age=1,s-maxage=2 ,\tstale-while-revalidate=3, stale-if-error=4"),
			CacheControl{Public: true, MustRevalidate: true, MayShare: true, ProxyRevalidate: true, MustUnderstand: true, NoStore: true, NoCache: true, Private: true, Immutable: true,
				MaxAge: secs(1), SMaxAge: secs(2), StaleWhileRevalidate: secs(3), StaleIfError: secs(4)}},
		{"true is no value, RFC 9651 section 3.2", lines("no-store=?1, public=?1"), CacheControl{NoStore: true, Public: true}},
		{"false says nothing", lines("no-store=?0, max-age=?0, private=?0"), CacheControl{}},
		{"qualified", lines(`no-cache="set-cookie, x-a", private="date"`), CacheControl{NoCacheFields: lines("Set-Cookie", "X-A"), PrivateFields: lines("Date")}},
		{"qualified by nothing", lines(`no-cache="", private=" b c"`), CacheControl{NoCache: true, Private: true}},
		{"parameters, RFC 9213 section 2.1", lines(`max-age=60;a;b="c", no-store;x=?0`), CacheControl{MaxAge: secs(60), NoStore: true}},
		{"what follows a semicolon is a parameter", lines("private; max-age=60"), CacheControl{Private: true}},
		{"the last one counts, RFC 9651 section 3.2", lines("max-age=5, no-store", "max-age=60, no-store=?0"), CacheControl{MaxAge: secs(60)}},
		{"extensions of any type", lines(`a=b, c="d", e=(f "g"), h=:aA==:, i=1.5, j=@1, max-age=60`), CacheControl{MaxAge: secs(60)}},
		{"large", lines("max-age=99999999999999"), CacheControl{MaxAge: secs(1 << 31)}},

		{"wrong type: a string for a number", lines(`max-age="60"`), CacheControl{MaxAge: secs(0)}},
		{"wrong type: a decimal for a number", lines("max-age=60.0, s-maxage=9"), CacheControl{MaxAge: secs(0), SMaxAge: secs(9)}},
		{"wrong type: a token for a number", lines("s-maxage=a60"), CacheControl{SMaxAge: secs(0)}},
		{"wrong type: a list for a number", lines("max-age=(60)"), CacheControl{MaxAge: secs(0)}},
		{"wrong type: no number", lines("max-age, stale-if-error"), CacheControl{MaxAge: secs(0), StaleIfError: secs(0)}},
		{"negative", lines("max-age=-1, stale-while-revalidate=-5"), CacheControl{MaxAge: secs(0), StaleWhileRevalidate: secs(0)}},
		{"wrong type: a token for names", lines("no-cache=date, private=*"), CacheControl{NoCache: true, Private: true}},
		{"wrong type: a number for names", lines("no-cache=1, private=-1.0"), CacheControl{NoCache: true, Private: true}},
		{"wrong type: a list for names", lines(`private=("a" "b")`), CacheControl{Private: true}},
		{"wrong type: what forbids", lines(`no-store=1, must-revalidate="x", no-transform=a`), CacheControl{NoStore: true, MustRevalidate: true, NoTransform: true}},
		{"wrong type: what permits", lines(`public=1, immutable="", must-understand=a`), CacheControl{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			wantOK := !reflect.DeepEqual(tt.want, ignored)
			if !wantOK {
				tt.want = CacheControl{}
			}
			if got, ok := ParseTargeted(tt.values); !reflect.DeepEqual(got, tt.want) || ok != wantOK {
				t.Errorf("ParseTargeted(%q)\n got %+v, %v\nwant %+v, %v", tt.values, got, ok, tt.want, wantOK)
			}
		})
	}
}

// The model writes a Cache-Control field with the same meaning.
var (
	modelDictionary = regexp.MustCompile(`^ *` + sfPair + `(?:` + sfComma + sfPair + `)*[ \t]*$`)
	modelPair       = regexp.MustCompile(`^[ \t,]*(` + sfKey + `)(=` + sfMember + `|` + sfParams + `)`)
	modelString     = regexp.MustCompile(`^=` + sfString)
	modelInteger    = regexp.MustCompile(`^=(-?[0-9]+)` + sfParams + `$`)
)

const sfPair = sfKey + `(?:=` + sfMember + `|` + sfParams + `)`

func modelTargeted(field string) (cc CacheControl, ok bool) {
	if !modelDictionary.MatchString(field) {
		return CacheControl{}, false
	}
	last := map[string]string{}
	for m := modelPair.FindStringSubmatch(field); m != nil; m = modelPair.FindStringSubmatch(field) {
		field = field[len(m[0]):]
		name, value := m[1], m[2]
		names := name == "no-cache" || name == "private"
		integer := modelInteger.FindStringSubmatch(value)
		switch {
		case !strings.HasPrefix(value, "="), strings.HasPrefix(value, "=?1"):
			last[name] = name
		case strings.HasPrefix(value, "=?0"):
			delete(last, name)
		case names && modelString.MatchString(value):
			last[name] = name + modelString.FindString(value)
		case !names && integer != nil:
			last[name] = name + "=" + integer[1]
		default:
			last[name] = name + `=""`
		}
	}
	var members []string
	for _, member := range last {
		members = append(members, member)
	}
	return ParseCacheControl(members), true
}

func FuzzTargeted(f *testing.F) {
	for _, seed := range []string{
		"", "max-age=60", "none", "max-age=10000, &&&&&", "Max-Age=60", "max-age=60,", "no-store=?0, no-store", "no-cache=\"a,b\"\nprivate",
		`max-age="60", s-maxage=1.5, stale-if-error=a, stale-while-revalidate=(1 2)`, "max-age=-1", `max-age=60;a;b="c"`, "private=date",
		`x=%"`, "x=@", "public=1, immutable, must-understand", `no-store=("a";b=1 c);d`, `private=" a\\b"`, "max-age=99999999999999",
		"max-stale, min-fresh=1, only-if-cached", "*=1", "a=:aA==:",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, field string) {
		values := strings.Split(field, "\n")
		got, ok := ParseTargeted(values)
		if beyondModel(field) {
			return
		}
		want, wantOK := modelTargeted(strings.Join(values, ","))
		if !reflect.DeepEqual(got, want) || ok != wantOK {
			t.Errorf("ParseTargeted(%q)\n got %+v, %v\nwant %+v, %v", values, got, ok, want, wantOK)
		}
	})
}
