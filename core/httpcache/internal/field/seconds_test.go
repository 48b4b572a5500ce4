package field

import (
	"math/big"
	"strings"
	"testing"
	"time"
)

func TestParseSeconds(t *testing.T) {
	tests := []struct {
		in   string
		want Seconds
	}{
		{"0", secs(0)},
		{"007", secs(7)},
		{"2147483647", secs(1<<31 - 1)},
		{"2147483649", secs(1 << 31)},
		{"18446744073709551617", secs(1 << 31)},
		{"", Seconds{}},
		{" 1", Seconds{}},
		{"-1", Seconds{}},
		{"1.0", Seconds{}},
		{"1e3", Seconds{}},
		{"٣", Seconds{}},
	}
	for _, tt := range tests {
		if got := ParseSeconds(tt.in); got != tt.want {
			t.Errorf("ParseSeconds(%q) = %v, want %v", tt.in, got, tt.want)
		}
	}
	if got, want := secs(1<<31).Duration(), 1<<31*time.Second; got != want {
		t.Errorf("Duration of 2^31 = %v, want %v", got, want)
	}
}

func TestParseAge(t *testing.T) {
	tests := []struct {
		name   string
		values []string
		want   Seconds
	}{
		{"absent", nil, Seconds{}},
		{"one", []string{" 5 "}, secs(5)},
		{"first member", []string{"7200,0"}, secs(7200)},
		{"lines joined on the way", []string{"7200, 0"}, Seconds{}},
		{"lines", []string{"7200", "0"}, Seconds{}},
		{"invalid", []string{"abc"}, Seconds{}},
		{"negative", []string{"-7200"}, Seconds{}},
		{"with a parameter", []string{"7200;a=b"}, Seconds{}},
	}
	for _, tt := range tests {
		got, ok := ParseAge(tt.values)
		if got != tt.want || ok != (tt.want.Present || tt.values == nil) {
			t.Errorf("%s: ParseAge(%q) = %v, %v, want %v", tt.name, tt.values, got, ok, tt.want)
		}
	}
}

func modelSeconds(s string) Seconds {
	n, ok := new(big.Int).SetString(s, 10)
	if !ok || !modelDigits.MatchString(s) {
		return Seconds{}
	}
	if !n.IsInt64() || n.Int64() > 1<<31 {
		return Seconds{1 << 31, true}
	}
	return Seconds{n.Int64(), true}
}

func FuzzAge(f *testing.F) {
	for _, seed := range []string{"0", "007", "2147483649", "18446744073709551617", "", " 5 ", "7200, 0", "7200\n0", "-1", "1.0", "٣", "1_0", `"5"`, `"a,5`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, field string) {
		if got, want := ParseSeconds(field), modelSeconds(field); got != want {
			t.Errorf("ParseSeconds(%q) = %v, want %v", field, got, want)
		}
		values := strings.Split(field, "\n")
		first, _, _ := strings.Cut(values[0], ",") // a member with a quote in it is no number anyway
		want := modelSeconds(strings.Trim(first, " \t"))
		if len(values) > 1 || strings.Contains(field, ", ") {
			want = Seconds{}
		}
		if got, ok := ParseAge(values); got != want || ok != want.Present {
			t.Errorf("ParseAge(%q) = %v, %v, want %v", values, got, ok, want)
		}
	})
}
