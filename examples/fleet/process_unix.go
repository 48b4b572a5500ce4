//go:build unix

package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// guard runs a command, and outlives this process for as long
// as it takes to end the command. It reads one word: "kill" kills the command, "gone"
// says that it has ended by itself, and the end of its input that this process has
// gone, whatever way: then the directory in $1 goes, too. Its first line of output is the
// command's process id. After that only the command holds the output, whose end is
// its end.
const guard = `
trap '' HUP INT QUIT TERM PIPE
dir=$1
shift
sh -c 'echo $$; exec "$@"' sh "$@" </dev/null 2>&1 &
exec >/dev/null 2>&1
if read -r word; then
	[ "$word" = gone ] || kill -9 $!
	wait
else
	kill -9 $!
	wait
	rm -rf -- "$dir"
fi
`

// child is a command under a guard.
type child struct {
	pid   int
	pipe  *os.File
	ended chan struct{} // closed when command and guard have ended
	said  string        // the last of its output; to be read then
	kills sync.Once
}

func startChild(dir string, command ...string) (_ *child, err error) {
	cmd := exec.Command("sh", append([]string{"-c", guard, "fleet", dir}, command...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C is for the fleet
	in, pipe, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	output, out, err := os.Pipe()
	if err != nil {
		pipe.Close()
		return nil, err
	}
	defer out.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, out
	if err := cmd.Start(); err != nil {
		pipe.Close()
		output.Close()
		return nil, err
	}
	out.Close() // or its end would not be the command's
	c := &child{pipe: pipe, ended: make(chan struct{})}
	lines := bufio.NewReader(output)
	first, err := lines.ReadString('\n')
	if err == nil {
		c.pid, err = strconv.Atoi(strings.TrimSpace(first))
	}
	go func() {
		defer close(c.ended)
		c.said = lastOf(lines)
		output.Close()
		_, _ = io.WriteString(pipe, "gone\n") // or it has been told to kill, and reads no more
		_ = cmd.Wait()
		pipe.Close()
	}()
	if err != nil {
		c.kill()
		return nil, fmt.Errorf("guard of %s said %q: %w", command[0], first, err)
	}
	return c, nil
}

// kill ends the command, frozen or not, and waits until it has ended.
func (c *child) kill() {
	c.kills.Do(func() { _, _ = io.WriteString(c.pipe, "kill\n") })
	<-c.ended
}

func (c *child) freeze() error { return syscall.Kill(c.pid, syscall.SIGSTOP) }
func (c *child) thaw() error   { return syscall.Kill(c.pid, syscall.SIGCONT) }

// lastOf reads to the end and returns the last kilobyte.
func lastOf(r io.Reader) string {
	var last []byte
	chunk := make([]byte, 1<<10)
	for {
		n, err := r.Read(chunk)
		last = append(last, chunk[:n]...)
		last = last[max(0, len(last)-len(chunk)):]
		if err != nil {
			return strings.TrimSpace(string(last))
		}
	}
}
