package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// client is one HTTP/1.1 connection that is kept alive and used by one goroutine. It understands only the answers that
// the processes give, and costs a tenth of net/http's client, which would take the CPU from the processes.
type client struct {
	p    *process
	conn net.Conn
	in   *bufio.Reader
	out  []byte
	body []byte
}

// patience is the time after which a request has failed.
const patience = 20 * time.Second

// response is an answer. version is -1 if the body is not that of a row.
type response struct {
	status  int
	row     int
	version int64
	took    time.Duration // run time of the handler, which may have run for another request
	pending string
	errors  int64 // of the process's calls to Redis, where the answer states them
	hit     bool
	body    []byte // valid until the next request
}

// get, put and do send one request and read the answer. An error means that the connection has failed; the next call
// opens another one.
func (c *client) do(method, path string, row int, fields string) (response, error) {
	r, err := c.exchange(method, path, row, fields)
	if err != nil && c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
	return r, err
}

func (c *client) exchange(method, path string, row int, fields string) (r response, err error) {
	if c.conn == nil {
		if c.conn, err = net.DialTimeout("tcp", c.p.addr, patience); err != nil {
			return r, err
		}
		if c.in == nil {
			c.in = bufio.NewReaderSize(nil, 1<<10)
		}
		c.in.Reset(c.conn)
	}
	if err := c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return r, err
	}
	b := append(c.out[:0], method...)
	b = append(b, ' ')
	b = append(b, path...)
	b = strconv.AppendInt(b, int64(row), 10)
	b = append(b, " HTTP/1.1\r\nHost: "+host+"\r\n"...)
	if method != "GET" {
		b = append(b, "Content-Length: 0\r\n"...)
	}
	b = append(b, fields...)
	c.out = append(b, "\r\n"...)
	if _, err := c.conn.Write(c.out); err != nil {
		return r, err
	}
	return c.read()
}

var errResponse = errors.New("malformed response")

func (c *client) read() (r response, err error) {
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return r, err
	}
	if len(line) < len("HTTP/1.1 200") {
		return r, fmt.Errorf("%w: %q", errResponse, line)
	}
	if r.status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return r, fmt.Errorf("%w: %q", errResponse, line)
	}
	length, chunked, last := -1, false, false
	for {
		if line, err = c.in.ReadSlice('\n'); err != nil {
			return r, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		i := bytes.IndexByte(line, ':')
		if i < 0 {
			return r, fmt.Errorf("%w: %q", errResponse, line)
		}
		name, value := line[:i], bytes.TrimSpace(line[i+1:])
		switch {
		case is(name, "Content-Length"):
			length, err = strconv.Atoi(string(value))
		case is(name, "Transfer-Encoding"):
			chunked = true
		case is(name, "Connection"):
			last = is(value, "close")
		case is(name, "Cache-Status"):
			r.hit = bytes.Contains(value, []byte("; hit"))
		case is(name, fieldTook):
			var ns int64
			ns, err = strconv.ParseInt(string(value), 10, 64)
			r.took = time.Duration(ns)
		case is(name, fieldErrors):
			r.errors, err = strconv.ParseInt(string(value), 10, 64)
		case is(name, fieldPending):
			r.pending = string(value)
		}
		if err != nil {
			return r, fmt.Errorf("%w: %q", errResponse, line)
		}
	}
	if err := c.readBody(length, chunked); err != nil {
		return r, err
	}
	if last {
		c.conn.Close()
		c.conn = nil
	}
	r.body = c.body
	r.row, r.version = parseRow(c.body)
	return r, nil
}

func (c *client) readBody(length int, chunked bool) error {
	c.body = c.body[:0]
	for {
		n := length
		if chunked {
			line, err := c.in.ReadSlice('\n')
			if err != nil {
				return err
			}
			size, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 16, 31)
			if err != nil {
				return fmt.Errorf("%w: chunk %q", errResponse, line)
			}
			n = int(size)
		}
		if n < 0 || n > 1<<20 {
			return fmt.Errorf("%w: a body of %d bytes", errResponse, n)
		}
		have := len(c.body)
		c.body = append(c.body, make([]byte, n)...)
		if _, err := io.ReadFull(c.in, c.body[have:]); err != nil {
			return err
		}
		if !chunked {
			return nil
		}
		if _, err := c.in.ReadSlice('\n'); err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
	}
}

func is(b []byte, s string) bool { return len(b) == len(s) && bytes.EqualFold(b, []byte(s)) }

func parseRow(body []byte) (row int, version int64) {
	i := bytes.IndexByte(body, ' ')
	if i < 0 {
		return 0, -1
	}
	row, _ = strconv.Atoi(string(body[:i]))
	version, err := strconv.ParseInt(string(body[i+1:]), 10, 64)
	if err != nil {
		return 0, -1
	}
	return row, version
}

func (c *client) close() {
	if c.conn != nil {
		c.conn.Close()
	}
}

// clients are one goroutine's connections, one per place in the fleet.
type clients struct {
	f    *fleet
	list []*client
}

func (f *fleet) clients() *clients { return &clients{f, make([]*client, len(f.places))} }

// to returns the connection to the process that is at a place now.
func (cs *clients) to(place int) *client {
	p := cs.f.at(place)
	if c := cs.list[place]; c != nil {
		if c.p == p {
			return c
		}
		c.close()
	}
	cs.list[place] = &client{p: p}
	return cs.list[place]
}

func (cs *clients) close() {
	for _, c := range cs.list {
		if c != nil {
			c.close()
		}
	}
}
