package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/redisstore"
)

// redisServer is a redis-server that this program has started on a free loopback port.
type redisServer struct {
	addr   string
	client *redis.Client // for INFO and FLUSHALL
	cmd    *exec.Cmd
	dir    string
}

// startRedis starts a redis-server that persists nothing, and waits until it answers. It ends
// with ctx or with close.
func startRedis(ctx context.Context) (*redisServer, error) {
	binary, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, fmt.Errorf("redis-server %w: apt-get install redis-server (dnf install redis, brew install redis)", errMissing)
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "larder-benchmarks-")
	if err != nil {
		return nil, err
	}
	s := &redisServer{addr: net.JoinHostPort("127.0.0.1", port), dir: dir}
	s.cmd = exec.CommandContext(ctx, binary, "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", dir)
	if err := s.cmd.Start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	s.client = redis.NewClient(&redis.Options{Addr: s.addr})
	if err := s.answers(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("redis-server on %s: %w", s.addr, err), s.close())
	}
	return s, nil
}

// freePort returns a port that is free now.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer func() { _ = l.Close() }()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}

// answers waits until the process answers.
func (s *redisServer) answers(ctx context.Context) error {
	return poll(ctx, func(ctx context.Context) (bool, error) {
		pid, err := s.info(ctx, "server", "process_id")
		return int(pid) == s.cmd.Process.Pid, err
	})
}

// subscribed waits until n caches follow the messages of the server.
func (s *redisServer) subscribed(ctx context.Context, n int) error {
	return poll(ctx, func(ctx context.Context) (bool, error) {
		list, err := s.client.Do(ctx, "client", "list", "type", "pubsub").Text()
		return strings.Count(list, "\n") >= n, err
	})
}

// poll calls ready every 10 ms until it returns true, for up to 10 s.
func poll(ctx context.Context, ready func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for {
		ok, err := ready(ctx)
		if err == nil && ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-poll.C:
		}
	}
}

func (s *redisServer) close() error {
	err := s.client.Close()
	if e := s.cmd.Process.Kill(); !errors.Is(e, os.ErrProcessDone) {
		err = errors.Join(err, e)
	}
	_ = s.cmd.Wait() // killed
	return errors.Join(err, os.RemoveAll(s.dir))
}

// info returns the sum of fields of a section of INFO.
func (s *redisServer) info(ctx context.Context, section string, fields ...string) (sum float64, err error) {
	text, err := s.client.Info(ctx, section).Result()
	if err != nil {
		return 0, err
	}
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), ":")
		for _, f := range fields {
			if name != f {
				continue
			}
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				return 0, fmt.Errorf("INFO %s is %q; a number is allowed", name, value)
			}
			sum += v
		}
	}
	return sum, nil
}

// usage is the CPU time of a Redis and of this process.
type usage struct {
	app, redis time.Duration // CPU time
	commands   float64       // with those inside scripts
	at         time.Time
}

func (s *redisServer) usage(ctx context.Context) (u usage, err error) {
	if u.commands, err = s.info(ctx, "stats", "total_commands_processed"); err != nil {
		return u, err
	}
	cpu, err := s.info(ctx, "cpu", "used_cpu_user", "used_cpu_sys")
	u.redis = time.Duration(cpu * float64(time.Second))
	u.app, u.at = cpuTime(), time.Now()
	return u, err
}

// newShared opens a cache over the Redis, with a connection pool of its own.
func newShared(addr string, class core.Class) (*core.Cache, func() error, error) {
	client := redis.NewClient(&redis.Options{Addr: addr, PoolSize: 64})
	cache, err := core.New(core.Options{
		Classes: core.Classes{"product": class}, Remote: redisstore.New(client), RequireRemote: true,
		RemoteBudget: 2 * time.Second, MaxBytes: 4 << 30,
	})
	if err != nil {
		return nil, nil, errors.Join(err, client.Close())
	}
	return cache, func() error { return errors.Join(cache.Close(), client.Close()) }, nil
}
