//go:build unix

package redisserver

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// guard runs the command in $2 and on, whose files are in $1. The command's process says its own number, so that it is
// the first line whatever the command writes. Then the guard gives up its output, which leaves the command as the
// only writer: the starter reads EOF when the command has ended.
//
// The guard reads one word. "kill" kills the command; "gone" says that it has ended by itself, and that its number may
// be someone else's by now; EOF says that the starter is gone, and then the files go too. It ignores signals, since
// those that end the starter may be sent to the whole terminal, and since the end of the starter makes the kernel send
// SIGHUP to a process group that has a frozen member.
const guard = `
trap '' HUP INT QUIT TERM PIPE
dir=$1
shift
sh -c 'echo $$; exec "$@"' sh "$@" </dev/null 2>&1 &
pid=$!
exec >/dev/null 2>&1
if read -r word; then
	if [ "$word" = kill ]; then kill -9 "$pid"; fi
	wait "$pid"
else
	kill -9 "$pid"
	wait "$pid"
	rm -rf -- "$dir"
fi
`

// process is a command that runs under a guard.
type process struct {
	pid    int
	pipe   *os.File      // read by the guard
	ended  chan struct{} // closed when the command has ended
	reaped chan struct{} // closed when its guard has, too

	output string // the end of the command's output; to be read once ended is closed
}

// startProcess runs a command whose files are in dir.
func startProcess(dir string, command ...string) (*process, error) {
	stdin, pipe, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer stdin.Close()
	output, stdout, err := os.Pipe()
	if err != nil {
		pipe.Close()
		return nil, err
	}
	defer stdout.Close()

	cmd := exec.Command("sh", append([]string{"-c", guard, "redisserver", dir}, command...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stdout
	// A Ctrl-C is for the starter alone.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		pipe.Close()
		output.Close()
		return nil, err
	}
	stdout.Close() // or it would never come to EOF

	p := &process{pipe: pipe, ended: make(chan struct{}), reaped: make(chan struct{})}
	lines := bufio.NewReader(output)
	first, err := lines.ReadString('\n')
	if err == nil {
		p.pid, err = strconv.Atoi(strings.TrimSpace(first))
	}
	if err != nil {
		pipe.Close()
		rest, _ := io.ReadAll(lines)
		output.Close()
		_ = cmd.Wait()
		return nil, fmt.Errorf("guard said %q: %w", first+string(rest), err)
	}
	go func() {
		defer close(p.reaped)
		p.output = tail(lines)
		close(p.ended)
		output.Close()
		_, _ = io.WriteString(pipe, "gone\n")
		_ = cmd.Wait() // how the guard ended says nothing
		pipe.Close()
	}()
	return p, nil
}

// signal sends a signal, which must be none that ends the process.
func (p *process) signal(s syscall.Signal) error {
	if !p.running() {
		return ErrNotRunning
	}
	return syscall.Kill(p.pid, s)
}

// freeze stops the process where it is.
func (p *process) freeze() error { return p.signal(syscall.SIGSTOP) }

// thaw is the opposite of freeze.
func (p *process) thaw() error { return p.signal(syscall.SIGCONT) }

// kill ends the process at once, frozen or not, and waits until it has ended.
func (p *process) kill() {
	if _, err := io.WriteString(p.pipe, "kill\n"); err != nil && p.running() {
		// Someone killed the guard.
		_ = syscall.Kill(p.pid, syscall.SIGKILL)
	}
	<-p.reaped
}

func (p *process) running() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}
