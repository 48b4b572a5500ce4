package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// origin is the database: rows with versions that only commits raise. The processes query it over TCP, with one line per
// request and one per answer:
//
//	read <process> <row>                        the version
//	commit <process> <row> <confirmed, paused>  the new version
type origin struct {
	listener net.Listener
	rows     []atomic.Int64
	reads    []atomic.Int64
	delay    func(row int) time.Duration // before the version is looked up, and again after

	// watch is called for each commit of a write that pauses after it, and read for each read as it begins. Both may be
	// nil, and are set before the first request.
	watch func(commit)
	read  func(process, row int)

	mu    sync.Mutex
	conns map[net.Conn]struct{}
	wg    sync.WaitGroup
}

// commit is a commit of a writer that is to be killed.
type commit struct {
	process, row int
	version      int64
	begun        bool // the tier has confirmed the writer's intent
}

func newOrigin(rows int) (*origin, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("origin: %w", err)
	}
	o := &origin{
		listener: l, rows: make([]atomic.Int64, rows), reads: make([]atomic.Int64, rows),
		delay: shortDelay, conns: make(map[net.Conn]struct{}),
	}
	for i := range o.rows {
		o.rows[i].Store(1)
	}
	return o, nil
}

// shortDelay returns the time of a query: none, some, or rarely much.
func shortDelay(int) time.Duration {
	switch n := rand.IntN(20); {
	case n < 10:
		return 0
	case n < 19:
		return rand.N(time.Millisecond)
	default:
		return rand.N(10 * time.Millisecond)
	}
}

// serve answers until close.
func (o *origin) serve() {
	o.wg.Go(func() {
		for {
			c, err := o.listener.Accept()
			if err != nil {
				return
			}
			o.mu.Lock()
			o.conns[c] = struct{}{}
			o.mu.Unlock()
			o.wg.Go(func() {
				o.answer(c)
				c.Close()
				o.mu.Lock()
				delete(o.conns, c)
				o.mu.Unlock()
			})
		}
	})
}

func (o *origin) addr() string { return o.listener.Addr().String() }

func (o *origin) close() {
	o.listener.Close()
	o.mu.Lock()
	for c := range o.conns {
		c.Close()
	}
	o.mu.Unlock()
	o.wg.Wait()
}

// answer answers the requests of one connection.
func (o *origin) answer(c net.Conn) {
	in := bufio.NewReader(c)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		f := strings.Fields(line)
		process, _ := strconv.Atoi(f[1])
		row, err := strconv.Atoi(f[2])
		if err != nil || row < 0 || row >= len(o.rows) {
			return
		}
		var version int64
		if f[0] == "read" {
			o.reads[row].Add(1)
			if o.read != nil {
				o.read(process, row)
			}
			wait(o.delay(row))
			version = o.rows[row].Load()
			wait(o.delay(row))
		} else {
			version = o.rows[row].Add(1)
			if f[4] == "true" && o.watch != nil {
				o.watch(commit{process, row, version, f[3] == "true"})
			}
		}
		if _, err := c.Write(append(strconv.AppendInt(nil, version, 10), '\n')); err != nil {
			return
		}
	}
}

func wait(d time.Duration) {
	if d > 0 {
		time.Sleep(d)
	}
}

// database is the processes' side of the origin.
type database struct {
	addr    string
	process int
	idle    chan *dbConn
}

type dbConn struct {
	net.Conn
	in *bufio.Reader
}

func openDatabase(addr string, process int) *database {
	return &database{addr: addr, process: process, idle: make(chan *dbConn, 256)}
}

func (d *database) read(ctx context.Context, row string) (int64, error) {
	return d.ask(ctx, fmt.Sprintf("read %d %s\n", d.process, row))
}

// commit makes a new version. begun and paused describe the writer to the conductor.
func (d *database) commit(ctx context.Context, row string, begun, paused bool) (int64, error) {
	return d.ask(ctx, fmt.Sprintf("commit %d %s %t %t\n", d.process, row, begun, paused))
}

func (d *database) ask(ctx context.Context, question string) (int64, error) {
	var c *dbConn
	select {
	case c = <-d.idle:
	default:
		nc, err := new(net.Dialer).DialContext(ctx, "tcp", d.addr)
		if err != nil {
			return 0, fmt.Errorf("database: %w", err)
		}
		c = &dbConn{nc, bufio.NewReader(nc)}
	}
	_, err := c.Write([]byte(question))
	var line string
	if err == nil {
		line, err = c.in.ReadString('\n')
	}
	var version int64
	if err == nil {
		version, err = strconv.ParseInt(strings.TrimSpace(line), 10, 64)
	}
	if err != nil {
		return 0, errors.Join(fmt.Errorf("database: %w", err), c.Close())
	}
	select {
	case d.idle <- c:
	default:
		c.Close()
	}
	return version, nil
}
