package adaptertest

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
)

// row is what handlers read and write: a database.
type row struct {
	value  atomic.Int64
	reads  atomic.Int64
	status int // of the answer to a write; default 200
	hold   *gate
	during func() // inside the write, after its commit
}

func (r *row) read(c Ctx) error {
	r.reads.Add(1)
	return c.Text(200, fmt.Sprint("value ", r.value.Load()))
}

func (r *row) write(c Ctx) error {
	v := r.value.Add(1)
	if r.during != nil {
		r.during()
	}
	if r.hold != nil {
		r.hold.wait()
	}
	return c.Text(max(200, r.status), fmt.Sprint("wrote ", v))
}

// The promise "never stale after an invalidation", seen from the client of a write.
func writeCases() []testCase {
	cases := []testCase{
		// Elsewhere: the client saw the write's response before the invalidation, and read the old value back.
		over("a write is read back by the next request", func(s *site) {
			db := &row{}
			s.handle("GET /p/{id}", db.read, s.cached("hour", "p:{id}"))
			s.handle("GET /list", db.read, s.cached("hour", "list"))
			s.handle("PUT /p/{id}", db.write, s.invalidates("p:{id}", "list"))
			s.get("/p/1").is("value 0")
			s.get("/list").is("value 0")
			for i := range 50 {
				s.do("PUT", "/p/1").is(fmt.Sprint("wrote ", i+1))
				s.get("/p/1").is(fmt.Sprint("value ", i+1)).isNoHit()
				s.get("/p/1").is(fmt.Sprint("value ", i+1)).isHit()
				s.get("/list").is(fmt.Sprint("value ", i+1)).isNoHit()
			}
		}),

		over("a write leaves entries with other tags and paths", func(s *site) {
			db := &row{}
			s.handle("GET /p/{id}", db.read, s.cached("hour", "p:{id}"))
			s.handle("PUT /p/{id}", db.write, s.invalidates("p:{id}"))
			s.get("/p/2").is("value 0")
			s.do("PUT", "/p/1").is("wrote 1")
			s.get("/p/2").is("value 0").isHit()
		}),

		over("a write invalidates its own path with all queries", func(s *site) {
			db := &row{}
			s.handle("GET /items", db.read, s.cached("hour"))
			s.handle("POST /items", db.write, s.invalidates("unrelated"))
			for _, target := range []string{"/items", "/items?page=1"} {
				s.get(target).isNoHit()
				s.get(target).isHit()
			}
			s.do("POST", "/items?page=7").is("wrote 1")
			for _, target := range []string{"/items", "/items?page=1"} {
				s.get(target).is("value 1").isNoHit()
			}
		}),

		over("a safe request on a write route invalidates only its tags", func(s *site) {
			db := &row{}
			s.handle("GET /p/{id}", db.read, s.cached("hour", "p:{id}"))
			s.handle("GET /touch/{id}", db.write, s.cached("hour"), s.invalidates("p:{id}"))
			s.get("/p/1").is("value 0")
			s.get("/touch/1").is("wrote 1").says("Larder; fwd=uri-miss; stored")
			s.get("/touch/1").is("wrote 1").isHit()
			s.get("/p/1").is("value 1").isNoHit()
		}),

		over("an unsafe request on a cached route invalidates URI and tags", func(s *site) {
			db := &row{}
			s.handle("GET /p/{id}", db.read, s.cached("hour", "p:{id}"))
			s.handle("GET /view/{id}", db.read, s.cached("hour", "p:{id}"))
			for _, method := range []string{"POST", "PUT", "PATCH", "DELETE"} {
				s.handle(method+" /p/{id}", db.write, s.cached("hour", "p:{id}"))
			}
			for i, method := range []string{"POST", "PUT", "PATCH", "DELETE"} {
				for _, target := range []string{"/p/1", "/p/1?q=1", "/view/1"} {
					s.get(target).isNoHit()
					s.get(target).isHit()
				}
				s.do(method, "/p/1").is(fmt.Sprint("wrote ", i+1))
				for _, target := range []string{"/p/1", "/p/1?q=1", "/view/1"} {
					s.get(target).is(fmt.Sprint("value ", i+1)).isNoHit()
				}
				s.invalidate(core.All())
			}
		}),

		over("a refused unsafe request on a cached route invalidates nothing", func(s *site) {
			db := &row{status: 409}
			s.handle("GET /p/{id}", db.read, s.cached("hour", "p:{id}"))
			s.handle("POST /p/{id}", db.write, s.cached("hour", "p:{id}"))
			s.get("/p/1").is("value 0")
			require.Equal(s, 409, s.do("POST", "/p/1").status)
			s.get("/p/1").is("value 0").isHit()
			s.do("POST", "/p/1", "X-A: 1")
		}),

		over("an unsafe request on a cached route outside routing invalidates", func(s *site) {
			db := &row{}
			s.app.Outside = []Use{s.cached("hour", "p:{id}")}
			s.handle("GET /p/{id}", db.read)
			s.handle("GET /view/{id}", db.read)
			s.handle("PUT /p/{id}", db.write)
			s.get("/p/1").is("value 0")
			s.get("/view/1").is("value 0")
			s.get("/view/1").isHit()
			s.do("PUT", "/p/1").is("wrote 1")
			s.get("/p/1").is("value 1").isNoHit()
			s.get("/view/1").is("value 1").isNoHit()
		}),

		over("a write invalidates what its Location names on the same host", func(s *site) {
			db := &row{}
			var fields []string
			s.handle("GET /items/{id}", db.read, s.cached("hour"))
			s.handle("GET /a/b/{id}", db.read, s.cached("hour"))
			s.handle("GET /", db.read, s.cached("hour"))
			s.handle("POST /items/{id}", func(c Ctx) error {
				add(c, fields)
				return c.Text(201, "made")
			}, s.invalidates("unrelated"))
			for _, c := range []struct {
				field, gone string
				stays       bool
			}{
				{"Location: /items/7", "/items/7", false},
				{"Location: /items/7?x=1", "/items/7?page=2", false},
				{"Location: 7", "/items/7", false},
				{"Location: ../a/b/c", "/a/b/c", false},
				{"Location: http://" + origin + "/items/7", "/items/7", false},
				{"Location: //" + strings.ToUpper(origin) + "/items/7", "/items/7", false},
				{"Content-Location: /items/7", "/items/7", false},
				{"Location: http://other.example/items/7", "/items/7", true},
				{"Location: http://" + origin + ":8080/items/7", "/items/7", true},
				{"Location: https://" + origin + "/items/7", "/items/7", false}, // TLS may end at a proxy in front
				{"Content-Location: https://" + origin + ":443/items/7", "/items/7", false},
				{"Location: HTTPS://" + strings.ToUpper(origin) + "/items/7#top", "/items/7", false},
				{"Location: http://" + origin + ":80/items/7", "/items/7", false},
				{"Location: https://" + origin, "/", false},
				{"Location: https://" + origin + ":8443/items/7", "/items/7", true},
				{"Location: https://" + origin + ".evil.example/items/7", "/items/7", true},
				{"Location: ftp://" + origin + "/items/7", "/items/7", true},
				{"Link: </items/7>", "/items/7", true},
			} {
				s.get(c.gone)
				s.get(c.gone).isHit()
				fields = []string{c.field}
				require.Equal(s, 201, s.do("POST", "/items/1").status)
				require.Equal(s, c.stays, s.get(c.gone).hit(), c.field)
				s.invalidate(core.All())
			}
		}),

		within("a load during a write is shared until the write ends", func(s *site) {
			db := &row{hold: s.gate()}
			s.handle("GET /p/{id}", db.read, s.cached("hour", "p:{id}"))
			s.handle("PUT /p/{id}", db.write, s.invalidates("p:{id}"))
			s.get("/p/1").is("value 0")
			w := s.start("PUT", "/p/1")
			s.settles(func() bool { return db.value.Load() == 1 }, "the write is under way")
			s.get("/p/1").is("value 0").isHit() // the write may still be refused
			s.invalidate(core.Tag("p:1"))
			s.get("/p/1").is("value 1").isNoHit()
			s.get("/p/1").is("value 1").isHit()
			db.value.Add(1)
			db.hold.open()
			w.answer().is("wrote 1")
			s.get("/p/1").is("value 2").isNoHit()
		}),

		within("a load during a write does not outlive the write's deadline", func(s *site) {
			db := &row{hold: s.gate()}
			s.handle("GET /p/{id}", db.read, s.cached("hour", "p:{id}"))
			s.handle("PUT /p/{id}", db.write, s.invalidates("p:{id}"))
			w := s.start("PUT", "/p/1")
			s.settles(func() bool { return db.value.Load() == 1 }, "the write is under way")
			s.get("/p/1").is("value 1")
			time.Sleep(30*time.Second - time.Nanosecond)
			s.get("/p/1").is("value 1").isHit()
			time.Sleep(time.Nanosecond)
			s.get("/p/1").is("value 1").isNoHit()
			db.hold.open()
			w.answer().is("wrote 1")
		}),

		within("a write whose client disconnects still invalidates", func(s *site) {
			db := &row{hold: s.gate()}
			s.handle("GET /p/{id}", db.read, s.cached("hour", "p:{id}"))
			s.handle("PUT /p/{id}", db.write, s.invalidates("p:{id}"))
			x, err := s.begin(request{method: "PUT", target: "/p/1"})
			require.NoError(s, err)
			s.settles(func() bool { return db.value.Load() == 1 }, "the write is under way")
			s.get("/p/1").is("value 1")
			s.get("/p/1").is("value 1").isHit()
			db.value.Add(1)
			x.leave()
			db.hold.open()
			s.settles(func() bool { return true }, "the write has ended")
			s.get("/p/1").is("value 2").isNoHit()
		}),

		within("a write that panics invalidates", func(s *site) {
			db := &row{}
			s.handle("GET /p/{id}", db.read, s.cached("hour", "p:{id}"))
			s.handle("PUT /p/{id}", db.write, s.invalidates("p:{id}"))
			db.during = func() {
				s.get("/p/1").is("value 0").isHit()
				db.value.Add(1)
				panic(http.ErrAbortHandler)
			}
			s.get("/p/1").is("value 0")
			a := s.do("PUT", "/p/1")
			require.False(s, a.err == nil && a.status == 200, "%d %q", a.status, a.body)
			s.get("/p/1").is("value 2").isNoHit()
		}),
	}
	for _, status := range []int{200, 201, 204, 303, 408, 499, 500, 503} {
		wrote := both
		if status >= 400 {
			wrote = declared
		}
		cases = append(cases, outcome(fmt.Sprint("a write that answers ", status, " invalidates when it ends"), wrote, func(c Ctx, _ *site) error {
			c.Status(status)
			return nil
		}))
	}
	cases = append(cases,
		outcome("a write that answers nothing invalidates when it ends", both, func(Ctx, *site) error { return nil }),
		outcome("a write that fails with 500 by an error invalidates when it ends", declared, func(_ Ctx, s *site) error { return s.f.Error(500) }, noErrors),
		outcome("a write that is refused with 404 by an error invalidates nothing", neither, func(_ Ctx, s *site) error { return s.f.Error(404) }, noErrors),
	)
	for _, status := range []int{400, 404, 409, 422} {
		cases = append(cases, outcome(fmt.Sprint("a write that is refused with ", status, " invalidates nothing when it ends"), neither, func(c Ctx, _ *site) error {
			return c.Text(status, "refused")
		}))
	}
	cases = append(cases, refusedCases()...)
	cases = append(cases, lateCommitCases()...)
	return append(cases, heldCases()...)
}

// refusedCases are writes that are refused: they remove no entry.
func refusedCases() (cases []testCase) {
	refused := func(name string, answer func(c Ctx, s *site) error, unless ...flag) testCase {
		return within("a refused write removes nothing: "+name, func(s *site) {
			db := &row{}
			for _, target := range []string{"/p/{id}", "/list"} {
				s.handle("GET "+target, db.read, s.cached("hour", "catalog"))
			}
			s.handle("PUT /p/{id}", func(c Ctx) error { return answer(c, s) }, s.invalidates("p:{id}", "catalog"))
			both := []string{"/p/1", "/list"}
			for _, target := range both {
				s.get(target).is("value 0")
			}
			db.value.Add(1) // a load would see it
			for range 5 {
				s.do("PUT", "/p/1")
				for _, target := range both {
					s.get(target).is("value 0").isHit()
				}
				time.Sleep(20 * time.Second)
			}
			time.Sleep(time.Minute)
			for _, target := range both {
				s.get(target).is("value 0").isHit()
			}
			require.EqualValues(s, 2, db.reads.Load())
			require.Zero(s, s.cache.Stats().RemoteHits, "nor what this process keeps")
		}, unless...)
	}
	for _, status := range []int{400, 401, 403, 404, 405, 409, 410, 412, 415, 422, 428, 429, 451} {
		cases = append(cases, refused(fmt.Sprint(status), func(c Ctx, _ *site) error { return c.Text(status, "no") }))
	}
	for _, status := range []int{401, 404, 409, 422} {
		cases = append(cases, refused(fmt.Sprint(status, " by an error"), func(_ Ctx, s *site) error { return s.f.Error(status) }, noErrors))
	}
	return append(cases,
		within("a refused write during another removes nothing", func(s *site) {
			db := &row{hold: s.gate()}
			s.handle("GET /list", db.read, s.cached("hour", "catalog"))
			s.handle("PUT /p/{id}", db.write, s.invalidates("catalog"))
			s.handle("POST /p/{id}", func(c Ctx) error { return c.Text(401, "no") }, s.invalidates("catalog"))
			s.get("/list").is("value 0")
			w := s.start("PUT", "/p/1")
			s.settles(func() bool { return db.value.Load() == 1 }, "the write is under way")
			s.do("POST", "/p/1")
			s.get("/list").is("value 0").isHit()
			time.Sleep(30 * time.Second)
			s.get("/list").is("value 1").isNoHit() // its deadline
			db.hold.open()
			w.answer().is("wrote 1")
			s.get("/list").is("value 1").isNoHit()
		}),

		// By its status the write has changed nothing; the handler states that it has.
		within("a write that answers 4xx can invalidate by core.Invalidate", func(s *site) {
			db := &row{}
			g := s.gate()
			s.handle("GET /p/{id}", db.read, s.cached("hour", "p:{id}"))
			s.handle("POST /p/{id}", func(c Ctx) error {
				db.value.Add(1)
				if err := core.Invalidate(c.Context(), core.Tag("p:1")); err != nil {
					return err
				}
				g.wait()
				return c.Text(409, "there is one already, and it has more tags now")
			}, s.invalidates("unrelated"))
			s.get("/p/1").is("value 0")
			w := s.start("POST", "/p/1")
			s.settles(func() bool { return db.value.Load() == 1 }, "the write is under way")
			s.get("/p/1").is("value 1").isNoHit()
			db.value.Add(1)
			g.open()
			require.Equal(s, 409, w.answer().status)
			s.get("/p/1").is("value 2").isNoHit() // once more, at the end
		}),
	)
}

// lateCommitCases are writes whose handler may still commit after the answer: a handler
// behind http.TimeoutHandler keeps running, and a query whose context has ended may have
// arrived. An entry loaded before the commit must not outlive the write's deadline.
func lateCommitCases() (cases []testCase) {
	late := func(name string, answer func(c Ctx, s *site) error, unless ...flag) testCase {
		return within("a late commit is seen by the deadline: "+name, func(s *site) {
			db := &row{}
			s.handle("GET /p/{id}", db.read, s.cached("hour", "p:{id}"))
			s.handle("GET /other", db.read, s.cached("hour", "other"))
			s.handle("PUT /p/{id}", func(c Ctx) error { return answer(c, s) }, s.invalidates("p:{id}"))
			for _, target := range []string{"/p/1", "/other"} {
				s.get(target).is("value 0")
			}
			s.do("PUT", "/p/1")
			for _, target := range []string{"/p/1", "/other"} {
				s.get(target).is("value 0") // and is stored
			}
			db.value.Add(1) // what the handler has left behind commits
			time.Sleep(30*time.Second + time.Millisecond)
			s.get("/p/1").is("value 1").isNoHit()
			time.Sleep(30 * time.Second)
			s.get("/p/1").is("value 1").isHit()
		}, unless...)
	}
	for _, status := range []int{202, 408, 499, 500, 502, 503, 504} {
		cases = append(cases, late(fmt.Sprint(status), func(c Ctx, _ *site) error { return c.Text(status, "not yet") }))
	}
	for _, status := range []int{408, 500, 503} {
		cases = append(cases, late(fmt.Sprint(status, " by an error"), func(_ Ctx, s *site) error { return s.f.Error(status) }, noErrors))
	}
	return append(cases,
		late("a panic", func(Ctx, *site) error { panic(http.ErrAbortHandler) }),
		within("a commit soon after the answer is seen soon", func(s *site) {
			db := &row{}
			s.handle("GET /p/{id}", db.read, s.cached("hour", "p:{id}"))
			s.handle("PUT /p/{id}", func(c Ctx) error {
				time.Sleep(50 * time.Millisecond)
				return c.Text(503, "too slow")
			}, s.invalidates("p:{id}"))
			s.do("PUT", "/p/1")
			s.get("/p/1").is("value 0") // read before the commit
			time.Sleep(150 * time.Millisecond)
			db.value.Add(1) // what the handler has left behind commits
			time.Sleep(150 * time.Millisecond)
			s.get("/p/1").is("value 1").isNoHit()
			time.Sleep(time.Minute)
			s.get("/p/1").is("value 1").isNoHit() // the last of the deadlines
			s.get("/p/1").isHit()
		}),
		within("a late commit is seen by the deadline: tags of the handler", func(s *site) {
			db := &row{}
			s.handle("GET /other", db.read, s.cached("hour", "other"))
			s.handle("PUT /p/{id}", func(c Ctx) error {
				if err := core.Invalidate(c.Context(), core.Tag("other")); err != nil {
					return err
				}
				return c.Text(503, "not yet")
			}, s.invalidates("p:{id}"))
			s.do("PUT", "/p/1")
			s.get("/other").is("value 0")
			db.value.Add(1)
			time.Sleep(30 * time.Second)
			s.get("/other").is("value 1").isNoHit()
		}),
		within("a late commit is seen by the deadline: its client disconnected", func(s *site) {
			db := &row{}
			g := s.gate()
			var begun atomic.Bool
			s.handle("GET /p/{id}", db.read, s.cached("hour", "p:{id}"))
			s.handle("PUT /p/{id}", func(c Ctx) error {
				begun.Store(true)
				<-c.Context().Done()
				g.wait()
				return c.Text(200, "")
			}, s.invalidates("p:{id}"))
			x, err := s.begin(request{method: "PUT", target: "/p/1"})
			require.NoError(s, err)
			s.settles(begun.Load, "the write is under way")
			x.leave()
			g.open()
			s.settles(func() bool { return true }, "the write has ended")
			s.get("/p/1").is("value 0")
			db.value.Add(1)
			time.Sleep(30 * time.Second)
			s.get("/p/1").is("value 1").isNoHit()
		}, noClientCancel),
	)
}

// ways lists the answers by which writes invalidate. A declared write (Invalidate) may have
// committed although its answer failed. An undeclared one invalidates when it succeeds
// (RFC 9111 section 4.4).
type ways int

const (
	neither ways = iota
	declared
	both
)

// outcome runs a write with some end. An entry stored while it ran is then gone, or not.
// Both kinds of write are tried.
func outcome(name string, invalidates ways, end func(c Ctx, s *site) error, unless ...flag) testCase {
	return over(name, func(s *site) {
		db := &row{}
		write := func(c Ctx) error {
			s.get("/p/" + c.Param("id")).is(fmt.Sprint("value ", db.value.Load())) // stored meanwhile
			db.value.Add(1)
			return end(c, s)
		}
		s.handle("GET /p/{id}", db.read, s.cached("hour", "p:{id}"))
		s.handle("PUT /p/{id}", write, s.invalidates("p:{id}"))
		s.handle("POST /p/{id}", write, s.cached("hour"))
		// Each write has a page of its own: a write whose outcome is unknown invalidates its page
		// again some 50 ms later.
		for method, target := range map[string]string{"PUT": "/p/1", "POST": "/p/2"} {
			before := db.value.Load()
			require.NoError(s, s.do(method, target).err)
			if invalidates == both || invalidates == declared && method == "PUT" {
				s.get(target).is(fmt.Sprint("value ", before+1)).isNoHit()
			} else {
				s.get(target).is(fmt.Sprint("value ", before)).isHit()
			}
		}
	}, unless...)
}

// heldCases are answers of writes whose end must not be seen before the invalidation. Each
// handler has written its whole answer when it is held. In a bubble a pipe has no buffer, so
// that no byte is under way when all goroutines wait.
func heldCases() []testCase {
	large := strings.Repeat("0123456789", 20_000)
	copied := large + large // its last piece is larger than the buffer of a server, which would hold a smaller one back
	type shape struct {
		name, method string
		status       int
		body         string
		answer       func(c Ctx) error
		unless       []flag
	}
	send := func(status int, fields []string, pieces ...string) func(c Ctx) error {
		return func(c Ctx) error {
			add(c, fields)
			c.Status(status)
			for _, p := range pieces {
				if _, err := c.Write([]byte(p)); err != nil {
					return err
				}
			}
			return nil
		}
	}
	flushed := func(h func(c Ctx) error) func(c Ctx) error {
		return func(c Ctx) error {
			if err := h(c); err != nil {
				return err
			}
			return http.NewResponseController(c.ResponseWriter()).Flush()
		}
	}
	std := []flag{noResponseWriter}
	var cases []testCase
	for _, sh := range []shape{
		{"small", "PUT", 200, "hello", send(200, nil, "hello"), nil},
		{"small with its length", "PUT", 200, "hello", send(200, []string{"Content-Length: 5"}, "hello"), nil},
		{"large", "PUT", 200, large, send(200, nil, large), nil},
		{"large with its length", "PUT", 200, large, send(200, []string{fmt.Sprint("Content-Length: ", len(large))}, large), nil},
		{"large, in pieces, with its length", "PUT", 200, large, send(200, []string{fmt.Sprint("Content-Length: ", len(large))}, large[:5000], "", large[5000:5001], large[5001:]), nil},
		{"empty", "PUT", 200, "", send(200, nil), nil},
		{"flushed", "PUT", 200, "hello", flushed(send(200, nil, "hello")), std},
		{"flushed with its length", "PUT", 200, "hello", flushed(send(200, []string{"Content-Length: 5"}, "hello")), std},
		{"flushed, one byte with its length", "PUT", 200, "x", flushed(send(200, []string{"Content-Length: 1"}, "x")), std},
		{"large and flushed with its length", "PUT", 200, large, flushed(send(200, []string{fmt.Sprint("Content-Length: ", len(large))}, large)), std},
		{"flushed, in pieces, with its length", "PUT", 200, "hello world", flushed(func(c Ctx) error {
			if err := flushed(send(200, []string{"Content-Length: 11"}, "hello "))(c); err != nil {
				return err
			}
			_, err := c.Write([]byte("world"))
			return err
		}), std},
		{"204, flushed", "PUT", 204, "", flushed(send(204, nil)), std},
		{"303 without content, flushed", "POST", 303, "", flushed(send(303, []string{"Location: /p/1", "Content-Length: 0"})), std},
		{"200 without content, flushed", "PUT", 200, "", flushed(send(200, []string{"Content-Length: 0"})), std},
		{"to HEAD, flushed", "HEAD", 200, "", flushed(send(200, nil)), std},
		{"copied from a reader with its length", "PUT", 200, copied, func(c Ctx) error {
			c.Set("Content-Length", fmt.Sprint(len(copied)))
			_, err := io.Copy(c.ResponseWriter(), reader(copied))
			return err
		}, std},
		{"by WriteString with its length", "PUT", 200, large, func(c Ctx) error {
			c.Set("Content-Length", fmt.Sprint(len(large)))
			_, err := io.WriteString(c.ResponseWriter(), large)
			return err
		}, std},
	} {
		cases = append(cases, within("the last byte of a write's answer follows it: "+sh.name, func(s *site) {
			db := &row{}
			g := s.gate()
			s.handle("GET /p/{id}", db.read, s.cached("hour", "p:{id}"))
			s.handle(sh.method+" /w/{id}", func(c Ctx) error {
				if err := sh.answer(c); err != nil {
					return err
				}
				g.wait()
				s.get("/p/1").is("value 0") // what a reader may have stored meanwhile
				db.value.Add(1)
				return nil
			}, s.invalidates("p:{id}"))
			s.get("/p/1").is("value 0")
			w := s.start(sh.method, "/w/1")
			s.settles(func() bool { return s.cache.Stats().Invalidations > 0 }, "the write is under way")
			require.False(s, w.ended(), "the client has seen the end of the answer")
			g.open()
			a := w.answer()
			require.NoError(s, a.err)
			require.Equal(s, sh.status, a.status)
			require.Equal(s, sh.body, a.body)
			s.get("/p/1").is("value 1").isNoHit()
		}, sh.unless...))
	}
	return append(cases,
		within("a write's stream passes event by event except its last byte", func(s *site) {
			g := s.gate()
			s.handle("PUT /w/{id}", func(c Ctx) error {
				return c.Stream(func(w io.Writer, flush func()) {
					_, _ = io.WriteString(w, "first\n")
					flush()
					_, _ = io.WriteString(w, "second\n")
					flush()
					g.wait()
				})
			}, s.invalidates("p:{id}"))
			x, err := s.begin(request{method: "PUT", target: "/w/1"})
			require.NoError(s, err)
			defer x.leave()
			resp, a := x.head()
			require.NoError(s, a.err)
			got := make([]byte, len("first\nsecond"))
			_, err = io.ReadFull(resp.Body, got)
			require.NoError(s, err)
			require.Equal(s, "first\nsecond", string(got))
			last := make(chan string, 1)
			go func() {
				var b [1]byte
				n, _ := io.ReadFull(resp.Body, b[:])
				last <- string(b[:n])
			}()
			s.settles(func() bool { return true }, "what the server has sent has arrived")
			require.Empty(s, last, "the client has seen the end of the answer")
			g.open()
			require.Equal(s, "\n", <-last)
			rest, err := io.ReadAll(resp.Body)
			require.NoError(s, err)
			require.Empty(s, rest)
		}, noResponseWriter),

		within("a write's events pass at once, their end with the write", func(s *site) {
			db := &row{}
			g := s.gate()
			s.handle("GET /p/{id}", db.read, s.cached("hour", "p:{id}"))
			events := func(c Ctx) error {
				c.Set("Content-Type", "Text/Event-Stream; charset=utf-8")
				return c.Stream(func(w io.Writer, flush func()) {
					for _, event := range []string{"data: first\n\n", "data: " + strings.Repeat("x", 10_000) + "\n\n"} {
						_, _ = io.WriteString(w, event)
						flush()
					}
					g.wait()
					s.get("/p/1").is("value 0") // what a reader may have stored meanwhile
					db.value.Add(1)
				})
			}
			s.handle("POST /w/{id}", events, s.invalidates("p:{id}"))
			x, err := s.begin(request{method: "POST", target: "/w/1"})
			require.NoError(s, err)
			defer x.leave()
			resp, a := x.head()
			require.NoError(s, a.err)
			r := bufio.NewReader(resp.Body)
			for _, text := range []string{"data: first\n", "\n", "data: " + strings.Repeat("x", 10_000) + "\n", "\n"} {
				line, err := r.ReadString('\n')
				require.NoError(s, err)
				require.Equal(s, text, line)
			}
			g.open()
			_, err = r.ReadByte()
			require.ErrorIs(s, err, io.EOF)
			s.get("/p/1").is("value 1").isNoHit()
		}, noResponseWriter),

		within("a write's events with a stated length are held back at the end", func(s *site) {
			g := s.gate()
			s.handle("POST /w/{id}", func(c Ctx) error {
				c.Set("Content-Type", "text/event-stream")
				c.Set("Content-Length", "13")
				return c.Stream(func(w io.Writer, flush func()) {
					_, _ = io.WriteString(w, "data: first\n\n")
					flush()
					g.wait()
				})
			}, s.invalidates("p"))
			w := s.start("POST", "/w/1")
			s.settles(func() bool { return s.cache.Stats().Invalidations > 0 }, "the write is under way")
			require.False(s, w.ended())
			g.open()
			w.answer().is("data: first\n\n")
		}, noResponseWriter),

		over("a write's answer is exactly the handler's", func(s *site) {
			h := func(c Ctx) error {
				add(c, []string{"X-A: 1", "X-A: 2", "Set-Cookie: a=1", "Set-Cookie: b=2", "Location: /p/1"})
				return c.Text(201, "made")
			}
			s.handle("POST /bare", h)
			s.handle("POST /p", h, s.invalidates("p"))
			s.handle("POST /c", h, s.cached("hour"))
			bare := s.do("POST", "/bare")
			bare.header.Del("Date")
			for _, path := range []string{"/p", "/c"} {
				a := s.do("POST", path)
				a.header.Del("Date")
				a.header.Del("Cache-Status")
				require.Equal(s, bare.header, a.header)
				require.Equal(s, bare.status, a.status)
				require.Equal(s, bare.body, a.body)
			}
		}),
	)
}
