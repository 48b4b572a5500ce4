package fibercache_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/fibercache"
)

// streaming answers with a stream that writes what comes from lines, and says when
// its context has ended.
func streaming(lines <-chan string, ended chan<- error) fiber.Handler {
	return func(c *fiber.Ctx) error {
		ctx := c.UserContext()
		if ended != nil {
			context.AfterFunc(ctx, func() { ended <- ctx.Err() })
		}
		c.Context().SetBodyStreamWriter(func(w *bufio.Writer) {
			for line := range lines {
				if ctx.Err() != nil {
					_, _ = w.WriteString("context ended\n")
					return
				}
				_, _ = w.WriteString(line + "\n")
				if w.Flush() != nil {
					return
				}
			}
		})
		return nil
	}
}

// A stream goes on after its handler has returned, and so does its context: until
// it has been sent.
func TestStreamPassesThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache := newCache(t)
		s := newSite(t)
		lines, ended := make(chan string), make(chan error, 1)
		s.Get("/", fibercache.Cache(cache, "hour"), streaming(lines, ended))

		conn := s.dial()
		r := s.send(conn, "GET", "/")
		lines <- "one"
		body := bufio.NewReader(s.head(r, "Larder; fwd=uri-miss; detail=streamed").Body)
		line, err := body.ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, "one\n", line)
		synctest.Wait()
		require.Empty(t, ended, "the context must outlast the handler")
		lines <- "two"
		close(lines)
		rest, err := io.ReadAll(body)
		require.NoError(t, err)
		require.Equal(t, "two\n", string(rest))
		synctest.Wait()
		require.Len(t, ended, 1, "the stream has been sent")
		require.NoError(t, conn.Close())
	})
}

// A stream whose client goes away ends as well.
func TestStreamWithoutClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache := newCache(t)
		s := newSite(t)
		lines, ended := make(chan string), make(chan error, 1)
		s.Get("/", fibercache.Cache(cache, "hour"), streaming(lines, ended))
		conn := s.dial()
		s.send(conn, "GET", "/")
		require.NoError(t, conn.Close())
		lines <- "one" // nobody to read it
		synctest.Wait()
		require.Len(t, ended, 1)
		close(lines)
	})
}

// The context that outer middleware has set ends a stream, as without a cache.
func TestStreamEndsWithOuterContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache := newCache(t)
		s := newSite(t)
		app, stop := context.WithCancel(context.Background())
		defer stop()
		lines, ended := make(chan string), make(chan error, 1)
		s.Use(func(c *fiber.Ctx) error { c.SetUserContext(app); return c.Next() })
		s.Get("/", fibercache.Cache(cache, "hour"), streaming(lines, ended))
		conn := s.dial()
		r := s.send(conn, "GET", "/")
		lines <- "one"
		resp := s.head(r, "Larder; fwd=uri-miss; detail=streamed")
		stop()
		synctest.Wait()
		require.Len(t, ended, 1)
		close(lines)
		_, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, conn.Close())
	})
}

func TestKnownLengthStreamIsNotStored(t *testing.T) {
	cache := newCache(t)
	s := newSite(t)
	s.Get("/", fibercache.Cache(cache, "hour"), func(c *fiber.Ctx) error {
		return c.SendStream(bytes.NewReader([]byte("stream")), 6)
	})
	for range 2 {
		a := s.get("/")
		require.Equal(t, "stream", a.body)
		require.EqualValues(t, 6, a.ContentLength)
		require.Equal(t, "Larder; fwd=uri-miss; detail=streamed", a.status())
	}
}

// The client must not see a byte of a write's answer before what was cached is
// gone, be it a stream whose function runs already.
func TestStreamOfAWriteWaitsForTheInvalidation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache := newCache(t)
		s := newSite(t)
		s.Get("/p", fibercache.Cache(cache, "hour", "p"), counted())
		lines := make(chan string)
		handled := make(chan struct{})
		s.Post("/p", fibercache.Invalidate(cache, "p"), func(c *fiber.Ctx) error {
			err := streaming(lines, nil)(c)
			<-handled
			return err
		})
		s.get("/p")
		require.True(t, s.get("/p").hit())

		conn := s.dial()
		r := s.send(conn, "POST", "/p")
		lines <- "written" // the stream's function does not wait for the handler
		synctest.Wait()
		require.NoError(t, conn.SetReadDeadline(past))
		_, err := r.Peek(1)
		require.Error(t, err, "nothing is sent while the handler runs")
		require.NoError(t, conn.SetReadDeadline(never))
		close(handled)
		resp := s.head(bufio.NewReader(conn), "")
		require.False(t, s.get("/p").hit(), "the header is there: the invalidation has happened")
		close(lines)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.Equal(t, "written\n", string(body))
		require.NoError(t, conn.Close())
	})
}

// A stream that commits after its handler has returned announces that itself, by its
// context.
func TestStreamAnnouncesALateCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache := newCache(t)
		s := newSite(t)
		s.Get("/p", fibercache.Cache(cache, "hour", "p"), counted())
		commit := make(chan struct{})
		s.Post("/p", fibercache.Invalidate(cache, "p"), func(c *fiber.Ctx) error {
			ctx := c.UserContext()
			c.Context().SetBodyStreamWriter(func(w *bufio.Writer) {
				_, _ = w.WriteString("working\n")
				_ = w.Flush()
				<-commit
				if err := core.Invalidate(ctx, core.Tag("p")); err != nil {
					_, _ = w.WriteString(err.Error())
				}
			})
			return nil
		})
		conn := s.dial()
		r := s.send(conn, "POST", "/p")
		resp := s.head(r, "")
		s.get("/p")
		require.True(t, s.get("/p").hit())
		close(commit)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.Equal(t, "working\n", string(body))
		require.False(t, s.get("/p").hit())
		require.NoError(t, conn.Close())
	})
}

func TestHijack(t *testing.T) {
	cache := newCache(t)
	s := newSite(t)
	runs := 0
	s.Get("/", fibercache.Cache(cache, "hour"), func(c *fiber.Ctx) error {
		runs++
		c.Context().Hijack(func(conn net.Conn) { _, _ = conn.Write([]byte("mine")) })
		return c.SendString("")
	})
	for range 2 {
		conn := s.dial()
		r := s.send(conn, "GET", "/")
		s.head(r, "Larder; fwd=uri-miss; detail=streamed")
		mine, err := io.ReadAll(r)
		require.NoError(t, err)
		require.Equal(t, "mine", string(mine))
		require.NoError(t, conn.Close())
	}
	require.Equal(t, 2, runs)
}

// A handler may leave its context to a timeout, which then answers in its place.
func TestTimeoutResponseIsNotStored(t *testing.T) {
	cache := newCache(t)
	s := newSite(t)
	runs := 0
	s.Get("/", fibercache.Cache(cache, "hour"), func(c *fiber.Ctx) error {
		runs++
		_ = c.SendString("never sent")
		c.Context().TimeoutErrorWithCode("too late", 203)
		return nil
	})
	for range 2 {
		a := s.get("/")
		require.Equal(t, 203, a.StatusCode)
		require.Equal(t, "too late", a.body)
		require.Equal(t, "Larder; fwd=uri-miss; detail=streamed", a.status())
	}
	require.Equal(t, 2, runs)
}

// A handler finds the deadline that outer middleware has set, and why it has ended.
func TestDeadlineOfOuterMiddleware(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache := newCache(t)
		s := newSite(t)
		s.Use(func(c *fiber.Ctx) error {
			ctx, cancel := context.WithTimeout(c.UserContext(), time.Minute)
			defer cancel()
			c.SetUserContext(ctx)
			return c.Next()
		})
		s.Get("/", fibercache.Cache(cache, "hour"), func(c *fiber.Ctx) error {
			until, ok := c.UserContext().Deadline()
			require.True(t, ok)
			require.Equal(t, time.Minute, time.Until(until))
			require.NoError(t, c.UserContext().Err())
			<-c.UserContext().Done()
			return c.UserContext().Err()
		})
		a := s.get("/")
		require.Equal(t, 500, a.StatusCode)
		require.Equal(t, context.DeadlineExceeded.Error(), a.body)
	})
}
