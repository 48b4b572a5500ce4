package field

import (
	"regexp"
	"strings"
	"testing"
)

func TestAppendFieldValue(t *testing.T) {
	tests := []struct {
		name   string
		values []string
		want   string
	}{
		{"absent", nil, ""},
		{"empty", []string{""}, ""},
		{"plain", []string{" Mozilla/5.0  (X11) "}, "Mozilla/5.0  (X11)"},
		{"list", []string{"gzip , \tbr;q=1,  zstd"}, "gzip,br;q=1,zstd"},
		{"lines", []string{"gzip", " br"}, "gzip,br"},
		{"empty members are kept", []string{", a,, b ,"}, ",a,,b,"},
		{"empty lines are kept", []string{"", "a", ""}, ",a,"},
		{"quoted", []string{`a="x , y" , "z\" ,"`}, `a="x , y","z\" ,"`},
		{"quoted without end", []string{`a , "b , c`}, `a,"b , c`},
		{"quoted over lines", []string{`"a `, ` b" , c`}, `"a , b",c`},
		{"backslash outside", []string{`a\ , "b , c"`}, `a\,"b , c"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := AppendFieldValue([]byte("x"), tt.values); string(got) != "x"+tt.want {
				t.Errorf("AppendFieldValue(%q) = %q, want %q", tt.values, got, tt.want)
			}
		})
	}
}

func TestAppendFieldValueDoesNotAllocate(t *testing.T) {
	dst, values := make([]byte, 0, 64), []string{"gzip, deflate, br"}
	if n := testing.AllocsPerRun(100, func() { AppendFieldValue(dst, values) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

var (
	modelQuotedOrComma = regexp.MustCompile(`(?s)"(?:[^"\\]|\\.)*(?:"|\\?$)|[ \t]*,[ \t]*`)
)

func FuzzFieldValue(f *testing.F) {
	for _, seed := range []string{"", "a", "gzip, br", " a ,\tb ", "a\nb", "\"a , b\" , c", "\"a\nb\"", `"\" , `, ",,", `a\ , "`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, field string) {
		values := strings.Split(field, "\n")
		want := modelQuotedOrComma.ReplaceAllStringFunc(strings.Join(values, ","), func(s string) string {
			if s[0] == '"' {
				return s
			}
			return ","
		})
		want = strings.Trim(want, " \t")
		got := string(AppendFieldValue(nil, values))
		if got != want {
			t.Errorf("AppendFieldValue(%q) = %q, want %q", values, got, want)
		}
		if again := string(AppendFieldValue(nil, []string{got})); again != got {
			t.Errorf("AppendFieldValue(%q) = %q, and of that %q", values, got, again)
		}
	})
}
