package redisstore

import (
	"context"
	"errors"
	"net"
	"sync"
	"syscall"
)

// maxDialing bounds the dialers that have not returned. A dialer that asks Sentinel or uses TLS may
// ignore its context.
const maxDialing = 64

// connections are the open connections of the tier's clients. It abandons a dialer that exceeds its
// time, and closes connections to a server that is no longer the master.
type connections struct {
	dialer  dialFunc
	dialing chan struct{}

	mu     sync.Mutex
	open   map[*connection]struct{}
	closed bool
}

func newConnections(dialer dialFunc) *connections {
	return &connections{
		dialer:  dialer,
		dialing: make(chan struct{}, maxDialing),
		open:    make(map[*connection]struct{}),
	}
}

// Dial dials for go-redis.
func (c *connections) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	return c.dialTracked(ctx, c.dialer, network, addr)
}

// through returns a dialer for go-redis that uses another dialer for the network connection.
func (c *connections) through(dialer dialFunc) dialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		return c.dialTracked(ctx, dialer, network, addr)
	}
}

func (c *connections) dialTracked(ctx context.Context, dialer dialFunc, network, addr string) (net.Conn, error) {
	conn, err := c.dialWith(ctx, dialer, network, addr)
	if err != nil {
		return nil, err
	}
	tracked := &connection{Conn: conn, of: c}
	c.mu.Lock()
	if !c.closed {
		c.open[tracked] = struct{}{}
	}
	closed := c.closed
	c.mu.Unlock()
	if closed {
		_ = conn.Close()
		return nil, net.ErrClosed
	}
	if raw, ok := conn.(syscall.Conn); ok {
		return &rawConnection{connection: tracked, raw: raw}, nil
	}
	return tracked, nil
}

// dial returns a new connection, which is not counted as open yet.
func (c *connections) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	return c.dialWith(ctx, c.dialer, network, addr)
}

// dialWith returns when ctx ends, even if the dialer does not.
func (c *connections) dialWith(ctx context.Context, dialer dialFunc, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	select {
	case c.dialing <- struct{}{}:
	default:
		cancel()
		return nil, errors.New("too many connections are being made")
	}
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result)
	go func() {
		defer func() { <-c.dialing }()
		defer cancel()
		conn, err := dialer(ctx, network, addr)
		select {
		case done <- result{conn, err}:
		case <-ctx.Done():
			if conn != nil {
				_ = conn.Close()
			}
		}
	}()
	select {
	case r := <-done:
		return r.conn, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// closeAll closes the open connections. Pending calls fail.
func (c *connections) closeAll() { c.closeBut("") }

// closeBut closes the open connections to other addresses.
func (c *connections) closeBut(addr string) {
	c.mu.Lock()
	var others []*connection
	for conn := range c.open {
		if addr == "" || conn.RemoteAddr().String() != addr {
			others = append(others, conn)
		}
	}
	c.mu.Unlock()
	for _, conn := range others {
		_ = conn.Close()
	}
}

// close closes all connections, including those that are dialed later.
func (c *connections) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.closeAll()
}

type connection struct {
	net.Conn
	of *connections
}

func (c *connection) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// rawConnection gives go-redis access to the socket, so that it notices a connection that the other
// side has closed before it sends on it.
type rawConnection struct {
	*connection
	raw syscall.Conn
}

func (c *rawConnection) SyscallConn() (syscall.RawConn, error) { return c.raw.SyscallConn() }
