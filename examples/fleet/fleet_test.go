package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9/logging"
	"go.uber.org/goleak"
)

// TestMain is also the main function of the shops: they are this program again.
func TestMain(m *testing.M) {
	logging.Disable()
	if say := os.Getenv(shopEnv); say != "" {
		if err := shopMain(say); err != nil {
			_, _ = os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// output is a buffer for concurrent writers. It calls see when the awaited text has been
// written.
type output struct {
	seen string
	see  func()

	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.see != nil && bytes.Contains(p, []byte(o.seen)) {
		o.see()
	}
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func TestKillingShopsAndRedisCausesNoStaleAnswerAndNoError(t *testing.T) {
	for _, mode := range []struct {
		name, script string
		args         []string
		long         bool
		want         []string
	}{
		{
			"one Redis", "400ms kill shop 2; 800ms kill redis 1; 1200ms revive redis 1; 1600ms revive shop 2; 2s stop redis 1; " +
				"2400ms continue redis 1; 2800ms cut; 3200ms end shop 1; 3600ms revive shop 1; 4500ms quit",
			[]string{"-shops", "2"}, false,
			[]string{
				"kill shop 2: done", "kill redis 1: done", "revive redis 1: done", "revive shop 2: done", "continue redis 1: done",
				"subscriptions cut", "end shop 1: done", "revive shop 1: done",
			},
		},
		{
			"a cluster", "300ms kill redis 1; 1s kill shop 1; 2500ms revive redis 1; 3s revive shop 1; 4s quit",
			[]string{"-shops", "4", "-cluster"}, true,
			[]string{"kill redis 1: done", "revive redis 1: done", "replica"},
		},
	} {
		t.Run(mode.name, func(t *testing.T) {
			if mode.long && testing.Short() {
				t.Skip("a cluster takes longer")
			}
			t.Setenv("TMPDIR", t.TempDir())
			cfg, err := parse(append(mode.args, "-plain", "-rate", "200", "-staleness", "500ms", "-duration", "1m", "-script", mode.script), false, false)
			if err != nil {
				t.Fatal(err)
			}
			var out output
			if err := run(t.Context(), cfg, nil, &out); err != nil {
				t.Fatalf("%v\n%s", err, out.String())
			}
			for _, want := range append(mode.want, "propagation  p50", " 0 stale;") {
				if !strings.Contains(out.String(), want) {
					t.Errorf("it does not print %q", want)
				}
			}
			if left, _ := filepath.Glob(filepath.Join(os.TempDir(), "*")); len(left) > 0 {
				t.Errorf("it leaves %q", left)
			}
			t.Log(out.String())
		})
	}
}

// The test above must be able to find stale answers: without a shared tier there are some.
func TestAFleetWithoutASharedTierFails(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	cfg, err := parse([]string{"-shops", "2", "-plain", "-rate", "200", "-staleness", "100ms", "-duration", "1m"}, false, false)
	if err != nil {
		t.Fatal(err)
	}
	cfg.apart = true
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := output{seen: "STALE", see: cancel} // the first is enough
	err = run(ctx, cfg, nil, &out)
	if !errors.Is(err, errBroken) || !strings.Contains(err.Error(), "STALE: GET ") {
		t.Errorf("it ends with %v\n%s", err, out.String())
	}
}

func TestAFleetWithoutRedisServerSaysHowToInstallIt(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	cfg, err := parse(nil, false, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), cfg, nil, new(output)); !errors.Is(err, errNoRedis) || !strings.Contains(err.Error(), "apt-get install") {
		t.Errorf("without a redis-server: %v", err)
	}
}

func TestAGuardSeesAFrozenOrEndedCommand(t *testing.T) {
	c, err := startChild(t.TempDir(), "sleep", "1000")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.freeze(); err != nil {
		t.Error(err)
	}
	c.kill()

	c, err = startChild(t.TempDir(), "sh", "-c", "echo too bad")
	if err != nil {
		t.Fatal(err)
	}
	<-c.ended
	if c.said != "too bad" {
		t.Errorf("the command said %q", c.said)
	}
	c.kill() // does nothing

	if _, err := startChild(t.TempDir(), "sh", "-c", "exit 1"); err != nil {
		t.Error(err)
	}
}

// The parent is a process that has started a command under a guard.
func TestAKilledParentLeavesNoCommandAndNoFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "files")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	parent := exec.Command(self, "-test.run=^TestHelperParent$")
	parent.Env = append(os.Environ(), "LARDER_FLEET_PARENT="+dir)
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	first := make([]byte, len("started"))
	if _, err := out.Read(first); err != nil || string(first) != "started" {
		t.Errorf("the parent says %q, %v", first, err)
	}
	_ = parent.Process.Kill()
	_ = parent.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err = until(ctx, func(context.Context) error {
		if _, err := os.Stat(dir); err == nil {
			return errors.New("the files are there")
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestHelperParent is the parent of the test above, in a process of its own.
func TestHelperParent(t *testing.T) {
	dir := os.Getenv("LARDER_FLEET_PARENT")
	if dir == "" {
		return
	}
	if _, err := startChild(dir, "sleep", "1000"); err != nil {
		t.Fatal(err)
	}
	_, _ = os.Stdout.WriteString("started")
	<-make(chan struct{})
}

func TestErrorsOfWrongFlagsNameThem(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"-shops 0", "-shops is 0"},
		{"-shops 33", "-shops is 33"},
		{"-rate 0", "-rate is 0"},
		{"-staleness 1ms", "-staleness is 1ms"},
		{"more", `unexpected argument "more"`},
		{"-script 1s", "-script"},
		{"-shops 2 -script 1s_kill_shop_3", "there is no shop 3"},
		{"-script 1s_kill_redis_2", "there is no redis 2"},
	} {
		args := strings.Fields(c.args)
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "_", " ")
		}
		if _, err := parse(args, false, false); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.args, err)
		}
	}
	if _, err := parse([]string{"-cluster", "-script", "1s kill redis 6"}, false, false); err != nil {
		t.Error(err)
	}
	for _, interactive := range []bool{true, false} {
		c, err := parse(nil, interactive, false)
		if err != nil || (c.duration == 0) != interactive {
			t.Errorf("interactive %t: %v, %v", interactive, c.duration, err)
		}
	}
}
