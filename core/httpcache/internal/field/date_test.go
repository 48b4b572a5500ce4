package field

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestParseDate(t *testing.T) {
	want := time.Date(1994, 11, 6, 8, 49, 37, 0, time.UTC)
	valid := map[string]time.Time{
		"Sun, 06 Nov 1994 08:49:37 GMT":     want,
		"Sunday, 06-Nov-94 08:49:37 GMT":    want,
		"Sun Nov  6 08:49:37 1994":          want,
		"Sun Nov 06 08:49:37 1994":          want,
		"Mon, 06 Nov 1994 08:49:37 GMT":     want, // the wrong day
		"Thu, 18 Aug 2050 02:01:18 GMT":     time.Date(2050, 8, 18, 2, 1, 18, 0, time.UTC),
		"Tue, 29 Feb 2000 23:59:59 GMT":     time.Date(2000, 2, 29, 23, 59, 59, 0, time.UTC),
		"Thu Aug 18 02:01:18 2050":          time.Date(2050, 8, 18, 2, 1, 18, 0, time.UTC),
		"Wednesday, 06-Nov-94 08:49:37 GMT": want,
	}
	for s, want := range valid {
		if got, ok := ParseDate(s); !ok || !got.Equal(want) || got.Location() != time.UTC {
			t.Errorf("ParseDate(%q) = %v, %v, want %v", s, got, ok, want)
		}
	}
	for _, s := range []string{
		"", "0", "-1", "now",
		"Sun, 06 Nov 1994 08:49:37", "Sun, 06 Nov 1994 08:49:37 UTC", "Sun, 06 Nov 1994 08:49:37 gMT", "Sun, 06 Nov 1994 08:49:37 +0000",
		"SUN, 06 Nov 1994 08:49:37 GMT", "Sun, 06 NOV 1994 08:49:37 GMT", "Xxx, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Xxx 1994 08:49:37 GMT",
		"Sun 06 Nov 1994 08:49:37 GMT", "Sun, 06  Nov 1994 08:49:37 GMT", "Sun, 06-Nov-1994 08:49:37 GMT", "Sun, 06 Nov 94 08:49:37 GMT",
		"Sun, 6 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 8:49:37 GMT", "Sun, 06 Nov 1994 08.49.37 GMT", "Sun, 06 Nov 1994 08:49:37.5 GMT",
		"Sun, 31 Nov 1994 08:49:37 GMT", "Wed, 29 Feb 1995 08:49:37 GMT", "Sun, 00 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 24:00:00 GMT",
		"Sun, 06 Nov 1994 23:59:60 GMT", " Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 GMT ",
		"Sunday, 06-Nov-1994 08:49:37 GMT", "Sunday, 06 Nov 94 08:49:37 GMT", "SUnday, 06-Nov-94 08:49:37 GMT", "Sun, 06-Nov-94 08:49:37 GMT",
		"Sun Nov 6 08:49:37 1994", "Sun Nov  6 08:49:37 1994 GMT", "Sun, Nov  6 08:49:37 1994",
	} {
		if got, ok := ParseDate(s); ok {
			t.Errorf("ParseDate(%q) = %v, want none", s, got)
		}
	}
}

func TestTwoDigitYears(t *testing.T) {
	now := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	tests := []struct {
		name, in string
		now      time.Time
		year     int
	}{
		{"this year", "01-Jul-26 12:00:00 GMT", now, 2026},
		{"in 50 years to the second", "01-Jul-76 12:00:00 GMT", now, 2076},
		{"a second later", "01-Jul-76 12:00:01 GMT", now, 1976},
		{"last year", "31-Dec-25 23:59:59 GMT", now, 2025},
		{"into the next century", "01-Jan-05 00:00:00 GMT", now.AddDate(70, 0, 0), 2105},
		{"a leap day", "29-Feb-00 00:00:00 GMT", now, 2000},
		{"a leap day that is none", "29-Feb-00 00:00:00 GMT", now.AddDate(50, 0, 0), 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			parsed, ok := parseLayout("02-Jan-06 15:04:05 GMT", tt.in)
			if !ok {
				t.Fatal("does not parse")
			}
			got, ok := withCentury(parsed, tt.now)
			if ok != (tt.year != 0) || ok && got.Year() != tt.year {
				t.Errorf("%s at %v is %v, %v, want %d", tt.in, tt.now, got, ok, tt.year)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) { // where it is always 2000
		if got, _ := ParseDate("Friday, 31-Dec-49 00:00:00 GMT"); got.Year() != 2049 {
			t.Errorf("in 2000, 49 is %v", got)
		}
		if got, _ := ParseDate("Friday, 31-Dec-51 00:00:00 GMT"); got.Year() != 1951 {
			t.Errorf("in 2000, 51 is %v", got)
		}
	})
}

func FuzzDate(f *testing.F) {
	for _, seed := range []string{
		"Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994", "Sun Nov 16 08:49:37 1994",
		"Thursday, 18-Aug-50 02:01:18 GMT", "Thursday, 29-Feb-00 02:01:18 GMT", "Sun, 06 Nov 0000 08:49:37 GMT", "0", "",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, ok := ParseDate(s)
		if !ok {
			// A refused date has none of the three forms.
			for _, layout := range []string{http.TimeFormat, time.RFC850, time.ANSIC} {
				layout = strings.Replace(layout, "MST", "GMT", 1)
				if parsed, err := time.Parse(layout, s); err == nil && parsed.Format(layout) == s && !strings.Contains(s, "29-Feb-") {
					t.Errorf("ParseDate(%q) refuses a date", s)
				}
			}
			return
		}
		want, err := http.ParseTime(s)
		if err != nil {
			t.Fatalf("ParseDate(%q) = %v, http.ParseTime: %v", s, got, err)
		}
		if strings.Contains(s, "-") { // the century is ours
			if want = want.AddDate(got.Year()-want.Year(), 0, 0); got.Year()%100 != want.Year()%100 {
				t.Errorf("ParseDate(%q) = %v, another year", s, got)
			}
			if limit := time.Now().AddDate(50, 0, 0); got.After(limit) || !got.AddDate(100, 0, 0).After(limit.AddDate(0, 0, -1)) {
				t.Errorf("ParseDate(%q) = %v, another century", s, got)
			}
		}
		if !got.Equal(want) || got.Location() != time.UTC {
			t.Errorf("ParseDate(%q) = %v, http.ParseTime %v", s, got, want)
		}
		// Exactly one form writes it, but for the name of the day.
		for _, layout := range []string{"02 Jan 2006 15:04:05 GMT", "02-Jan-06 15:04:05 GMT", "Jan _2 15:04:05 2006", "Jan 02 15:04:05 2006"} {
			if strings.HasSuffix(s, " "+got.Format(layout)) {
				return
			}
		}
		t.Errorf("ParseDate(%q) = %v, which no form writes", s, got)
	})
}
