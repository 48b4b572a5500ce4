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
		{"a long s is no s", []string{"compreſs"}, "compress", false},
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

// modelWeights are the weights of all codings in the field, by their names.
func modelWeights(accept []string) map[string]float64 {
	weights := map[string]float64{}
	for _, member := range strings.Split(strings.Join(accept, ","), ",") {
		name, params, weighted := strings.Cut(member, ";")
		name = modelAlias(strings.Trim(name, " \t"))
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
	return weights
}

func modelAlias(coding string) string {
	coding = asciiLower(coding)
	if coding == "x-gzip" || coding == "x-compress" {
		return coding[2:]
	}
	return coding
}

// modelQuality is the weight of a coding. Identity has the smallest one where the
// field does not speak of it.
func modelQuality(accept []string, coding string) float64 {
	weights := modelWeights(accept)
	if q, ok := weights[modelAlias(coding)]; ok {
		return q
	}
	if q, ok := weights["*"]; ok {
		return q
	}
	if modelAlias(coding) == "identity" {
		return 0.0001
	}
	return 0
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
		if want := modelQuality(accept, coding) > 0; got != want {
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

func TestChooseEncoding(t *testing.T) {
	offered := []string{"zstd", "br", "gzip"}
	tests := []struct {
		name    string
		accept  []string
		offered []string
		want    string
		ok      bool
	}{
		{"absent", nil, offered, "", true},
		{"empty, RFC 9110 section 12.5.3", []string{""}, offered, "", true},
		{"nothing offered", []string{"gzip"}, nil, "", true},
		{"nothing offered is accepted", []string{"deflate"}, offered, "", true},
		{"the server's order among equals", []string{"gzip, deflate, br"}, offered, "br", true},
		{"the client's weights, RFC 9110 section 12.4.2", []string{"br;q=0.9, gzip"}, offered, "gzip", true},
		{"by a thousandth", []string{"br;q=0.998", "gzip;q=0.999"}, offered, "gzip", true},
		{"the smallest weight", []string{"gzip;q=0.001"}, offered, "gzip", true},
		{"as it was offered", []string{"gzip"}, []string{"X-Gzip"}, "X-Gzip", true},
		{"alias, RFC 9110 section 8.4.1.3", []string{"x-gzip"}, offered, "gzip", true},
		{"refused", []string{"gzip;q=0"}, offered, "", true},
		{"listed twice", []string{"gzip, br;q=0.5, gzip;q=0.1"}, offered, "br", true},
		{"malformed weight", []string{"gzip;q=2, br;q=0.1"}, offered, "br", true},
		{"star", []string{"*"}, offered, "zstd", true},
		{"star but one", []string{"*, zstd;q=0"}, offered, "br", true},
		{"listed over star", []string{"gzip, *;q=0.5"}, offered, "gzip", true},
		{"star over listed", []string{"gzip;q=0.1, *;q=0.5"}, offered, "zstd", true},
		{"identity by star", []string{"gzip;q=0.1, *;q=0.5"}, []string{"gzip"}, "", true},
		{"identity weighs more", []string{"gzip;q=0.5, identity"}, offered, "", true},
		{"identity weighs the same", []string{"gzip;q=0.5, identity;q=0.5"}, offered, "gzip", true},
		{"identity weighs less", []string{"gzip;q=0.5, identity;q=0.1"}, offered, "gzip", true},
		{"identity is offered first", []string{"gzip, identity"}, []string{"Identity", "gzip"}, "", true},
		{"identity is offered but not listed", []string{"gzip;q=0.1"}, []string{"identity", "gzip"}, "gzip", true},
		{"identity refused", []string{"gzip, identity;q=0"}, offered, "gzip", true},
		{"all refused", []string{"identity;q=0"}, offered, "", false},
		{"all refused by star", []string{"*;q=0"}, offered, "", false},
		{"all refused but identity", []string{"*;q=0, identity;q=0.1"}, offered, "", true},
		{"what is not offered", []string{"deflate, *;q=0"}, offered, "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, ok := ChooseEncoding(tt.accept, tt.offered); got != tt.want || ok != tt.ok {
				t.Errorf("ChooseEncoding(%q, %q) = %q, %v, want %q, %v", tt.accept, tt.offered, got, ok, tt.want, tt.ok)
			}
		})
	}
}

func TestChooseEncodingDoesNotAllocate(t *testing.T) {
	accept, offered := []string{"gzip, deflate, br;q=0.9, zstd, *;q=0"}, []string{"br", "zstd", "gzip"}
	if n := testing.AllocsPerRun(100, func() { ChooseEncoding(accept, offered) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzChooseEncoding(f *testing.F) {
	for _, seed := range [][2]string{
		{"gzip, br", "zstd,br,gzip"}, {"", "gzip"}, {"gzip;q=0.1, *;q=0.5", "gzip,br"}, {"gzip, identity", "identity,gzip"},
		{"*;q=0", "gzip"}, {"br;q=0.998\ngzip;q=0.999", "br,gzip"}, {"x-gzip, gzip;q=0.5", "br,X-GZIP"}, {"identity;q=0, *", "br"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, field, codings string) {
		var offered []string
		for _, coding := range strings.Split(codings, ",") {
			if isToken(coding) && coding != "*" {
				offered = append(offered, coding)
			}
		}
		accept := strings.Split(field, "\n")
		got, ok := ChooseEncoding(accept, offered)

		best, want := 0.0, ""
		for _, coding := range append(offered[:len(offered):len(offered)], "identity") {
			if q := modelQuality(accept, coding); q > best {
				best, want = q, coding
			}
		}
		if modelAlias(want) == "identity" {
			want = ""
		}
		if got != want || ok != (best > 0) {
			t.Errorf("ChooseEncoding(%q, %q) = %q, %v, want %q, %v", accept, offered, got, ok, want, best > 0)
		}
		if ok && !AcceptsEncodings(accept, []string{got}) {
			t.Errorf("ChooseEncoding(%q, %q) = %q, which is not accepted", accept, offered, got)
		}
	})
}
