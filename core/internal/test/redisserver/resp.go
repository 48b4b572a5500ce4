package redisserver

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// ReplyError is an error that a server replied, such as "ASK 42 127.0.0.1:7000".
type ReplyError string

func (e ReplyError) Error() string { return string(e) }

// do sends one command over a connection of its own and returns the reply (RESP2): a string, an int64, a []any, or nil.
// There is no pool and no retry, so what a test sees is what the server did.
func do(ctx context.Context, addr string, args ...string) (any, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	_, err = io.WriteString(c, command(args))
	var reply any
	if err == nil {
		reply, err = readReply(bufio.NewReader(c))
	}
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	return reply, err
}

func readReply(r *bufio.Reader) (any, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return nil, err
	}
	line = strings.TrimSuffix(line, "\r\n")
	if line == "" {
		return nil, errors.New("reply without a type")
	}
	kind, text := line[0], line[1:]
	switch kind {
	case '+':
		return text, nil
	case '-':
		return nil, ReplyError(text)
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("reply %q: %w", line, err)
	}
	switch {
	case kind == ':':
		return n, nil
	case kind == '$' && n < 0, kind == '*' && n < 0:
		return nil, nil
	case kind == '$':
		bulk := make([]byte, n+2)
		if _, err := io.ReadFull(r, bulk); err != nil {
			return nil, err
		}
		return string(bulk[:n]), nil
	case kind == '*':
		array := make([]any, n)
		for i := range array {
			v, err := readReply(r)
			var replied ReplyError
			if errors.As(err, &replied) {
				v = replied
			} else if err != nil {
				return nil, err
			}
			array[i] = v
		}
		return array, nil
	}
	return nil, fmt.Errorf("reply %q of an unknown type", line)
}
