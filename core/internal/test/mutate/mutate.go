// Package mutate takes rules out of this module's source. Tests use it to show that other
// tests fail without a rule.
//
// Production code has no switch for that. A rule consists of a text of the source and a
// replacement that lacks the rule. An overlay (go help build) builds the test binary from
// the changed text, and the source stays unchanged. A text that its file does not hold
// exactly once is an error, so that a rule that has moved is not passed over.
package mutate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Edit is a replacement of a text in a file.
type Edit struct {
	File     string // under the module's directory, with slashes
	Old, New string // File holds Old exactly once
}

// Replace replaces a text of a file by another one.
func Replace(file, old, another string) Edit { return Edit{file, old, another} }

// Never makes a condition false. Its operands are still used.
func Never(file, condition string) Edit {
	return Edit{file, condition, "(false && (" + condition + "))"}
}

// Always makes a condition true. It is still evaluated.
func Always(file, condition string) Edit {
	return Edit{file, condition, "((" + condition + ") || true)"}
}

// After inserts statements behind a text.
func After(file, text, statements string) Edit {
	return Edit{file, text, text + "\n" + statements}
}

// Rule is a rule, with the edits that take it out of the source.
type Rule struct {
	Name  string
	Edits []Edit
}

// builds is the number of concurrent builds: a build uses several cores and much memory.
const builds = 2

// Module is the source of a module.
type Module struct {
	dir   string
	slots chan struct{}
}

// Open returns the module whose go.mod is in dir.
func Open(dir string) (*Module, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil {
		return nil, fmt.Errorf("mutate: the module's directory: %w", err)
	}
	return &Module{dir, make(chan struct{}, builds)}, nil
}

// Check returns an error that names each edit of a rule whose text is not in its file
// exactly once.
func (m *Module) Check(r Rule) error {
	_, err := m.mutated(r)
	return err
}

// Build builds the test binary of a package without a rule. Package is a path as the go
// command takes it in the module's directory, and flags are more flags of go test. A
// Rule without edits leaves the source as it is.
func (m *Module) Build(ctx context.Context, r Rule, pkg, binary string, flags ...string) error {
	files, err := m.mutated(r)
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "mutate")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	overlay, err := writeOverlay(tmp, files)
	if err != nil {
		return err
	}
	args := append([]string{"test", "-c", "-vet=off", "-overlay", overlay, "-o", binary}, flags...)
	select {
	case m.slots <- struct{}{}:
		defer func() { <-m.slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	cmd := exec.CommandContext(ctx, "go", append(args, pkg)...)
	cmd.Dir = m.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mutate: %s does not build without rule %q: %w\n%s", pkg, r.Name, err, out)
	}
	return nil
}

// mutated returns the text of each file that a rule's edits change, by its path.
func (m *Module) mutated(r Rule) (map[string]string, error) {
	old, texts := map[string]string{}, map[string]string{}
	var failures []error
	for _, e := range r.Edits {
		path := filepath.Join(m.dir, filepath.FromSlash(e.File))
		if _, ok := old[path]; !ok {
			raw, err := os.ReadFile(path)
			if err != nil {
				return nil, fmt.Errorf("mutate: rule %q: %w", r.Name, err)
			}
			old[path], texts[path] = string(raw), string(raw)
		}
		if n := strings.Count(old[path], e.Old); n != 1 || strings.Count(texts[path], e.Old) != 1 {
			failures = append(failures, fmt.Errorf("mutate: rule %q: %s holds this text %d times, not once:\n%s", r.Name, e.File, n, e.Old))
			continue
		}
		texts[path] = strings.Replace(texts[path], e.Old, e.New, 1)
	}
	return texts, errors.Join(failures...)
}

// writeOverlay writes files to dir, and the overlay that puts them in their places.
func writeOverlay(dir string, files map[string]string) (path string, err error) {
	replace := map[string]string{}
	for file, text := range files {
		name := filepath.Join(dir, fmt.Sprintf("%d_%s", len(replace), filepath.Base(file)))
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			return "", err
		}
		replace[file] = name
	}
	raw, err := json.Marshal(map[string]map[string]string{"Replace": replace})
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, "overlay.json")
	return path, os.WriteFile(path, raw, 0o600)
}
