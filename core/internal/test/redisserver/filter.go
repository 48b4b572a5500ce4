package redisserver

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
)

// Filter stands between clients and a server, as the proxies of managed services do: it sees each command and may send
// another one, answer by itself, or change the reply. A connection that subscribes to something passes unseen from then
// on.
type Filter struct {
	// Command returns what to send in the place of a command, or, if answer is not "", what to answer without asking the
	// server, such as "-ERR no\r\n". nil: all pass.
	Command func(args []string) (send []string, answer string)
	// Info changes the text that INFO replies. nil: it stays.
	Info func(text string) string

	listener net.Listener
	to       string
	wg       sync.WaitGroup
	mu       sync.Mutex
	open     map[net.Conn]struct{} // nil once it is closed
}

// StartFilter starts a filter in front of a server, for a test, and closes it when the test ends.
func StartFilter(t TB, to string, f *Filter) *Filter {
	t.Helper()
	l, err := net.Listen("tcp", loopback+":0")
	if err != nil {
		t.Fatal(err)
	}
	f.listener, f.to, f.open = l, to, make(map[net.Conn]struct{})
	f.wg.Go(f.accept)
	t.Cleanup(f.close)
	return f
}

// Addr is where clients connect.
func (f *Filter) Addr() string { return f.listener.Addr().String() }

func (f *Filter) close() {
	_ = f.listener.Close()
	f.mu.Lock()
	for c := range f.open {
		_ = c.Close()
	}
	f.open = nil
	f.mu.Unlock()
	f.wg.Wait()
}

func (f *Filter) accept() {
	for {
		client, err := f.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", f.to)
		if err != nil || !f.keep(client, server) {
			_ = client.Close()
			continue
		}
		f.wg.Go(func() {
			_ = f.serve(client, server) // returns when either side closes
			f.leave(client, server)
		})
	}
}

// keep notes connections that close closes; it returns false if that is over.
func (f *Filter) keep(conns ...net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range conns {
		if f.open == nil {
			_ = c.Close()
			continue
		}
		f.open[c] = struct{}{}
	}
	return f.open != nil
}

func (f *Filter) leave(conns ...net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
		delete(f.open, c)
	}
}

// serve passes commands one by one.
func (f *Filter) serve(client, server net.Conn) error {
	commands, replies := bufio.NewReader(client), bufio.NewReader(server)
	for {
		args, err := readCommand(commands)
		if err != nil {
			return err
		}
		answer := ""
		if f.Command != nil {
			args, answer = f.Command(args)
		}
		if answer == "" {
			if _, err := io.WriteString(server, command(args)); err != nil {
				return err
			}
			if strings.HasSuffix(strings.ToLower(args[0]), "subscribe") {
				return f.passOn(commands, server, replies, client)
			}
			raw, err := readRaw(replies)
			if err != nil {
				return err
			}
			answer = string(f.reply(args, raw))
		}
		if _, err := io.WriteString(client, answer); err != nil {
			return err
		}
	}
}

// passOn passes everything, both ways, until one side closes.
func (f *Filter) passOn(commands io.Reader, server net.Conn, replies io.Reader, client net.Conn) error {
	var way sync.WaitGroup
	way.Go(func() {
		_, _ = io.Copy(server, commands)
		_ = server.Close()
	})
	_, err := io.Copy(client, replies)
	_ = client.Close()
	way.Wait()
	return err
}

func (f *Filter) reply(args []string, raw []byte) []byte {
	if f.Info == nil || !strings.EqualFold(args[0], "info") || raw[0] != '$' && raw[0] != '=' {
		return raw
	}
	_, text, _ := bytes.Cut(raw, []byte("\r\n"))
	text = bytes.TrimSuffix(text, []byte("\r\n"))
	if raw[0] == '=' {
		text = text[len("txt:"):]
	}
	changed := f.Info(string(text))
	return fmt.Appendf(nil, "$%d\r\n%s\r\n", len(changed), changed)
}

func readCommand(r *bufio.Reader) ([]string, error) {
	v, err := readReply(r)
	if err != nil {
		return nil, err
	}
	list, ok := v.([]any)
	if !ok || len(list) == 0 {
		return nil, errors.New("a command that is no array")
	}
	args := make([]string, len(list))
	for i := range list {
		args[i], _ = list[i].(string)
	}
	return args, nil
}

func command(args []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	return b.String()
}

// readRaw reads a reply of RESP2 or RESP3 as it is.
func readRaw(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadBytes('\n')
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(line[1:])))
	switch line[0] {
	case '$', '!', '=':
		if err != nil || n < 0 {
			return line, err
		}
		text := make([]byte, n+2)
		_, err = io.ReadFull(r, text)
		return append(line, text...), err
	case '%', '|':
		n *= 2
	case '*', '~', '>':
	default:
		return line, nil
	}
	for range n {
		element, err := readRaw(r)
		if err != nil {
			return nil, err
		}
		line = append(line, element...)
	}
	return line, err
}
