package field

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

func TestAcceptsEncoding(t *testing.T) {
	tests := []struct {
		name   string
		accept []string
		coding string
		want   bool
	}{
		{"absent, identity", nil, "identity", true},
		{"absent, coded", nil, "gzip", false},
		{"empty, identity", []string{""}, "identity", true},
		{"empty, coded", []string{""}, "gzip", false},
		{"listed", []string{"br, gzip"}, "gzip", true},
		{"in another line", []string{"br", "gzip"}, "gzip", true},
		{"not listed", []string{"br"}, "gzip", false},
		{"case", []string{"GZip"}, "gziP", true},
		{"alias in the field", []string{"x-gzip"}, "gzip", true},
		{"alias in the response", []string{"gzip"}, "X-GZIP", true},
		{"alias compress", []string{"x-compress"}, "compress", true},
		{"no other alias", []string{"x-br"}, "br", false},
		{"identity need not be listed", []string{"gzip"}, "identity", true},
		{"identity refused", []string{"gzip, identity;q=0"}, "identity", false},
		{"identity refused by star", []string{"gzip, *;q=0"}, "identity", false},
		{"identity refused by star but listed", []string{"identity;q=0.1, *;q=0"}, "identity", true},
		{"star", []string{"*"}, "zstd", true},
		{"star refuses", []string{"*;q=0"}, "gzip", false},
		{"listed before star", []string{"*, gzip;q=0"}, "gzip", false},
		{"listed beside refusing star", []string{"gzip, *;q=0"}, "gzip", true},
		{"weight", []string{"gzip;q=0.5"}, "gzip", true},
		{"smallest weight", []string{"gzip ; q=0.001"}, "gzip", true},
		{"weight 1.000", []string{"gzip;\tQ=1.000"}, "gzip", true},
		{"weight 0", []string{"gzip;q=0"}, "gzip", false},
		{"weight 0.000", []string{"gzip;q=0.000"}, "gzip", false},
		{"weight 0.", []string{"gzip;q=0."}, "gzip", false},
		{"lowest of two", []string{"gzip, gzip;q=0"}, "gzip", false},
		{"lowest of two, alias", []string{"x-gzip;q=0, gzip"}, "gzip", false},
		{"too many decimals", []string{"gzip;q=0.0001"}, "gzip", false},
		{"more than 1", []string{"gzip;q=1.001"}, "gzip", false},
		{"no number", []string{"gzip;q=high"}, "gzip", false},
		{"no weight", []string{"gzip;"}, "gzip", false},
		{"two weights", []string{"gzip;q=1;q=0"}, "gzip", false},
		{"another parameter", []string{"gzip;level=9"}, "gzip", false},
		{"space in the weight", []string{"gzip;q= 1"}, "gzip", false},
		{"malformed weight before star", []string{"gzip;q=x, *"}, "gzip", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := AcceptsEncoding(tt.accept, tt.coding); got != tt.want {
				t.Errorf("AcceptsEncoding(%q, %q) = %v", tt.accept, tt.coding, got)
			}
		})
	}
}

func TestAcceptsEncodings(t *testing.T) {
	tests := []struct {
		name            string
		accept, content []string
		want            bool
	}{
		{"not coded", []string{"gzip"}, nil, true},
		{"not coded, identity refused", []string{"gzip, *;q=0"}, []string{" , "}, false},
		{"coded once", []string{"gzip"}, []string{"gzip"}, true},
		{"coded twice", []string{"gzip, br"}, []string{"gzip, br"}, true},
		{"coded twice, in two lines", []string{"gzip, br"}, []string{"gzip", "br"}, true},
		{"one of two", []string{"gzip"}, []string{"gzip, br"}, false},
		{"absent", nil, []string{"gzip"}, false},
		{"explicitly identity", nil, []string{"identity"}, true},
		{"malformed coding", []string{"*"}, []string{"gzip br"}, false},
		{"star is no coding", []string{"*"}, []string{"*"}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := AcceptsEncodings(tt.accept, tt.content); got != tt.want {
				t.Errorf("AcceptsEncodings(%q, %q) = %v", tt.accept, tt.content, got)
			}
		})
	}
}

func TestAcceptsEncodingsDoesNotAllocate(t *testing.T) {
	accept, content := []string{"gzip;q=0.5, deflate, br;q=1.0, zstd, *;q=0"}, []string{"gzip, br"}
	if n := testing.AllocsPerRun(100, func() { AcceptsEncodings(accept, content) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

var modelWeight = regexp.MustCompile(`^[ \t]*[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)[ \t]*$`)

// modelAccepts computes real weights where AcceptsEncoding compares three.
func modelAccepts(accept []string, coding string) bool {
	alias := func(s string) string {
		s = asciiLower(s)
		if s == "x-gzip" || s == "x-compress" {
			return s[2:]
		}
		return s
	}
	weights := map[string]float64{}
	for _, member := range strings.Split(strings.Join(accept, ","), ",") {
		name, params, weighted := strings.Cut(member, ";")
		name = alias(strings.Trim(name, " \t"))
		q := 1.0
		if m := modelWeight.FindStringSubmatch(params); m != nil {
			q, _ = strconv.ParseFloat(m[1], 64)
		} else if weighted {
			q = 0
		}
		if old, ok := weights[name]; ok {
			q = math.Min(q, old)
		}
		weights[name] = q
	}
	if q, ok := weights[alias(coding)]; ok {
		return q > 0
	}
	if q, ok := weights["*"]; ok {
		return q > 0
	}
	return alias(coding) == "identity"
}

func asciiLower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

func FuzzAcceptEncoding(f *testing.F) {
	for _, seed := range [][2]string{
		{"gzip, br", "gzip"}, {"gzip;q=0.5, *;q=0", "br"}, {"", "identity"}, {"identity;q=0\n*", "identity"},
		{"x-gzip", "gzip"}, {"gzip;q=1.0000", "gzip"}, {"gzip ; q=0.001", "GZIP"}, {"*;q=x", "identity"}, {"gzip;q=0,gzip", "x-gzip"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, field, coding string) {
		if !isToken(coding) || coding == "*" {
			AcceptsEncodings(strings.Split(field, "\n"), []string{coding}) // no panic
			return
		}
		accept := strings.Split(field, "\n")
		got := AcceptsEncoding(accept, coding)
		if want := modelAccepts(accept, coding); got != want {
			t.Errorf("AcceptsEncoding(%q, %q) = %v, want %v", accept, coding, got, want)
		}
		more := func(line string) []string { return append(accept[:len(accept):len(accept)], line) }
		if AcceptsEncoding(more(coding+";q=0"), coding) {
			t.Errorf("%q and %s;q=0 accepts %q", accept, coding, coding)
		}
		if got && !AcceptsEncoding(more(coding), coding) {
			t.Errorf("%q and %s does not accept %q", accept, coding, coding)
		}
		if AcceptsEncodings(accept, []string{coding, "gzip"}) && !got {
			t.Errorf("%q accepts %q and gzip but not %q", accept, coding, coding)
		}
	})
}
