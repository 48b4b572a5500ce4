package field

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"math/big"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseRange(t *testing.T) {
	lines := func(s ...string) []string { return s }
	spans := func(s ...Span) []Span { return s }
	ignored := spans(Span{-1, -1}) // stands for ok == false
	many := func(n int, spec string) []string {
		return lines("bytes=" + strings.Repeat(spec+",", n))
	}
	tests := []struct {
		name   string
		values []string
		size   int64
		want   []Span // none: not satisfiable
	}{
		{"absent", nil, 10, ignored},
		{"empty", lines(""), 10, ignored},
		{"several lines, RFC 9110 section 5.3", lines("bytes=0-1", "bytes=2-3"), 10, ignored},
		{"first and last, RFC 9110 section 14.1.2", lines("bytes=0-499"), 10000, spans(Span{0, 499})},
		{"one byte", lines("bytes=9-9"), 10, spans(Span{9, 9})},
		{"everything", lines("bytes=0-"), 10, spans(Span{0, 9})},
		{"to the end", lines("bytes=3-"), 10, spans(Span{3, 9})},
		{"over the end, RFC 9110 section 14.1.2", lines("bytes=3-99"), 10, spans(Span{3, 9})},
		{"suffix", lines("bytes=-3"), 10, spans(Span{7, 9})},
		{"suffix of more than there is, RFC 9110 section 14.1.2", lines("bytes=-99"), 10, spans(Span{0, 9})},
		{"several", lines("bytes=0-0,-1"), 10000, spans(Span{0, 0}, Span{9999, 9999})},
		{"several, in any order", lines("bytes= 999-1000 , 4500-5499,, \t-1000"), 10000, spans(Span{999, 1000}, Span{4500, 5499}, Span{9000, 9999})},
		{"some satisfiable, RFC 9110 section 14.1.2", lines("bytes=10-,4-5,-0"), 10, spans(Span{4, 5})},
		{"the unit has no case, RFC 9110 section 14.1", lines("BYTES=0-1"), 10, spans(Span{0, 1})},
		{"leading zeros", lines("bytes=000-0000000000000000000000001"), 10, spans(Span{0, 1})},

		{"not satisfiable, RFC 9110 section 15.5.17", lines("bytes=10-"), 10, nil},
		{"not satisfiable, several", lines("bytes=10-12,99-"), 10, nil},
		{"suffix of nothing, RFC 9110 section 14.1.2", lines("bytes=-0"), 10, nil},
		{"too large for an int64, RFC 9110 section 14.1.2", lines("bytes=9223372036854775808-"), 10, nil},
		{"last too large for an int64", lines("bytes=4-99999999999999999999"), 10, spans(Span{4, 9})},
		{"suffix too large for an int64", lines("bytes=-99999999999999999999"), 10, spans(Span{0, 9})},
		{"large", lines("bytes=1-9223372036854775806"), math.MaxInt64, spans(Span{1, math.MaxInt64 - 1})},

		{"no bytes", lines("bytes=0-"), 0, ignored},
		{"no bytes, suffix", lines("bytes=-1"), 0, ignored},
		{"another unit, RFC 9110 section 14.2", lines("lines=0-1"), 10, ignored},
		{"another unit that looks the same", lines("byteſ=0-1"), 10, ignored},
		{"no unit", lines("0-1"), 10, ignored},
		{"no equals sign", lines("bytes 0-1"), 10, ignored},
		{"space before the equals sign", lines("bytes =0-1"), 10, ignored},
		{"no ranges", lines("bytes="), 10, ignored},
		{"only commas", lines("bytes=, ,"), 10, ignored},
		{"no dash", lines("bytes=1"), 10, ignored},
		{"only a dash", lines("bytes=-"), 10, ignored},
		{"last before first, RFC 9110 section 14.1.1", lines("bytes=2-1"), 10, ignored},
		{"last before first, over the end", lines("bytes=20-19"), 10, ignored},
		{"one malformed", lines("bytes=0-1,x"), 10, ignored},
		{"one malformed behind what is not satisfiable", lines("bytes=10-,x"), 10, ignored},
		{"letters", lines("bytes=a-b"), 10, ignored},
		{"two dashes", lines("bytes=1-2-3"), 10, ignored},
		{"negative suffix", lines("bytes=--1"), 10, ignored},
		{"sign", lines("bytes=0-+1"), 10, ignored},
		{"space inside", lines("bytes=0 - 1"), 10, ignored},

		{"as much as there is", lines("bytes=0-4,5-9"), 10, spans(Span{0, 4}, Span{5, 9})},
		{"more than there is, RFC 9110 section 14.2", lines("bytes=0-4,4-9"), 10, ignored},
		{"more than there is, over an int64", lines("bytes=0-,0-,0-"), math.MaxInt64, ignored},
		{"two overlap, RFC 9110 section 14.2", lines("bytes=0-2,2-4"), 10, spans(Span{0, 2}, Span{2, 4})},
		{"three overlap, RFC 9110 section 14.2", lines("bytes=0-2,2-4,4-5"), 10, ignored},
		{"two pairs overlap", lines("bytes=0-1,1-2,10-11,11-12"), 100, ignored},
		{"as many as there may be", many(maxRanges, "10-"), 10, nil},
		{"too many", many(maxRanges+1, "10-"), 10, ignored},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			wantOK := !slices.Equal(tt.want, ignored)
			if !wantOK {
				tt.want = nil
			}
			if got, ok := ParseRange(tt.values, tt.size); !slices.Equal(got, tt.want) || ok != wantOK {
				t.Errorf("ParseRange(%q, %d) = %v, %v, want %v, %v", tt.values, tt.size, got, ok, tt.want, wantOK)
			}
		})
	}
}

var (
	modelRange = regexp.MustCompile(`^[ \t]*[bB][yY][tT][eE][sS]=(?:[ \t]*(?:[0-9]+-[0-9]*|-[0-9]+)?[ \t]*(?:,|$))*$`)
	modelSpec  = regexp.MustCompile(`([0-9]*)-([0-9]*)`)
)

// servedRanges is what http.ServeContent makes of a Range field: spans, or a 416
// that says how many bytes there are (ok, no spans). ok is false where it sends
// everything, and for a 416 that does not, by which it refuses malformed fields.
func servedRanges(t *testing.T, value string, size int64) (spans []Span, ok bool) {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header["Range"] = []string{value}
	w := httptest.NewRecorder()
	w.Header().Set("Content-Type", "text/plain")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(make([]byte, size)))
	add := func(contentRange string) {
		var s Span
		var of int64
		if _, err := fmt.Sscanf(contentRange, "bytes %d-%d/%d", &s.First, &s.Last, &of); err != nil || of != size {
			t.Fatalf("ServeContent of %q, %d bytes: %q: %v", value, size, contentRange, err)
		}
		spans = append(spans, s)
	}
	switch kind, params, _ := mime.ParseMediaType(w.Header().Get("Content-Type")); {
	case w.Code == http.StatusOK:
		return nil, false
	case w.Code == http.StatusRequestedRangeNotSatisfiable:
		return nil, w.Header().Get("Content-Range") == fmt.Sprintf("bytes */%d", size)
	case w.Code != http.StatusPartialContent:
		t.Fatalf("ServeContent of %q, %d bytes: status %d", value, size, w.Code)
	case kind != "multipart/byteranges":
		add(w.Header().Get("Content-Range"))
	default:
		for parts := multipart.NewReader(w.Body, params["boundary"]); ; {
			part, err := parts.NextPart()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			add(part.Header.Get("Content-Range"))
		}
	}
	return spans, true
}

// modelOverlapping counts byte by byte.
func modelOverlapping(spans []Span, size int64) (n int) {
	owners := make([]int, size)
	for _, s := range spans {
		for i := s.First; i <= s.Last; i++ {
			owners[i]++
		}
	}
	for _, s := range spans {
		if slices.Max(owners[s.First:s.Last+1]) > 1 {
			n++
		}
	}
	return n
}

// The model of ParseRange is http.ServeContent. It departs from that in this:
//
//   - A malformed field is ignored. ServeContent refuses most of it by a 416,
//     accepts spaces and signs in a range, and does not look at the last byte of
//     one that begins behind the end.
//   - The unit has no case, and numbers may be too large for an int64.
//   - "-0" cannot be satisfied. ServeContent sends "bytes 10-9/10".
//   - Where there are no bytes, the field is always ignored. ServeContent sends
//     "bytes 0--1/0" for a suffix.
//   - There are limits on ranges, and on those that overlap.
func FuzzRange(f *testing.F) {
	for _, seed := range []string{
		"", "bytes=0-499", "bytes=3-", "bytes=-3", "bytes=-0", "bytes=0-0,-1", "bytes= 99-100 , 45-54,, \t-10", "BYTES=0-1", "lines=0-1", "bytes=2-1", "bytes=700-600",
		"bytes=10-", "bytes=10-,4-5,-0", "bytes=", "bytes=,", "bytes=1", "bytes=0-+1", "bytes=0 - 1", "bytes=--1", "bytes=99999999999999999999-",
		"bytes=4-99999999999999999999", "bytes=0-4,4-9", "bytes=0-2,2-4,4-5", "bytes=" + strings.Repeat("0-0,", 33), "bytes=" + strings.Repeat("99-,", 32),
	} {
		f.Add(seed, uint8(10))
		f.Add(seed, uint8(0))
		f.Add(seed, uint8(100))
	}
	f.Fuzz(func(t *testing.T, value string, length uint8) {
		size := int64(length)
		got, ok := ParseRange([]string{value}, size)
		if len(got) > maxRanges || !ok && got != nil {
			t.Fatalf("ParseRange(%q, %d) = %v, %v", value, size, got, ok)
		}

		var want []Span
		wantOK := modelRange.MatchString(value) && size > 0
		if specs := modelSpec.FindAllStringSubmatch(value, -1); wantOK && len(specs) <= maxRanges {
			strict := "bytes="
			valid := true
			for _, spec := range specs {
				for i, digits := range spec[1:] {
					if n, ok := new(big.Int).SetString(digits, 10); ok && !n.IsInt64() {
						spec[i+1] = fmt.Sprint(int64(math.MaxInt64))
					}
				}
				first, ok1 := new(big.Int).SetString(spec[1], 10)
				last, ok2 := new(big.Int).SetString(spec[2], 10)
				valid = valid && (!ok1 || !ok2 || last.Cmp(first) >= 0)
				if spec[1] == "" && strings.Trim(spec[2], "0") == "" {
					spec[1], spec[2] = fmt.Sprint(size), ""
				}
				strict += spec[1] + "-" + spec[2] + ","
			}
			want, wantOK = servedRanges(t, strict, size)
			if !valid || modelOverlapping(want, size) > 2 {
				want, wantOK = nil, false
			}
		} else {
			wantOK = false
		}
		if !slices.Equal(got, want) || ok != wantOK {
			t.Errorf("ParseRange(%q, %d) = %v, %v, want %v, %v", value, size, got, ok, want, wantOK)
		}
	})
}

func TestIfRangeHolds(t *testing.T) {
	const text = "Sun, 06 Nov 1994 08:49:37 GMT"
	modified := time.Date(1994, 11, 6, 8, 49, 37, 0, time.UTC)
	later := modified.Add(time.Second)
	tests := []struct {
		name           string
		values         []string
		etag           string
		modified, date time.Time
		want           bool
	}{
		{"absent", nil, `"a"`, modified, later, true},
		{"absent, nothing to compare with", nil, "", time.Time{}, time.Time{}, true},
		{"empty", []string{""}, `"a"`, modified, later, false},
		{"several lines", []string{`"a"`, `"a"`}, `"a"`, modified, later, false},
		{"same tag, RFC 9110 section 13.1.5", []string{`"a"`}, `"a"`, time.Time{}, time.Time{}, true},
		{"other tag", []string{`"b"`}, `"a"`, modified, later, false},
		{"no tag", []string{`"a"`}, "", modified, later, false},
		{"weak in the field, RFC 9110 section 8.8.3.2", []string{`W/"a"`}, `"a"`, modified, later, false},
		{"weak response", []string{`"a"`}, `W/"a"`, modified, later, false},
		{"both weak", []string{`W/"a"`}, `W/"a"`, modified, later, false},
		{"malformed tag", []string{`a`}, `a`, modified, later, false},
		{"a list", []string{`"a", "b"`}, `"a"`, modified, later, false},
		{"star", []string{"*"}, `"a"`, modified, later, false},
		{"same date, RFC 9110 section 13.1.5", []string{text}, `"a"`, modified, later, true},
		{"same date, a day later", []string{text}, "", modified, modified.AddDate(0, 0, 1), true},
		{"same date in another form, RFC 9110 section 5.6.7", []string{"Sun Nov  6 08:49:37 1994"}, "", modified, later, true},
		{"earlier date", []string{"Sun, 06 Nov 1994 08:49:36 GMT"}, "", modified, later, false},
		{"later date", []string{"Sun, 06 Nov 1994 08:49:38 GMT"}, "", modified, later, false},
		{"made in the same second, RFC 9110 section 8.8.2.2", []string{text}, "", modified, modified, false},
		{"made before", []string{text}, "", modified, modified.Add(-time.Hour), false},
		{"not known when made", []string{text}, "", modified, time.Time{}, false},
		{"not known when modified", []string{text}, "", time.Time{}, later, false},
		{"the zero time", []string{"Mon, 01 Jan 0001 00:00:00 GMT"}, "", time.Time{}, later, false},
		{"malformed date", []string{"Sun, 6 Nov 1994 08:49:37 GMT"}, "", modified, later, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := IfRangeHolds(tt.values, tt.etag, tt.modified, tt.date); got != tt.want {
				t.Errorf("IfRangeHolds(%q, %s, %v, %v) = %v", tt.values, tt.etag, tt.modified, tt.date, got)
			}
		})
	}
}

func TestIfRangeHoldsDoesNotAllocate(t *testing.T) {
	values, now := []string{`"abc"`}, time.Now()
	if n := testing.AllocsPerRun(100, func() { IfRangeHolds(values, `"abc"`, now, now) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// The model of IfRangeHolds is http.ServeContent, for what both read. That reads
// some tags and dates that are malformed (a tag and more behind it, a date without
// a zero), an empty field as none, and every date as a strong one; and it counts
// the two digits of a year otherwise.
func FuzzIfRange(f *testing.F) {
	for _, value := range []string{
		"", `"a"`, `W/"a"`, `"a", "b"`, `"a"b`, "*", "a", "Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994",
	} {
		f.Add(value, `"a"`, int64(784111777), int64(1), false)
		f.Add(value, `W/"a"`, int64(784111777), int64(0), true)
		f.Add(value, "", int64(-1), int64(-1), true)
	}
	f.Fuzz(func(t *testing.T, value, etag string, unix, age int64, same bool) {
		modified := time.Unix(unix%(1<<37), 0).UTC() // four digits of a year
		age %= 1 << 30
		if same {
			value = modified.Format(http.TimeFormat)
		}
		value = strings.Trim(value, " \t")
		got := IfRangeHolds([]string{value}, etag, modified, modified.Add(time.Duration(age)*time.Second))

		_, isTag := ParseETag(value)
		date, isDate := ParseDate(value)
		want := false
		switch {
		case !isTag && !isDate || isDate && age < 1:
		case isDate && strings.Contains(value, "-"):
			want = date.Equal(modified)
		default:
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.Header["Range"], r.Header["If-Range"] = []string{"bytes=0-0"}, []string{value}
			w := httptest.NewRecorder()
			w.Header()["Etag"] = []string{etag}
			http.ServeContent(w, r, "", modified, strings.NewReader("content"))
			want = w.Code == http.StatusPartialContent
		}
		if got != want {
			t.Errorf("IfRangeHolds(%q, %q, %v, %d s later) = %v", value, etag, modified, age, got)
		}
	})
}
