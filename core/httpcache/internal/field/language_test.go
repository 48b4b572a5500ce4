package field

import (
	"strings"
	"testing"
)

func TestAppendLanguages(t *testing.T) {
	for _, tt := range []struct {
		name   string
		values []string
		want   string
	}{
		{"absent", nil, ""},
		{"one", []string{"de"}, "de;1000"},
		{"order, case and whitespace", []string{" eN ,\tDe-AT "}, "de-at;1000,en;1000"},
		{"lines", []string{"en", "de;q=0.5"}, "en;1000,de;500"},
		{"by weight", []string{"a;q=0.1, b;q=0.9, c;Q=1.0, d;q=0"}, "c;1000,b;900,a;100,d;0"},
		{"malformed weight", []string{"a;q=2, b"}, "b;1000,a;0"},
		{"empty members", []string{", ,en,"}, "en;1000"},
		{"no list", []string{"en de, fr"}, "en de,fr"},
		{"too long", []string{strings.Repeat("a,", maxLanguages+1)}, strings.Repeat("a,", maxLanguages+1)},
	} {
		if got := string(AppendLanguages(nil, tt.values)); got != tt.want {
			t.Errorf("%s: AppendLanguages(%q) = %q, want %q", tt.name, tt.values, got, tt.want)
		}
	}
}

func TestPrefersLanguage(t *testing.T) {
	for _, tt := range []struct {
		accept, content string
		want            bool
	}{
		{"de", "de", true},
		{"fr;q=0.5, DE;q=1.0", "de", true},
		{"fr, de", "de", false}, // as good
		{"fr, de;q=0.5", "de", false},
		{"de;q=0", "de", false},
		{"de-AT", "de", false},
		{"de", "de, en", false},
		{"*", "de", false},
		{"", "de", false},
		{"d e", "d e", false},
	} {
		if got := PrefersLanguage([]string{tt.accept}, []string{tt.content}); got != tt.want {
			t.Errorf("PrefersLanguage(%q, %q) = %v", tt.accept, tt.content, got)
		}
	}
}

// The ranking stays as it is whatever the order, case and whitespace.
func FuzzLanguages(f *testing.F) {
	for _, seed := range []string{"", "de", "en, de;q=0.5", "fr;q=0.5,de;q=1.0,*;q=0.1", "a b,c", ";q=1", "a;q=0.1234"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		got := string(AppendLanguages(nil, []string{value}))
		members := strings.Split(value, ",")
		for i, j := 0, len(members)-1; i < j; i, j = i+1, j-1 {
			members[i], members[j] = members[j], members[i]
		}
		if _, ok := parseLanguages([]string{value}); !ok {
			return
		}
		if again := string(AppendLanguages(nil, []string{" " + strings.Join(members, " ,\t")})); again != got {
			t.Errorf("%q: %q, reversed %q", value, got, again)
		}
	})
}
