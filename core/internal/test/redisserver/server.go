package redisserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Options say how a server is configured. The zero value is a server on a free port that persists nothing.
type Options struct {
	// Args are more of the configuration, as on the command line: "--maxmemory", "1mb". They win over what this
	// package says.
	Args []string

	// AppendOnly keeps an append-only file, synced at every write: a write that was answered survives [Server.Kill].
	AppendOnly bool

	// Port to listen on; 0 takes a free one. It is for single servers and replicas.
	Port int
}

// Server is a redis-server process. Its methods may be called concurrently.
type Server struct {
	port   int
	dir    string
	binary string
	o      Options
	mode   []string // arguments that come first

	mu     sync.Mutex
	proc   *process // of the last start, running or not
	frozen bool
	closed bool
}

// Start starts a server and waits until it answers.
func Start(ctx context.Context, o Options) (*Server, error) { return start(ctx, o, "") }

// start starts a server with a configuration file, which the server may rewrite, and with what of the command line is
// of no use in a file.
func start(ctx context.Context, o Options, config string, mode ...string) (*Server, error) {
	s, err := newServer(o)
	if err != nil {
		return nil, fmt.Errorf("start redis-server: %w", err)
	}
	if config != "" {
		if err := os.WriteFile(s.file(configFile), []byte(config), 0o600); err != nil {
			_ = s.Close()
			return nil, fmt.Errorf("start redis-server: %w", err)
		}
		s.mode = append([]string{s.file(configFile)}, mode...)
	}
	for {
		if o.Port == 0 {
			if s.port, err = freePort(); err != nil {
				break
			}
		}
		if err = s.run(ctx); err == nil {
			return s, nil
		}
		if o.Port != 0 || !errors.Is(err, errPortTaken) || ctx.Err() != nil {
			break
		}
	}
	_ = s.Close()
	return nil, fmt.Errorf("start redis-server: %w", err)
}

// BinaryVariable names the environment variable that holds the path of another server than the redis-server of the PATH:
// one of another version, or a compatible one of another make. It is for all servers, those of clusters and sentinels too.
const BinaryVariable = "LARDER_REDIS_SERVER"

// Binary is the path of the server: that of BinaryVariable, or else the redis-server of the PATH.
func Binary() (string, error) {
	if path := os.Getenv(BinaryVariable); path != "" {
		found, err := exec.LookPath(path)
		if err != nil {
			return "", fmt.Errorf("%s is %q; allowed: the path of a program: %w", BinaryVariable, path, err)
		}
		return filepath.Abs(found)
	}
	found, err := exec.LookPath("redis-server")
	if err != nil {
		return "", ErrMissing
	}
	return found, nil
}

// newServer makes a server's directory.
func newServer(o Options) (*Server, error) {
	binary, err := Binary()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "redisserver-")
	if err != nil {
		return nil, err
	}
	return &Server{port: o.Port, dir: dir, binary: binary, o: o}, nil
}

// arguments of the command line; what comes later wins.
func (s *Server) arguments(more ...string) []string {
	appendOnly := "no"
	if s.o.AppendOnly {
		appendOnly = "yes"
	}
	return slices.Concat(s.mode, []string{
		"--port", strconv.Itoa(s.port),
		"--bind", loopback,
		"--protected-mode", "no",
		"--daemonize", "no",
		"--dir", s.dir,
		"--logfile", s.file(logFile),
		"--dbfilename", dataFile,
		"--save", "",
		"--appendonly", appendOnly,
		"--appendfsync", "always",
		// Redis 7 waits five seconds for more replicas before it sends its data to one.
		"--repl-diskless-sync-delay", "0",
	}, s.o.Args, more)
}

const (
	configFile   = "redis.conf"
	logFile      = "redis.log"
	dataFile     = "dump.rdb"
	snapshotFile = "snapshot.rdb"
)

func (s *Server) file(name string) string { return filepath.Join(s.dir, name) }

// errPortTaken says that someone else listens on a server's port, or on that of its bus.
var errPortTaken = errors.New("port is taken")

// run starts the process and waits until it answers, and if it does not, ends it.
func (s *Server) run(ctx context.Context, more ...string) error {
	logged := size(s.file(logFile))
	p, err := startProcess(s.dir, append([]string{s.binary}, s.arguments(more...)...)...)
	if err != nil {
		return err
	}
	err = wait(ctx, "its answer", func(ctx context.Context) error {
		if !p.running() {
			return nil // its end is reported below
		}
		return s.answers(ctx, p.pid)
	})
	if err == nil && p.running() {
		s.proc, s.frozen = p, false
		return nil
	}
	p.kill()
	said := strings.TrimSpace(p.output + tailOf(s.file(logFile), logged))
	switch {
	case strings.Contains(said, "Address already in use"):
		return fmt.Errorf("%s: %w", s.Addr(), errPortTaken)
	case err == nil:
		return fmt.Errorf("it ended at once: %s", said)
	}
	return fmt.Errorf("%w: %s", err, said)
}

// answers tells whether the process of this number answers, and has loaded its data.
func (s *Server) answers(ctx context.Context, pid int) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if _, err := do(ctx, s.Addr(), "PING"); err != nil {
		return err
	}
	// Someone else may have taken the port.
	server, err := info(ctx, s.Addr(), "server")
	if err != nil {
		return err
	}
	if server["process_id"] != strconv.Itoa(pid) {
		return fmt.Errorf("process %s answers, not %d", server["process_id"], pid)
	}
	return nil
}

// Addr is the host and the port; they stay the same through restarts.
func (s *Server) Addr() string { return loopbackAddr(s.port) }

// Port is the port of Addr.
func (s *Server) Port() int { return s.port }

// Dir is where the server's files are.
func (s *Server) Dir() string { return s.dir }

// Do sends one command over a connection of its own. The reply is a string, an int64, a []any (of these, of nil, and of
// [ReplyError]), or nil; an error that the server replied is a [ReplyError].
func (s *Server) Do(ctx context.Context, args ...string) (any, error) {
	reply, err := do(ctx, s.Addr(), args...)
	if err != nil {
		return nil, fmt.Errorf("%s at %s: %w", args[0], s.Addr(), err)
	}
	return reply, nil
}

// Stop freezes the server with SIGSTOP: the system still accepts connections for it, but nothing answers.
func (s *Server) Stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil {
		return ErrNotRunning
	}
	if err := s.proc.freeze(); err != nil {
		return fmt.Errorf("stop %s: %w", s.Addr(), err)
	}
	s.frozen = true
	return nil
}

// Continue ends what Stop began, with SIGCONT.
func (s *Server) Continue() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil {
		return ErrNotRunning
	}
	if err := s.proc.thaw(); err != nil {
		return fmt.Errorf("continue %s: %w", s.Addr(), err)
	}
	s.frozen = false
	return nil
}

// Kill ends the server with SIGKILL, frozen or not, and waits until it has ended. It is no error if it has already.
func (s *Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kill()
}

func (s *Server) kill() {
	if s.proc != nil {
		s.proc.kill()
	}
	s.frozen = false
}

// CutClients closes the connections of a kind and returns how many there were.
func (s *Server) CutClients(ctx context.Context, kind ClientKind) (int, error) {
	reply, err := s.Do(ctx, "CLIENT", "KILL", "TYPE", string(kind))
	n, _ := reply.(int64)
	return int(n), err
}

// ClientKind is a kind of connection to a server.
type ClientKind string

// The kinds of clients. A connection that subscribes to something is of the second kind only.
const (
	NormalClients ClientKind = "normal"
	PubSubClients ClientKind = "pubsub"
)

// Log returns the last 8 KiB of the server's log; nothing once it is closed.
func (s *Server) Log() string { return tailOf(s.file(logFile), 0) }

// Close kills the server and removes its files. The server cannot be restarted. To close it again does nothing.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.kill()
	return os.RemoveAll(s.dir)
}

// up tells whether the server can be expected to answer.
func (s *Server) up() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc != nil && s.proc.running() && !s.frozen
}
