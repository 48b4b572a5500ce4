package field

import (
	"regexp"
	"strings"
	"testing"
)

func TestParseETag(t *testing.T) {
	valid := map[string]ETag{
		`"a"`:      {false, `"a"`},
		`""`:       {false, `""`},
		`W/""`:     {true, `""`},
		`W/"a,b"`:  {true, `"a,b"`},
		`"a\"`:     {false, `"a\"`}, // no escapes in opaque tags
		"\"\xfc\"": {false, "\"\xfc\""},
	}
	for s, want := range valid {
		if got, ok := ParseETag(s); got != want || !ok || !Valid(s) {
			t.Errorf("ParseETag(%q) = %v, %v, want %v", s, got, ok, want)
		}
	}
	for _, s := range []string{"", "a", `"a`, `a"`, `"`, `W/`, `W/"`, `w/"a"`, `W"a"`, `W\"a"`, `W/ "a"`, `"a b"`, `"a"b"`, `"a" `, "\"\x7f\"", "\"\t\"", "*"} {
		if got, ok := ParseETag(s); ok || Valid(s) {
			t.Errorf("ParseETag(%q) = %v, want none", s, got)
		}
	}
}

func TestMatch(t *testing.T) {
	tests := []struct {
		name         string
		field        []string
		etag         string
		weak, strong bool
	}{
		{"absent", nil, `"a"`, false, false},
		{"empty", []string{""}, `"a"`, false, false},
		{"same", []string{`"a"`}, `"a"`, true, true},
		{"other", []string{`"b"`}, `"a"`, false, false},
		{"case", []string{`"A"`}, `"a"`, false, false},
		{"weak in the field", []string{`W/"a"`}, `"a"`, true, false},
		{"weak response", []string{`"a"`}, `W/"a"`, true, false},
		{"both weak", []string{`W/"a"`}, `W/"a"`, true, false},
		{"in a list", []string{`"x", W/"y" ,,"a"`}, `"a"`, true, true},
		{"in another line", []string{`"x"`, `"a"`}, `"a"`, true, true},
		{"comma inside", []string{`"x,y", "a,b"`}, `"a,b"`, true, true},
		{"no part of a tag with a comma", []string{`"a,b"`}, `"a"`, false, false},
		{"star", []string{" * "}, `"a"`, true, true},
		{"star, no etag", []string{"*"}, "", true, true},
		{"star is not a member", []string{`"x", *`}, `"a"`, false, false},
		{"star and tag", []string{`*, "a"`}, `"a"`, false, false},
		{"star in another line", []string{"*", "*"}, `"a"`, false, false},
		{"star quoted", []string{`"*"`}, `"a"`, false, false},
		{"no etag", []string{`""`}, "", false, false},
		{"empty tag", []string{`""`}, `""`, true, true},
		{"unquoted", []string{"a"}, `"a"`, false, false},
		{"unquoted both", []string{"a"}, "a", false, false},
		{"before what is malformed", []string{`"a", b`}, `"a"`, true, true},
		{"after what is malformed", []string{`b, "a"`}, `"a"`, false, false},
		{"after a malformed line", []string{`b`, `"a"`}, `"a"`, false, false},
		{"no comma between", []string{`"a" "b"`}, `"a"`, false, false},
		{"what stands between two tags", []string{`x","a","y`}, `","`, false, false},
		{"text behind", []string{`"a"b`}, `"a"`, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := MatchWeak(tt.field, tt.etag); got != tt.weak {
				t.Errorf("MatchWeak(%q, %q) = %v", tt.field, tt.etag, got)
			}
			if got := MatchStrong(tt.field, tt.etag); got != tt.strong {
				t.Errorf("MatchStrong(%q, %q) = %v", tt.field, tt.etag, got)
			}
		})
	}
}

var (
	modelETag = `(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"`
	// A prefix of a well-formed list that ends with a whole member.
	modelETagList = regexp.MustCompile(`^(?:[ \t,]*` + modelETag + `[ \t]*(?:,|$))*`)
	modelETags    = regexp.MustCompile(modelETag)
	modelOneETag  = regexp.MustCompile(`^` + modelETag + `$`)
)

// latin1 spells bytes as runes, so that a regular expression sees bytes.
func latin1(s string) string {
	var b strings.Builder
	for i := range len(s) {
		b.WriteRune(rune(s[i]))
	}
	return b.String()
}

func FuzzETag(f *testing.F) {
	for _, seed := range []string{`"a"`, `""`, `W/"a,b"`, `"a\"`, "\"\xfc\"", "", "a", `"a`, `w/"a"`, `W/ "a"`, `"a b"`, `"a"b"`, "\"\x7f\"", "*"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, ok := ParseETag(s)
		if want := modelOneETag.MatchString(latin1(s)); ok != want || Valid(s) != want {
			t.Errorf("ParseETag(%q) = %v, %v, want %v", s, got, ok, want)
		}
		if mark := map[bool]string{true: "W/"}[got.Weak]; ok && mark+got.Opaque != s {
			t.Errorf("ParseETag(%q) = %v", s, got)
		}
	})
}

func FuzzIfNoneMatch(f *testing.F) {
	for _, seed := range [][2]string{
		{`"a"`, `"a"`}, {`W/"a", "b"`, `"b"`}, {"*", `"a"`}, {`"a,b"`, `"a"`}, {"\"a\"\n\"b\"", `W/"b"`},
		{`x","a`, `","`}, {`"a" "b"`, `"b"`}, {`*, "a"`, `"a"`}, {`""`, ""}, {"\"\xff\"", "\"\xff\""}, {",,\t", `""`},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, field, etag string) {
		values := strings.Split(field, "\n")
		weak, strong := MatchWeak(values, etag), MatchStrong(values, etag)
		if len(values) == 1 && strings.Trim(field, " \t") == "*" {
			if !weak || !strong {
				t.Errorf("* does not match %q", etag)
			}
			return
		}
		opaque, isWeak := strings.CutPrefix(etag, "W/")
		if weak && (!Valid(etag) || !strings.Contains(field, opaque)) {
			t.Errorf("MatchWeak(%q, %q) matches what is not there", values, etag)
		}
		if strong && (!weak || isWeak) {
			t.Errorf("MatchStrong(%q, %q) matches more than MatchWeak", values, etag)
		}

		wantWeak, wantStrong := false, false
		if Valid(etag) {
			// No tag has a space in it, so joining lines with one cannot make a tag.
			list := modelETagList.FindString(latin1(strings.Join(values, ", ")))
			for _, tag := range modelETags.FindAllString(list, -1) {
				wantWeak = wantWeak || strings.TrimPrefix(tag, "W/") == latin1(opaque)
				wantStrong = wantStrong || tag == latin1(etag) && !isWeak
			}
		}
		if weak != wantWeak || strong != wantStrong {
			t.Errorf("%q against %q: weak %v, strong %v, want %v, %v", values, etag, weak, strong, wantWeak, wantStrong)
		}
	})
}
