package field

import (
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
		{"first member", []string{"7200, 0"}, secs(7200)},
		{"first line", []string{"7200", "0"}, secs(7200)},
		{"invalid is none", []string{"abc", "5"}, Seconds{}},
		{"negative is none", []string{"-7200"}, Seconds{}},
	}
	for _, tt := range tests {
		if got := ParseAge(tt.values); got != tt.want {
			t.Errorf("%s: ParseAge(%q) = %v, want %v", tt.name, tt.values, got, tt.want)
		}
	}
}
