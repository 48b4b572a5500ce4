package redisserver

import (
	"bytes"
	"fmt"
	"net"
	"sync"
	"time"
)

// Proxy stands between clients and a server, and is the network that fails. Its methods may be called concurrently.
type Proxy struct {
	addr, to string
	wg       sync.WaitGroup

	mu       sync.Mutex
	listener net.Listener // nil while it refuses
	links    map[*link]struct{}
	held     chan struct{} // closed when bytes flow again; nil while they flow
	delay    time.Duration
	closed   bool
}

// StartProxy starts a proxy in front of an address. Nothing need listen there yet.
func StartProxy(to string) (*Proxy, error) {
	p := &Proxy{to: to, links: make(map[*link]struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		port, err := freePort()
		if err != nil {
			return nil, fmt.Errorf("start proxy: %w", err)
		}
		p.addr = loopbackAddr(port)
		if p.listen() == nil {
			return p, nil
		} // or someone has just taken the port
	}
}

// listen begins to accept; the caller holds mu.
func (p *Proxy) listen() error {
	l, err := net.Listen("tcp", p.addr)
	if err != nil {
		return err
	}
	p.listener = l
	p.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.connect(c)
		}
	})
	return nil
}

// Addr is where clients connect; it stays the same.
func (p *Proxy) Addr() string { return p.addr }

// Refuse refuses new connections, or accepts them again. Those that are open stay.
func (p *Proxy) Refuse(refuse bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if refuse {
		return p.refuse()
	}
	if p.listener != nil || p.closed {
		return nil
	}
	return p.listen()
}

// refuse ends what listen began; the caller holds mu.
func (p *Proxy) refuse() error {
	if p.listener == nil {
		return nil
	}
	err := p.listener.Close()
	p.listener = nil
	return err
}

// Cut closes all connections that are open, on both sides.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.cut()
	}
}

// Hold keeps bytes from flowing, in both directions, on connections that are open or that are opened meanwhile, or lets
// them flow again: those that were held then arrive. Neither side learns of it.
func (p *Proxy) Hold(hold bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case hold && p.held == nil:
		p.held = make(chan struct{})
	case !hold && p.held != nil:
		close(p.held)
		p.held = nil
	}
}

// Delay delays all bytes sent from now on by d in each direction; 0 ends it. A reply arrives 2d later, however many parts
// it has. The first reply of a connection arrives another 2d later, since a connection takes a round trip.
func (p *Proxy) Delay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// Close closes the proxy and its connections, and waits until nothing of it is at work. To close it again does nothing.
func (p *Proxy) Close() error {
	p.mu.Lock()
	p.closed = true
	err := p.refuse()
	for l := range p.links {
		l.cut()
	}
	p.mu.Unlock()
	p.wg.Wait()
	return err
}

// link is a client's connection and its counterpart.
type link struct {
	client net.Conn
	server net.Conn // set before it is among the proxy's links

	once sync.Once
	done chan struct{} // closed when it is cut
}

func (l *link) cut() {
	l.once.Do(func() {
		close(l.done)
		l.client.Close()
		l.server.Close()
	})
}

// connect links a client to the server, or closes its connection if the server cannot be reached.
func (p *Proxy) connect(client net.Conn) {
	server, err := net.Dial("tcp", p.to)
	if err != nil {
		client.Close()
		return
	}
	l := &link{client: client, server: server, done: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		l.cut()
		return
	}
	p.links[l] = struct{}{}
	var ways sync.WaitGroup
	first := 2 * p.delay
	ways.Go(func() { p.pass(l, client, server, first) })
	ways.Go(func() { p.pass(l, server, client, 0) })
	p.wg.Go(func() {
		ways.Wait()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.links, l)
	})
}

// onTheWay is how many chunks are on their way in one direction, at most.
const onTheWay = 256

// chunk is the result of one read, and the time at which it arrives.
type chunk struct {
	bytes   []byte
	arrives time.Time
}

// pass passes bytes one way until one side closes, and then closes the other. The first arrive later by a time.
func (p *Proxy) pass(l *link, from, to net.Conn, first time.Duration) {
	defer l.cut()
	way := make(chan chunk, onTheWay)
	var reader sync.WaitGroup
	reader.Go(func() {
		defer close(way)
		p.read(l, from, way, first)
	})
	defer reader.Wait()
	defer l.cut() // which ends the reader
	for c := range way {
		if !p.clearance(l, c.arrives) {
			return
		}
		if _, err := to.Write(c.bytes); err != nil {
			return
		}
	}
	p.clearance(l, time.Time{}) // the end of a connection is held, too
}

// read forwards the bytes that it reads, until the connection ends.
func (p *Proxy) read(l *link, from net.Conn, way chan<- chunk, first time.Duration) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			p.mu.Lock()
			arrives := time.Now().Add(p.delay + first)
			p.mu.Unlock()
			first = 0
			select {
			case way <- chunk{bytes.Clone(buf[:n]), arrives}:
			case <-l.done:
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// clearance waits until what was read may be passed on. It returns false if the link was cut meanwhile.
func (p *Proxy) clearance(l *link, arrives time.Time) bool {
	if d := time.Until(arrives); d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-l.done:
			return false
		}
	}
	for {
		p.mu.Lock()
		held := p.held
		p.mu.Unlock()
		if held == nil {
			return true
		}
		select {
		case <-held:
		case <-l.done:
			return false
		}
	}
}
