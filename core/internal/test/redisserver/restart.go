package redisserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// From says what data a server restarts with.
type From int

const (
	// AsItWas restarts with the data on the disk: the append-only file, or else the last RDB file, which only a
	// snapshot, a SAVE, or a replica's first synchronization has written.
	AsItWas From = iota

	// Empty restarts with no data. A cluster's node keeps its name and its slots, a sentinel its masters.
	Empty

	// Snapshot restarts with the data of the last [Server.Snapshot].
	Snapshot
)

// ErrNoSnapshot is what Restart returns if there is no snapshot to restart from.
var ErrNoSnapshot = errors.New("there is no snapshot")

// Snapshot saves the server's data, and keeps a copy of them for [Server.Restart].
func (s *Server) Snapshot(ctx context.Context) error {
	err := wait(ctx, "SAVE", func(ctx context.Context) error {
		_, err := do(ctx, s.Addr(), "SAVE") // refused while a save in the background runs
		return err
	})
	if err != nil {
		return fmt.Errorf("snapshot of %s: %w", s.Addr(), err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := copyFile(s.file(dataFile), s.file(snapshotFile)); err != nil {
		return fmt.Errorf("snapshot of %s: %w", s.Addr(), err)
	}
	return nil
}

// Restart starts the server again on the same port, and waits until it answers. If it runs, it is killed first.
func (s *Server) Restart(ctx context.Context, from From) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.restart(ctx, from); err != nil {
		return fmt.Errorf("restart %s: %w", s.Addr(), err)
	}
	return nil
}

func (s *Server) restart(ctx context.Context, from From) error {
	if s.closed {
		return ErrNotRunning
	}
	s.kill()
	var more []string
	if from != AsItWas {
		if err := s.wipe(); err != nil {
			return err
		}
	}
	if from == Snapshot {
		if err := copyFile(s.file(snapshotFile), s.file(dataFile)); errors.Is(err, os.ErrNotExist) {
			return ErrNoSnapshot
		} else if err != nil {
			return err
		}
		// A server with an append-only file does not look at an RDB file.
		more = []string{"--appendonly", "no"}
	}
	err := wait(ctx, "the port", func(ctx context.Context) error {
		if err := s.run(ctx, more...); errors.Is(err, errPortTaken) {
			return err
		} else if err != nil {
			return &finalError{err}
		}
		return nil
	})
	if err != nil || from != Snapshot || !s.o.AppendOnly {
		return err
	}
	if _, err := do(ctx, s.Addr(), "CONFIG", "SET", "appendonly", "yes"); err != nil {
		return err
	}
	return wait(ctx, "the append-only file", func(ctx context.Context) error {
		if err := wantField(ctx, s, "persistence", "aof_rewrite_scheduled", "0"); err != nil {
			return err
		}
		return wantField(ctx, s, "persistence", "aof_rewrite_in_progress", "0")
	})
}

// wipe removes the data of a server that does not run.
func (s *Server) wipe() error {
	for _, pattern := range []string{dataFile, "temp-*", "appendonly*"} {
		files, err := filepath.Glob(s.file(pattern))
		if err != nil {
			return err
		}
		for _, f := range files {
			if err := os.RemoveAll(f); err != nil {
				return err
			}
		}
	}
	return nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
