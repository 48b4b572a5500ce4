package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"text/template"
	"time"
)

// front is one shared cache and how it is started.
type front struct {
	name string
	// command starts it in the foreground; {{.Dir}}, {{.Port}} and {{.Origin}} are
	// filled in, here and in the files.
	command []string
	env     []string
	files   map[string]string
	version []string // prints its version
	setting string   // settings beyond "cache everything"
}

type place struct {
	Dir    string
	Port   int
	Origin int
}

// process is a front that runs.
type process struct {
	url  string
	stop func()
}

func missingCommands(all []front) []string {
	var missing []string
	for _, f := range all {
		if _, err := exec.LookPath(f.command[0]); err != nil {
			missing = append(missing, f.command[0])
		}
	}
	return missing
}

var versionNumber = regexp.MustCompile(`\d+\.\d+(\.\d+)*`)

func version(ctx context.Context, f front) string {
	out, _ := exec.CommandContext(ctx, f.version[0], f.version[1:]...).CombinedOutput()
	return versionNumber.FindString(string(out))
}

func startFront(ctx context.Context, f front, originPort int) (*process, error) {
	dir, err := os.MkdirTemp("", "downstream-")
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	p := place{Dir: dir, Port: port, Origin: originPort}
	if err := writeFiles(f, p); err != nil {
		return nil, err
	}
	command := make([]string, len(f.command))
	for i, word := range f.command {
		command[i] = fill(word, p)
	}
	var out output
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &out
	for _, e := range f.env {
		cmd.Env = append(cmd.Environ(), fill(e, p))
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = cmd.Wait() }()
	run := &process{url: "http://127.0.0.1:" + strconv.Itoa(port)}
	run.stop = func() {
		_ = cmd.Process.Signal(os.Interrupt)
		select {
		case <-ended:
		case <-time.After(3 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
		_ = os.RemoveAll(dir)
	}
	if err := answers(ctx, run.url, ended); err != nil {
		run.stop()
		return nil, fmt.Errorf("%w: %s", err, out.String())
	}
	return run, nil
}

func writeFiles(f front, p place) error {
	for name, text := range f.files {
		path := filepath.Join(p.Dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(fill(text, p)), 0o644); err != nil {
			return err
		}
	}
	// Some of them give up root's rights before they open the folder.
	return filepath.WalkDir(p.Dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chmod(path, 0o777)
	})
}

func fill(text string, p place) string {
	var b strings.Builder
	if err := template.Must(template.New("").Parse(text)).Execute(&b, p); err != nil {
		panic(err)
	}
	return b.String()
}

// answers waits until the front passes a request on.
func answers(ctx context.Context, url string, ended <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/silent/ready", nil)
		if err != nil {
			return err
		}
		if resp, err := http.DefaultClient.Do(r); err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ended:
			return fmt.Errorf("it ended before it answered")
		case <-ctx.Done():
			return fmt.Errorf("it does not answer: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// output keeps the end of a process's output.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.b.Write(p)
	if o.b.Len() > 4096 {
		o.b.Next(o.b.Len() - 4096)
	}
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}
