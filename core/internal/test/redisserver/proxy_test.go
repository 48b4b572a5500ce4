package redisserver_test

import (
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/test/redisserver"
)

// through starts a server behind a proxy.
func through(t *testing.T) *redisserver.Proxy {
	t.Helper()
	p, err := redisserver.StartProxy(redisserver.Single(t).Addr())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	return p
}

// silent sees that nothing arrives, and that the connection stays open.
func (c *client) silent(d time.Duration) {
	c.t.Helper()
	require.NoError(c.t, c.SetReadDeadline(time.Now().Add(d)))
	_, err := c.r.ReadByte()
	require.ErrorIs(c.t, err, os.ErrDeadlineExceeded)
	require.NoError(c.t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
}

func TestWhatAProxyHoldsArrivesLater(t *testing.T) {
	t.Parallel()
	p := through(t)
	c := open(t, p.Addr())
	c.send("PING")
	c.wants("+PONG")

	p.Hold(true)
	c.send("PING")
	c.silent(100 * time.Millisecond)
	meanwhile := open(t, p.Addr())
	meanwhile.send("PING")
	meanwhile.silent(50 * time.Millisecond)

	p.Hold(false)
	c.wants("+PONG")
	meanwhile.wants("+PONG")
}

func TestAProxyCutsWhatIsOpen(t *testing.T) {
	t.Parallel()
	p := through(t)
	c := open(t, p.Addr())
	c.send("PING")
	c.wants("+PONG")
	p.Cut()
	c.wantsEnd()

	again := open(t, p.Addr())
	again.send("PING")
	again.wants("+PONG")

	p.Hold(true) // delays nothing
	again.send("PING")
	again.silent(50 * time.Millisecond)
	p.Cut()
	again.wantsEnd()
}

func TestAProxyRefusesNewConnectionsOnly(t *testing.T) {
	t.Parallel()
	p := through(t)
	c := open(t, p.Addr())
	c.send("PING")
	c.wants("+PONG")

	require.NoError(t, p.Refuse(true))
	require.NoError(t, p.Refuse(true))
	require.False(t, accepts(p.Addr()))
	c.send("PING")
	c.wants("+PONG")

	require.NoError(t, p.Refuse(false))
	require.True(t, accepts(p.Addr()))
}

func TestADelayIsOnBothWays(t *testing.T) {
	t.Parallel()
	p := through(t)
	c := open(t, p.Addr())
	p.Delay(50 * time.Millisecond)
	sent := time.Now()
	c.send("PING")
	c.wants("+PONG")
	assert.GreaterOrEqual(t, time.Since(sent), 100*time.Millisecond)
}

func TestADelayIsNoLimitOfWhatIsOnItsWay(t *testing.T) {
	t.Parallel()
	p := through(t)
	c := open(t, p.Addr())
	c.send("PING")
	c.wants("+PONG")
	p.Delay(250 * time.Millisecond)
	sent := time.Now()
	for range 5 {
		c.send("PING")
		time.Sleep(10 * time.Millisecond)
	}
	for range 5 {
		c.wants("+PONG")
	}
	assert.Less(t, time.Since(sent), time.Second, "one after the other they would take 2.5 s")
}

func TestToConnectTakesARoundTripOfItsOwn(t *testing.T) {
	t.Parallel()
	p := through(t)
	p.Delay(50 * time.Millisecond)
	c := open(t, p.Addr())
	sent := time.Now()
	c.send("PING")
	c.wants("+PONG")
	assert.GreaterOrEqual(t, time.Since(sent), 200*time.Millisecond)
}

func TestAClosedProxyIsGone(t *testing.T) {
	t.Parallel()
	p := through(t)
	c := open(t, p.Addr())
	p.Hold(true)
	c.send("PING")
	require.NoError(t, p.Close())
	c.wantsEnd()
	require.NoError(t, p.Refuse(false))
	require.False(t, accepts(p.Addr()))
}

func TestAProxyWhoseServerIsDownClosesConnections(t *testing.T) {
	t.Parallel()
	s := redisserver.Single(t)
	p, err := redisserver.StartProxy(s.Addr())
	require.NoError(t, err)
	defer p.Close()
	s.Kill()
	_, err = ask(s, "PING")
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	open(t, p.Addr()).wantsEnd()
	require.NoError(t, s.Restart(deadline(t), redisserver.Empty))
	c := open(t, p.Addr())
	c.send("PING")
	c.wants("+PONG")
}
