package field

import (
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestCanonicalQuery(t *testing.T) {
	allow := func(names ...string) func(string) bool {
		return func(name string) bool { return slices.Contains(names, name) }
	}
	tests := []struct {
		name, raw string
		keep      func(string) bool
		want      string
	}{
		{"empty", "", nil, ""},
		{"one pair", "b=1", nil, "b=1"},
		{"names are ordered", "b=1&a=2", nil, "a=2&b=1"},
		{"values are not", "a=2&b=0&a=1", nil, "a=2&a=1&b=0"},
		{"a name that begins another", "ab&a=1&a", nil, "a=1&a&ab"},
		{"spelling is kept", "b=%41&%61=+", nil, "%61=+&b=%41"},
		{"same name, other spelling, this order", "%61=1&a=2", nil, "%61=1&a=2"},
		{"same name, other spelling, that order", "a=2&%61=1", nil, "a=2&%61=1"},
		{"plus and %20", "b+c=1&b%20c=2&a", nil, "a&b+c=1&b%20c=2"},
		{"malformed escapes stand for themselves", "%zz%61=2&%zza=1&%=3", nil, "%=3&%zz%61=2&%zza=1"},
		{"empty pairs", "b&&a&", nil, "&&a&b"},
		{"empty pairs only", "&", nil, "&&"},
		{"empty name and empty pair", "=v&", nil, "=v&&"},
		{"empty pair and empty name", "&=v", nil, "&=v"},
		{"semicolons are not reordered", "c=1&b=1;a=2&a=1", nil, "c=1&b=1;a=2&a=1"},

		{"keep", "c=3&a=1&b=2&a=0", allow("a", "c"), "a=1&a=0&c=3"},
		{"keep sees decoded names", "%61=1&b=2&a=3", allow("a"), "%61=1&a=3"},
		{"keep sees malformed names", "%zz=1&b=2", allow("%zz"), "%zz=1"},
		{"keep of one pair", "a=1", allow("b"), ""},
		{"keep of an empty pair", "a&", allow(""), "&"},
		{"keep of none", "a&", allow("b"), ""},
		{"keep of what hides behind a semicolon", "b=1;a=2&c=3", allow("a"), "b=1;a=2"},
		{"keep of a name with a semicolon", "b;a=2&c=3", allow("b;a"), "b;a=2"},
		{"no keep of what has a semicolon", "b=1;c=2&a=1&A=1", allow("a", "A"), "A=1&a=1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := CanonicalQuery([]byte("/?"), tt.raw, tt.keep); string(got) != "/?"+tt.want {
				t.Errorf("CanonicalQuery(%q) = %q, want %q", tt.raw, got, tt.want)
			}
		})
	}
}

func TestCanonicalQueryDoesNotAllocate(t *testing.T) {
	dst := make([]byte, 0, 256)
	keep := func(name string) bool { return name != "utm_source" }
	for _, raw := range []string{"", "a=1", "c=1&b=%20&%61=1&a=2", strings.Repeat("x=1&", 15) + "a"} {
		if n := testing.AllocsPerRun(100, func() { CanonicalQuery(dst, raw, nil) }); n != 0 {
			t.Errorf("%q: %v allocations", raw, n)
		}
	}
	if n := testing.AllocsPerRun(100, func() { CanonicalQuery(dst, "c=1&b=%20&utm_source=x&a=2", keep) }); n != 0 {
		t.Errorf("with keep: %v allocations", n)
	}
}

// modelQuery is what an identity has to tell apart: for each decoded name the raw
// pairs in order, or all pairs in order where one has a semicolon.
func modelQuery(raw string, keep func(string) bool) any {
	decode := func(name string) string {
		var b []byte
		for i := 0; i < len(name); i++ {
			if i+2 < len(name) {
				if one, err := url.PathUnescape(name[i : i+3]); err == nil && name[i] == '%' {
					b = append(b, one...)
					i += 2
					continue
				}
			}
			b = append(b, strings.ReplaceAll(name[i:i+1], "+", " ")...)
		}
		return string(b)
	}
	byName := map[string][]string{}
	var all []string
	ordered := false
	if raw == "" {
		return byName
	}
	for _, pair := range strings.Split(raw, "&") {
		name := decode(strings.SplitN(pair, "=", 2)[0])
		kept := keep == nil || keep(name)
		for _, part := range strings.Split(pair, ";") {
			kept = kept || keep(decode(strings.SplitN(part, "=", 2)[0]))
		}
		if kept {
			ordered = ordered || strings.Contains(pair, ";")
			byName[name] = append(byName[name], pair)
			all = append(all, pair)
		}
	}
	if ordered {
		return all
	}
	return byName
}

func FuzzCanonicalQuery(f *testing.F) {
	for _, seed := range [][2]string{
		{"a=1&b=2", "b=2&a=1"}, {"a=1&a=2", "a=2&a=1"}, {"%61=1&a=2", "a=2&%61=1"}, {"a&&b", "a&b&"}, {"", "&"},
		{"a;b=1&c", "c&a;b=1"}, {"+=1&%20=2", "%20=2&+=1"}, {"%zz=1&a", "a&%zz=1"}, {"=v&", "&=v"}, {"u=1&a", "a"}, {"a&", "a"},
		{"%=&%3D=1", "%3d=1&%="}, {strings.Repeat("b=1&a=2&", 10), strings.Repeat("a=2&b=1&", 10)},
	} {
		f.Add(seed[0], seed[1], uint(0))
		f.Add(seed[0], seed[1], uint(3))
	}
	f.Fuzz(func(t *testing.T, a, b string, shuffle uint) {
		if shuffle%2 == 1 { // two random queries are rarely the same: permute one
			pairs := strings.Split(a, "&")
			i := int(shuffle / 2 % uint(len(pairs)))
			pairs = append(pairs[i:], pairs[:i]...)
			if shuffle%4 == 3 {
				slices.Reverse(pairs)
			}
			b = strings.Join(pairs, "&")
		}
		for name, keep := range map[string]func(string) bool{
			"all": nil, "some": func(name string) bool { return name == "" || name[0]%2 == 1 },
		} {
			x, y := CanonicalQuery(nil, a, keep), CanonicalQuery(nil, b, keep)
			same := string(x) == string(y)
			if want := reflect.DeepEqual(modelQuery(a, keep), modelQuery(b, keep)); same != want {
				t.Errorf("keep %s: %q is %q, %q is %q; want same: %v", name, a, x, b, y, want)
			}
			if again := CanonicalQuery(nil, string(x), nil); string(again) != string(x) && !strings.HasSuffix(string(x), "&") {
				t.Errorf("%q is %q is %q", a, x, again)
			}
			if !same || keep != nil {
				continue
			}
			p, err1 := url.ParseQuery(a)
			q, err2 := url.ParseQuery(b)
			if !reflect.DeepEqual(p, q) || (err1 == nil) != (err2 == nil) {
				t.Errorf("%q and %q are both %q, and parse to %v and %v", a, b, x, p, q)
			}
		}
	})
}

func BenchmarkCanonicalQuery(b *testing.B) {
	dst := make([]byte, 0, 256)
	b.ReportAllocs()
	for b.Loop() {
		CanonicalQuery(dst, "sort=price&page=2&category=shoes&size=42", nil)
	}
}
