package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// situation is one row of the table.
type situation struct {
	name    string
	measure func(ctx context.Context, v *visitor) (string, error)
}

var situations = []situation{
	{"a lifetime of 53 s of which 50 have passed", aged},
	{"`Expires` in 8 s, loaded 4 s ago", expires},
	{"nothing stated (`no-cache` by Larder): two requests", silent},
	{"nothing stated: the client's `If-None-Match`", conditional},
	{"`max-age=60`, then a PUT through the cache", updated},
	{"`max-age=60`, then an invalidation that passes it by", invalidatedElsewhere},
	{"nothing stated, then an invalidation", silentInvalidated},
	{"`max-age=2`, three seconds later", afterItsLifetime},
	{"100 requests at once, cold, `max-age=60`", herd("minute")},
	{"100 requests at once, cold, nothing stated", herd("silent")},
	{"40 requests at once, known to the cache, nothing stated", warmHerd},
	{"a class with `Stale`, expired", staleIn("stale")},
	{"the same with `RequestDirectives: []string{}`", staleIn("deaf")},
	{"compressed for the client: ETag, and `If-None-Match` with it", compressed},
	{"a range, cold", rangeOf("minute")},
	{"`only-if-cached`, cold; then a plain request", onlyIfCached},
}

// visitor sends requests to one front and counts those that reach Larder.
type visitor struct {
	origin *origin
	front  string
	prefix string
	client http.Client
}

func (v *visitor) close() { v.client.CloseIdleConnections() }

// path is the front's own resource of a kind.
func (v *visitor) path(kind, situation string) string {
	return "/" + kind + "/" + strings.NewReplacer(",", "").Replace(v.prefix) + "-" + situation
}

// reply is the answer that the client of a front got.
type reply struct {
	status int
	fields http.Header
	body   string
	took   time.Duration
}

func (v *visitor) get(ctx context.Context, path string, fields ...string) (reply, error) {
	return v.send(ctx, http.MethodGet, v.front+path, fields...)
}

func (v *visitor) send(ctx context.Context, method, url string, fields ...string) (reply, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, url, http.NoBody)
	if err != nil {
		return reply{}, err
	}
	r.Header.Set("Accept-Encoding", "identity")
	for i := 0; i+1 < len(fields); i += 2 {
		r.Header.Set(fields[i], fields[i+1])
	}
	start := time.Now()
	resp, err := v.client.Do(r)
	if err != nil {
		return reply{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return reply{}, err
	}
	return reply{resp.StatusCode, resp.Header, string(body), time.Since(start)}, nil
}

// many sends n concurrent requests and returns the time of the slowest one.
func (v *visitor) many(ctx context.Context, n int, path string) (time.Duration, error) {
	var (
		wg      sync.WaitGroup
		mu      sync.Mutex
		slowest time.Duration
		failed  error
	)
	for range n {
		wg.Go(func() {
			r, err := v.get(ctx, path)
			mu.Lock()
			defer mu.Unlock()
			slowest = max(slowest, r.took)
			if err != nil {
				failed = err
			}
		})
	}
	wg.Wait()
	return slowest, failed
}

// pass lets time pass, of which lifetimes are made.
func pass(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// aged waits first until the lifetime is over, then until Varnish's default grace
// of ten seconds is over, too.
func aged(ctx context.Context, v *visitor) (string, error) {
	p := v.path("aged", "aged")
	if _, err := v.get(ctx, p); err != nil {
		return "", err
	}
	for i, wait := range []time.Duration{4 * time.Second, 11 * time.Second} {
		if err := pass(ctx, wait); err != nil {
			return "", err
		}
		before := len(v.origin.reached(p))
		r, err := v.get(ctx, p)
		if err != nil {
			return "", err
		}
		switch asked := len(v.origin.reached(p)) > before; {
		case asked && r.fields.Get("Age") <= "50" && i == 0:
			return "asked again when it had expired", nil
		case asked:
			return "**answered stale for ten seconds**", nil
		}
	}
	return "**still answered: `Age` is ignored**", nil
}

func expires(ctx context.Context, v *visitor) (string, error) {
	p := v.path("expires", "expires")
	if _, err := v.send(ctx, http.MethodGet, v.origin.url()+p); err != nil {
		return "", err
	}
	if err := pass(ctx, 4*time.Second); err != nil {
		return "", err
	}
	for range 2 {
		if _, err := v.get(ctx, p); err != nil {
			return "", err
		}
	}
	if len(v.origin.reached(p)) > 2 {
		return "asked again at once", nil
	}
	return "kept for what is left", nil
}

func silent(ctx context.Context, v *visitor) (string, error) {
	p := v.path("silent", "twice")
	for range 2 {
		if _, err := v.get(ctx, p); err != nil {
			return "", err
		}
	}
	switch got := v.origin.reached(p); {
	case len(got) < 2:
		return "**second answered without asking**", nil
	case got[1] == http.StatusNotModified:
		return "kept, validated: Larder answers 304", nil
	}
	return "not kept: Larder answers 200", nil
}

func conditional(ctx context.Context, v *visitor) (string, error) {
	p := v.path("silent", "conditional")
	first, err := v.get(ctx, p)
	if err != nil {
		return "", err
	}
	second, err := v.get(ctx, p, "If-None-Match", first.fields.Get("ETag"))
	if err != nil {
		return "", err
	}
	got := v.origin.reached(p)
	return fmt.Sprintf("%d to the client, %d by Larder", second.status, got[len(got)-1]), nil
}

func updated(ctx context.Context, v *visitor) (string, error) {
	p := v.path("minute", "put")
	if _, err := v.get(ctx, p); err != nil {
		return "", err
	}
	if _, err := v.send(ctx, http.MethodPut, v.front+p); err != nil {
		return "", err
	}
	return v.newOrOld(ctx, p)
}

func invalidatedElsewhere(ctx context.Context, v *visitor) (string, error) {
	p := v.path("minute", "elsewhere")
	if _, err := v.get(ctx, p); err != nil {
		return "", err
	}
	if _, err := v.send(ctx, http.MethodPut, v.origin.url()+p); err != nil {
		return "", err
	}
	return v.newOrOld(ctx, p)
}

func silentInvalidated(ctx context.Context, v *visitor) (string, error) {
	p := v.path("silent", "invalidated")
	if _, err := v.get(ctx, p); err != nil {
		return "", err
	}
	v.origin.update(p)
	if err := v.origin.invalidate(ctx, p); err != nil {
		return "", err
	}
	return v.newOrOld(ctx, p)
}

func (v *visitor) newOrOld(ctx context.Context, p string) (string, error) {
	r, err := v.get(ctx, p)
	if err != nil {
		return "", err
	}
	if strings.HasPrefix(r.body, "version 1 ") {
		return "new", nil
	}
	return "**old**", nil
}

func afterItsLifetime(ctx context.Context, v *visitor) (string, error) {
	p := v.path("short", "short")
	if _, err := v.get(ctx, p); err != nil {
		return "", err
	}
	if err := pass(ctx, 3*time.Second); err != nil {
		return "", err
	}
	before := len(v.origin.reached(p))
	r, err := v.get(ctx, p)
	if err != nil {
		return "", err
	}
	if len(v.origin.reached(p)) > before && r.fields.Get("Age") < "2" {
		return "asked again", nil
	}
	return "**answered stale**, `Age: " + r.fields.Get("Age") + "`", nil
}

func herd(kind string) func(context.Context, *visitor) (string, error) {
	return func(ctx context.Context, v *visitor) (string, error) {
		p := v.path(kind, "herd")
		slowest, err := v.many(ctx, 100, p)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%s reach Larder%s", about(len(v.origin.reached(p)), 100), slow(slowest)), nil
	}
}

func warmHerd(ctx context.Context, v *visitor) (string, error) {
	p := v.path("silent", "warm")
	for range 2 {
		if _, err := v.get(ctx, p); err != nil {
			return "", err
		}
	}
	before := len(v.origin.reached(p))
	slowest, err := v.many(ctx, 40, p)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s reach Larder%s", about(len(v.origin.reached(p))-before, 40), slow(slowest)), nil
}

// about rounds a count, which differs from run to run, to words.
func about(n, of int) string {
	switch {
	case n <= 1:
		return "1"
	case n == of:
		return "all"
	case n > of/2:
		return "most"
	}
	return "some"
}

func slow(d time.Duration) string {
	if d < 4*time.Second { // less says only how busy this machine is
		return ""
	}
	return fmt.Sprintf("; **the slowest takes %d s**", int(d.Round(time.Second).Seconds()))
}

func staleIn(kind string) func(context.Context, *visitor) (string, error) {
	return func(ctx context.Context, v *visitor) (string, error) {
		p := v.path(kind, "stale")
		if _, err := v.get(ctx, p); err != nil {
			return "", err
		}
		if err := pass(ctx, 1500*time.Millisecond); err != nil {
			return "", err
		}
		r, err := v.get(ctx, p)
		if err != nil {
			return "", err
		}
		said := strings.Join(r.fields.Values("Cache-Status"), ", ")
		if strings.Contains(said, "Larder; hit; ttl=-") || strings.Contains(said, "Larder; hit; ttl=0") {
			return "stale, refreshed in the background", nil
		}
		return "**waits for the handler**", nil
	}
}

func compressed(ctx context.Context, v *visitor) (string, error) {
	p := v.path("silent", "compressed")
	first, err := v.get(ctx, p, "Accept-Encoding", "gzip")
	if err != nil {
		return "", err
	}
	tag := first.fields.Get("ETag")
	second, err := v.get(ctx, p, "Accept-Encoding", "gzip", "If-None-Match", tag)
	if err != nil {
		return "", err
	}
	form := "strong"
	switch {
	case tag == "":
		form = "none"
	case strings.HasPrefix(tag, "W/"):
		form = "weak"
	case strings.HasSuffix(tag, `-gzip"`):
		form = "`-gzip`"
	}
	coding := first.fields.Get("Content-Encoding")
	if coding == "" {
		coding = "not encoded"
	}
	got := v.origin.reached(p)
	return fmt.Sprintf("%s, %s: %d, %d by Larder", coding, form, second.status, got[len(got)-1]), nil
}

func rangeOf(kind string) func(context.Context, *visitor) (string, error) {
	return func(ctx context.Context, v *visitor) (string, error) {
		p := v.path(kind, "range")
		cold, err := v.get(ctx, p, "Range", "bytes=0-99")
		if err != nil {
			return "", err
		}
		warm, err := v.get(ctx, p, "Range", "bytes=0-99")
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%d, then %d", cold.status, warm.status), nil
	}
}

func onlyIfCached(ctx context.Context, v *visitor) (string, error) {
	p := v.path("silent", "oic")
	first, err := v.get(ctx, p, "Cache-Control", "only-if-cached")
	if err != nil {
		return "", err
	}
	second, err := v.get(ctx, p)
	if err != nil {
		return "", err
	}
	by := "its own"
	if slices.Contains(v.origin.reached(p), first.status) {
		by = "Larder's"
	}
	return fmt.Sprintf("%s %d, then %d", by, first.status, second.status), nil
}
