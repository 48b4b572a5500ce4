package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/larderhq/larder/core"
)

// shop is the app that every process serves, in each framework: rows that are read through the cache, and every way to
// write a row and invalidate it.
type shop struct {
	cache *core.Cache
	db    *database
}

// route is one route of the shop. At most one of cached and invalidated is set: the tags of the middleware.
type route struct {
	method, pattern     string // {id} is the row
	cached, invalidated []string
	handle              func(ctx context.Context, id, pause string) answer
}

// class is the class of the cached routes.
const class = "item"

// catalog is a tag of every shelf.
const catalog = "catalog"

// Fields of the answers, and of requests.
const (
	fieldTook    = "X-Took"    // run time of the handler without the cache's part, in nanoseconds
	fieldPending = "X-Pending" // whether the write's invalidation is pending
	fieldErrors  = "X-Errors"  // number of calls to Redis in this process that have failed or took too long
	fieldPause   = "X-Pause"   // pause of the writer after its commit
)

// answer is a handler's answer: the row and its version.
type answer struct {
	status  int
	body    string
	took    time.Duration
	pending string // "" where the handler does not know
	errors  string // "" where the client does not ask
}

func (a answer) fields() map[string]string {
	f := map[string]string{fieldTook: strconv.FormatInt(int64(a.took), 10)}
	if a.pending != "" {
		f[fieldPending] = a.pending
	}
	if a.errors != "" {
		f[fieldErrors] = a.errors
	}
	return f
}

func (s *shop) routes() []route {
	get, put, post := http.MethodGet, http.MethodPut, http.MethodPost
	target := func(of func(id string) []core.Target) func(context.Context, string, string) answer {
		return func(ctx context.Context, id, _ string) answer { return s.announce(ctx, id, of(id)...) }
	}
	return []route{
		{method: get, pattern: "/items/{id}", cached: []string{"item:{id}"}, handle: s.show},
		{method: get, pattern: "/shelf/{id}", cached: []string{"shelf:{id}", catalog}, handle: s.look},
		{method: put, pattern: "/shelf/{id}", invalidated: []string{"shelf:{id}", catalog}, handle: refuse},
		{method: get, pattern: "/control/{id}", handle: s.control},
		{method: get, pattern: "/pending/{id}", handle: s.pending},
		{method: get, pattern: "/stats/{id}", handle: s.stats},
		{method: put, pattern: "/items/{id}", invalidated: []string{"item:{id}"}, handle: s.update},
		{method: put, pattern: "/late/{id}", invalidated: []string{"late:{id}"}, handle: s.update},
		{method: put, pattern: "/said/{id}", invalidated: []string{"nothing:{id}"}, handle: s.say},
		{method: put, pattern: "/intent/{id}", handle: s.intent},
		{method: post, pattern: "/tag/{id}", handle: target(func(id string) []core.Target {
			return []core.Target{core.Tag("item:" + id)}
		})},
		{method: post, pattern: "/group/{id}", handle: target(func(id string) []core.Target {
			return []core.Target{core.Tag(group(id))}
		})},
		{method: post, pattern: "/path/{id}", handle: target(func(id string) []core.Target {
			return []core.Target{core.Path("/items/" + id)}
		})},
		{method: post, pattern: "/pattern/{id}", handle: target(func(id string) []core.Target {
			return []core.Target{core.Pattern("http://" + host + "/items/" + id + "*")}
		})},
		{method: post, pattern: "/all/{id}", handle: target(func(string) []core.Target {
			return []core.Target{core.All()}
		})},
		{method: post, pattern: "/everywhere/{id}", handle: func(ctx context.Context, id, _ string) answer {
			return s.announceBy(ctx, id, s.cache.InvalidateEverywhere, core.Tag("item:"+id))
		}},
	}
}

// host is the Host of all requests.
const host = "shop"

// Rows with an odd number carry tags that their handler adds as it runs. Rows with a number divisible by four expire
// soon, and are then answered stale while they are refreshed.
func lateTags(id string) []string {
	if n, _ := strconv.Atoi(id); n%2 == 1 {
		return []string{"late:" + id, group(id)}
	}
	return nil
}

func group(id string) string {
	n, _ := strconv.Atoi(id)
	return fmt.Sprint("group:", n/2%8)
}

func shortLived(id string) bool {
	n, _ := strconv.Atoi(id)
	return n%4 == 0
}

func (s *shop) show(ctx context.Context, id, _ string) answer {
	if tags := lateTags(id); tags != nil {
		if err := core.AddTags(ctx, tags...); err != nil {
			return failure(err)
		}
	}
	if shortLived(id) {
		if err := core.SetTTL(ctx, 200*time.Millisecond); err != nil {
			return failure(err)
		}
	}
	return s.look(ctx, id, "")
}

// control reads a row without the cache.
func (s *shop) control(ctx context.Context, id, _ string) answer {
	a := s.look(ctx, id, "")
	a.errors = strconv.FormatInt(s.cache.Stats().RemoteErrors, 10)
	return a
}

// refuse refuses a write.
func refuse(context.Context, string, string) answer {
	return answer{status: http.StatusUnprocessableEntity, body: "refused"}
}

func (s *shop) look(ctx context.Context, id, _ string) answer {
	begun := time.Now()
	version, err := s.db.read(ctx, id)
	if err != nil {
		return failure(err)
	}
	return answer{status: http.StatusOK, body: row(id, version), took: time.Since(begun)}
}

// pending answers the number of invalidations that the tier has not confirmed.
func (s *shop) pending(context.Context, string, string) answer {
	return answer{status: http.StatusOK, body: row("pending", int64(s.cache.Stats().Pending))}
}

// stats answers the counters of the cache.
func (s *shop) stats(context.Context, string, string) answer {
	b, err := json.Marshal(s.cache.Stats())
	if err != nil {
		return failure(err)
	}
	return answer{status: http.StatusOK, body: string(b)}
}

func row(id string, version int64) string { return id + " " + strconv.FormatInt(version, 10) }

func failure(err error) answer {
	return answer{status: http.StatusInternalServerError, body: err.Error()}
}

// update commits, behind the Invalidate middleware.
func (s *shop) update(ctx context.Context, id, pause string) answer {
	begun := time.Now()
	version, err := s.db.commit(ctx, id, false, pause != "")
	if err != nil {
		return failure(err)
	}
	linger(pause)
	return answer{status: http.StatusOK, body: row(id, version), took: time.Since(begun)}
}

func linger(pause string) {
	if d, err := time.ParseDuration(pause); err == nil {
		time.Sleep(d)
	}
}

// say is an update whose handler invalidates what it has changed, behind a middleware that does not know the tag.
func (s *shop) say(ctx context.Context, id, pause string) answer {
	a := s.update(ctx, id, pause)
	if a.status == http.StatusOK {
		// An invalidation that did not reach the tier is pending, and the middleware's end does not repeat it.
		begun := time.Now()
		_ = core.Invalidate(ctx, core.Tag("item:"+id))
		a.took += time.Since(begun) // the call may take longer than a request's budget, as documented
	}
	return a
}

// intent commits between the begin and the end of an intent of its own.
func (s *shop) intent(ctx context.Context, id, pause string) answer {
	in, err := s.cache.Begin(ctx, core.Tag("item:"+id))
	if err != nil {
		return failure(err)
	}
	begun := time.Now()
	version, dbErr := s.db.commit(ctx, id, !in.Pending(), pause != "")
	linger(pause)
	took := time.Since(begun)
	end := in.End(ctx)
	if dbErr != nil {
		return failure(dbErr)
	}
	return answer{status: http.StatusOK, body: row(id, version), took: took, pending: pendingField(end)}
}

// announce commits and then invalidates, without an intent.
func (s *shop) announce(ctx context.Context, id string, targets ...core.Target) answer {
	return s.announceBy(ctx, id, s.cache.Invalidate, targets...)
}

func (s *shop) announceBy(
	ctx context.Context, id string, invalidate func(context.Context, ...core.Target) error, targets ...core.Target,
) answer {
	begun := time.Now()
	version, err := s.db.commit(ctx, id, false, false)
	if err != nil {
		return failure(err)
	}
	end := invalidate(ctx, targets...)
	return answer{status: http.StatusOK, body: row(id, version), took: time.Since(begun), pending: pendingField(end)}
}

func pendingField(err error) string { return strconv.FormatBool(err != nil) }
