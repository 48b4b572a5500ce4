package core

import (
	"strings"
	"time"

	"github.com/larderhq/larder/core/internal/naming"
)

// Limits that are not options. Each is far above what an app needs and far below
// what would hurt it.
const (
	// MaxKeyBytes is the longest key, tag or pattern, in bytes.
	MaxKeyBytes = naming.MaxBytes
	// MaxTagsPerEntry is how many tags an entry can carry. What names more is not
	// stored.
	MaxTagsPerEntry = naming.MaxTags
	// MaxValidatorBytes is the longest validator, in bytes.
	MaxValidatorBytes = 1024
	// MaxDuration is the longest duration of a class: a year.
	MaxDuration = 365 * 24 * time.Hour
	// MinDuration is the shortest one that is not zero, since the shared tier
	// counts in milliseconds.
	MinDuration = time.Millisecond
)

func checkDuration(field string, d time.Duration) error {
	if d == 0 || d >= MinDuration && d <= MaxDuration {
		return nil
	}
	return &ConfigError{Field: field, Value: d.String(), Allowed: "0, or 1ms to 8760h (a year)"}
}

// checkName checks a key, tag, pattern or prefix.
func checkName(field, s string) error {
	switch {
	case s == "":
		return &ConfigError{Field: field, Value: s, Allowed: "a string of 1 to 1024 bytes"}
	case len(s) > MaxKeyBytes:
		return &ConfigError{Field: field, Value: s[:32] + "…", Allowed: "a string of 1 to 1024 bytes"}
	case naming.HasControl(s):
		return &ConfigError{Field: field, Value: strings.Clone(s), Allowed: "no control characters (bytes 0x00 to 0x1f, 0x7f)"}
	}
	return nil
}
