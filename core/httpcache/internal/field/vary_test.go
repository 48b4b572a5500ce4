package field

import (
	"net/textproto"
	"slices"
	"strings"
	"testing"
)

func TestParseVary(t *testing.T) {
	tests := []struct {
		name   string
		values []string
		want   []string
		star   bool
	}{
		{"absent", nil, nil, false},
		{"empty", []string{""}, nil, false},
		{"empty elements", []string{" ,\t,", ","}, nil, false},
		{"canonical, sorted, once", []string{"origin, ACCEPT-encoding", "Origin,accept"}, []string{"Accept", "Accept-Encoding", "Origin"}, false},
		{"star", []string{"*"}, nil, true},
		{"star among members", []string{"Foo, *"}, nil, true},
		{"star in another line", []string{"", "Foo", "*, Bar"}, nil, true},
		{"star in a name is a name", []string{"a*"}, []string{"A*"}, false},
		{"space in a name", []string{"Accept Encoding"}, nil, true},
		{"quoted", []string{`"Foo"`}, nil, true},
		{"semicolon", []string{"Foo;Bar"}, nil, true},
		{"not ASCII", []string{"Föö"}, nil, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, star := ParseVary(tt.values)
			if !slices.Equal(got, tt.want) || star != tt.star || (got == nil) != (tt.want == nil) {
				t.Errorf("ParseVary(%q) = %q, %v, want %q, %v", tt.values, got, star, tt.want, tt.star)
			}
		})
	}
}

func FuzzVary(f *testing.F) {
	for _, seed := range []string{"", "*", "Accept, accept-encoding", "a,\nb\n*", "a b", ",,", "a*,b", "\"a,b\"", "é", "a\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, field string) {
		values := strings.Split(field, "\n")
		got, star := ParseVary(values)

		var want []string
		wantStar := false
		for _, member := range strings.Split(strings.Join(values, ","), ",") {
			member = strings.Trim(member, " \t")
			if member == "" {
				continue
			}
			if member == "*" || modelTokens.FindString(member) != member {
				wantStar = true
			}
			if name := textproto.CanonicalMIMEHeaderKey(member); !slices.Contains(want, name) {
				want = append(want, name)
			}
		}
		slices.Sort(want)
		if wantStar {
			want = nil
		}
		if !slices.Equal(got, want) || star != wantStar {
			t.Errorf("ParseVary(%q) = %q, %v, want %q, %v", values, got, star, want, wantStar)
		}
	})
}
