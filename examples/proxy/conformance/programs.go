package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

var (
	//go:embed loopback.mjs
	loopback []byte
	//go:embed definitions.mjs
	definitionsScript string
)

// build compiles the proxy: `go run` would stand between it and signals.
func build(ctx context.Context, dir string) (string, error) {
	binary := filepath.Join(dir, "proxy")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", binary, "github.com/larderhq/larder/examples/proxy")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the proxy: %w\n%s", err, out)
	}
	return binary, nil
}

var proxyReady = regexp.MustCompile(`^Proxy on (http://\S+)`)

func startProxy(binary, adapter, originURL, redisURL string, ttl time.Duration) (*process, string, error) {
	cmd := exec.Command(binary, "-adapter", adapter, "-listen", "127.0.0.1:0", "-origin", originURL,
		"-class-ttl", ttl.String(), "-redis", redisURL)
	return start(cmd, proxyReady, nil)
}

var originReady = regexp.MustCompile(`^Listening on (http://127\.0\.0\.1:\d+)/`)

func startOrigin(suite string, log io.Writer) (*process, string, error) {
	preload := "data:text/javascript;base64," + base64.StdEncoding.EncodeToString(loopback)
	cmd := exec.Command("node", "--import", preload, "server/server.mjs")
	cmd.Dir = suite
	cmd.Env = npmEnviron("protocol", "http", "port", "0", "pidfile", os.DevNull)
	return start(cmd, originReady, log)
}

var redisReady = regexp.MustCompile(`(Ready) to accept connections`)

func startRedis(dir string) (*process, string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", err
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil { // redis-server cannot choose a free port by itself
		return nil, "", err
	}
	cmd := exec.Command("redis-server", "--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", dir)
	p, _, err := start(cmd, redisReady, nil)
	return p, fmt.Sprintf("redis://127.0.0.1:%d", port), err
}

// client runs the suite's client, and returns its output: the results as JSON,
// or an account of one test.
func client(ctx context.Context, suite, base, only string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "node", "--no-warnings", "cli.mjs")
	cmd.Env = npmEnviron("base", base, "id", only)
	return output(cmd, suite)
}

// definitions asks the suite for its tests.
func definitions(ctx context.Context, suite string) (parts []part, err error) {
	report, err := output(exec.CommandContext(ctx, "node", "--input-type=module", "-e", definitionsScript), suite)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(report, &parts); err != nil {
		return nil, fmt.Errorf("the suite's definitions: %w", err)
	}
	return parts, nil
}

// output returns the output of a program that ends by itself.
func output(cmd *exec.Cmd, dir string) ([]byte, error) {
	var complaints bytes.Buffer
	cmd.Dir = dir
	cmd.Stderr = &complaints
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopTimeout
	bind(cmd)
	out, err := cmd.Output()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the suite's node: %w", err), errors.New(complaints.String()))
	}
	return out, nil
}

// npmEnviron is the environment that npm would give a script of the suite, with its
// settings. The suite also reads the defaults, which npm takes from package.json.
func npmEnviron(settings ...string) []string {
	var environ []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "npm_") {
			environ = append(environ, v)
		}
	}
	for i := 0; i < len(settings); i += 2 {
		environ = append(environ, "npm_config_"+settings[i]+"="+settings[i+1], "npm_package_config_"+settings[i]+"="+settings[i+1])
	}
	return environ
}
