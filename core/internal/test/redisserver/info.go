package redisserver

import (
	"context"
	"fmt"
	"strings"
)

// info returns the fields of a section of INFO.
func info(ctx context.Context, addr, section string) (map[string]string, error) {
	reply, err := do(ctx, addr, "INFO", section)
	if err != nil {
		return nil, err
	}
	text, _ := reply.(string)
	return fields(text), nil
}

// fields reads lines of the form name:value.
func fields(text string) map[string]string {
	m := make(map[string]string)
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			m[name] = value
		}
	}
	return m
}

// wantField returns an error unless a section of INFO has the value in the field.
func wantField(ctx context.Context, s *Server, section, name, value string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	m, err := info(ctx, s.Addr(), section)
	if err != nil {
		return err
	}
	if m[name] != value {
		return fmt.Errorf("%s of %s is %q, not %q", name, s.Addr(), m[name], value)
	}
	return nil
}
