package field

import (
	"net/http"
	"strings"
	"time"
)

// ParseDate reads an HTTP-date, RFC 9110 section 5.6.7, in its three forms:
//
//	Sun, 06 Nov 1994 08:49:37 GMT    IMF-fixdate
//	Sunday, 06-Nov-94 08:49:37 GMT   rfc850-date
//	Sun Nov  6 08:49:37 1994         asctime-date
//
// Case, spaces, the number of digits and the zone must be as they are here, which
// http.ParseTime does not ask for. The name of the day need not be the right one.
// Second 60 is refused, as a time.Time cannot hold it.
//
// The two digits of an rfc850 year stand for the latest year that does not put
// the date more than 50 years into the future; only this form reads the clock.
func ParseDate(s string) (time.Time, bool) {
	// The shape is what time.Parse is lax about; names and ranges it checks.
	switch {
	case hasShape(s, "Aaa, 00 Aaa 0000 00:00:00 AAA"):
		return parseLayout(http.TimeFormat, s)
	case hasShape(s, "Aaa Aaa 00 00:00:00 0000"), hasShape(s, "Aaa Aaa  0 00:00:00 0000"):
		return parseLayout(time.ANSIC, s)
	}
	day, date, _ := strings.Cut(s, ", ")
	if !isLongDay(day) || !hasShape(date, "00-Aaa-00 00:00:00 AAA") {
		return time.Time{}, false
	}
	t, ok := parseLayout("02-Jan-06 15:04:05 GMT", date)
	if !ok {
		return time.Time{}, false
	}
	return withCentury(t, time.Now())
}

// hasShape reports whether s is shape with another uppercase letter for each A,
// another lowercase letter for each a and another digit for each 0.
func hasShape(s, shape string) bool {
	if len(s) != len(shape) {
		return false
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case 'A' <= c && c <= 'Z':
			c = 'A'
		case 'a' <= c && c <= 'z':
			c = 'a'
		case '0' <= c && c <= '9':
			c = '0'
		}
		if c != shape[i] {
			return false
		}
	}
	return true
}

func isLongDay(s string) bool {
	switch s {
	case "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday":
		return true
	}
	return false
}

func parseLayout(layout, s string) (time.Time, bool) {
	t, err := time.Parse(layout, s)
	return t, err == nil
}

// withCentury moves t, of whose year only the last two digits are known, to the
// latest year that is not more than 50 years after now. ok is false where that
// year has no 29 February and t is one.
func withCentury(t, now time.Time) (_ time.Time, ok bool) {
	limit := now.UTC().AddDate(50, 0, 0)
	year := limit.Year() - ((limit.Year()-t.Year())%100+100)%100
	moved := t.AddDate(year-t.Year(), 0, 0)
	if moved.After(limit) {
		moved = t.AddDate(year-100-t.Year(), 0, 0)
	}
	return moved, moved.Day() == t.Day()
}

// StrongDate reports whether Last-Modified is a strong validator of a response that
// was made at date, RFC 9110 section 8.8.2.2: the second in which the content was
// modified had passed, so that it was not modified again in the same one. Either is
// zero where it is not known, and then it is not.
func StrongDate(lastModified, date time.Time) bool {
	return !lastModified.IsZero() && !date.IsZero() && date.Sub(lastModified) >= time.Second
}

// UnmodifiedSince reports whether content that was modified at lastModified, and read
// at date, is known not to have been modified after t, RFC 9110 sections 13.1.3 and
// 13.1.4. Of t's own second that is known only where lastModified is a strong
// validator.
func UnmodifiedSince(t, lastModified, date time.Time) bool {
	return t.After(lastModified) || t.Equal(lastModified) && StrongDate(lastModified, date)
}
