package redisstore

import (
	"context"
	"errors"
	"net"
	"sync"
	"syscall"
)

// maxDialing bounds the dialers that do not come back: one that asks Sentinel, or
// does TLS, may ignore its context.
const maxDialing = 64

// connections are those that our clients have open. It abandons a dialer when
// the time is up, and closes connections to a server that is no longer master.
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

// Dial is a dialer for go-redis.
func (c *connections) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	return c.dialTracked(ctx, c.dialer, network, addr)
}

// through returns a dialer for go-redis over another dialer than that of all.
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

// dial makes a connection that is not among those that are open.
func (c *connections) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	return c.dialWith(ctx, c.dialer, network, addr)
}

// dialWith returns when ctx ends even if the dialer does not.
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

// closeAll closes what is open. Calls that are on the way fail.
func (c *connections) closeAll() { c.closeBut("") }

// closeBut closes what is open to other addresses.
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

// close closes all, also what is dialed later.
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

// rawConnection lets go-redis see that the other side has closed a connection
// before it sends something there.
type rawConnection struct {
	*connection
	raw syscall.Conn
}

func (c *rawConnection) SyscallConn() (syscall.RawConn, error) { return c.raw.SyscallConn() }
