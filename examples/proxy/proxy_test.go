package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/larderhq/larder/core"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// fasthttp, under Fiber, keeps a clock for as long as the process lives, and
		// lets a server's cleaner end up to 10 seconds after its Shutdown.
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"),
	)
}

// behind starts a proxy for an origin, and returns its URL.
func behind(t *testing.T, adapter, originURL string) string {
	t.Helper()
	u, err := url.Parse(originURL)
	if err != nil {
		t.Fatal(err)
	}
	cache, err := core.New(core.Options{Classes: core.Classes{className: class(0)}})
	if err != nil {
		t.Fatal(err)
	}
	server, err := newServer(adapter, newOrigin(u), cache)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- serve(ctx, server, l) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-served, cache.Close()); err != nil {
			t.Error(err)
		}
	})
	return "http://" + l.Addr().String()
}

// inEveryFramework runs a test for each, with an origin and a client of its own.
func inEveryFramework(t *testing.T, handler http.HandlerFunc, test func(t *testing.T, adapter string, do func(*http.Request) (*http.Response, string, error), base string)) {
	for _, adapter := range adapters {
		t.Run(adapter, func(t *testing.T) {
			origin := httptest.NewServer(handler)
			t.Cleanup(origin.Close)
			base := behind(t, adapter, origin.URL)
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
			test(t, adapter, func(r *http.Request) (*http.Response, string, error) {
				resp, err := client.Do(r)
				if err != nil {
					return nil, "", err
				}
				defer resp.Body.Close()
				body, err := io.ReadAll(resp.Body)
				return resp, string(body), err
			}, base)
		})
	}
}

func request(t *testing.T, method, url, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRequestsReachTheOriginAsTheyAre(t *testing.T) {
	inEveryFramework(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header()["Seen"] = []string{r.Method + " " + r.RequestURI + " " + r.Host, string(body), strings.Join(r.Header["X-Two"], "|")}
		w.Header()["Forwarded-For"] = r.Header["X-Forwarded-For"]
		w.Header()["Agent"] = r.Header["User-Agent"]
		w.Header()["Hop"] = r.Header["Proxy-Connection"]
		w.WriteHeader(http.StatusAccepted)
	}, func(t *testing.T, _ string, do func(*http.Request) (*http.Response, string, error), base string) {
		for _, method := range []string{"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "M-SEARCH", "PROPFIND"} {
			content := ""
			if method == "POST" || method == "PUT" {
				content = "content"
			}
			r := request(t, method, base+"//a/%2Fb/../c%20d/?x=1&y=;z&x=2", content)
			r.Host = "shop.example"
			r.Header["X-Two"] = []string{"1", "2"}
			r.Header.Set("Proxy-Connection", "keep-alive")
			resp, _, err := do(r)
			if err != nil {
				t.Errorf("%s: %v", method, err)
				continue
			}
			want := fmt.Sprintf("%q", []string{method + " //a/%2Fb/../c%20d/?x=1&y=;z&x=2 shop.example", content, "1|2"})
			if got := fmt.Sprintf("%q", resp.Header["Seen"]); got != want || resp.StatusCode != http.StatusAccepted {
				t.Errorf("status %d, the origin has seen %s, want %s", resp.StatusCode, got, want)
			}
			if resp.Header["Hop"] != nil || resp.Header["Forwarded-For"] != nil {
				t.Errorf("%s: the origin has seen Proxy-Connection %q, X-Forwarded-For %q", method, resp.Header["Hop"], resp.Header["Forwarded-For"])
			}
			if _, guessed := resp.Header["Content-Type"]; guessed {
				t.Errorf("%s: a Content-Type that the origin has not sent: %q", method, resp.Header["Content-Type"])
			}
		}
	})
}

func TestAHitIsServed(t *testing.T) {
	for _, chunked := range []bool{false, true} {
		t.Run(fmt.Sprintf("chunked=%t", chunked), func(t *testing.T) {
			var asked atomic.Int32
			inEveryFramework(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header()["X-Two"] = []string{"1", "2"}
				w.Header().Set("Cache-Control", "max-age=60")
				if chunked {
					_ = http.NewResponseController(w).Flush()
				}
				fmt.Fprintf(w, "number %d", asked.Add(1))
			}, func(t *testing.T, _ string, do func(*http.Request) (*http.Response, string, error), base string) {
				_, first, err := do(request(t, "GET", base+"/a", ""))
				if err != nil {
					t.Fatal(err)
				}
				resp, second, err := do(request(t, "GET", base+"/a", ""))
				if err != nil {
					t.Fatal(err)
				}
				if s := resp.Header.Get("Cache-Status"); first != second || !strings.HasPrefix(s, "Larder; hit") {
					t.Errorf("%q, then %q with Cache-Status %q", first, second, s)
				}
				if two := strings.Join(resp.Header["X-Two"], "|"); two != "1|2" {
					t.Errorf("X-Two is %q", two)
				}
			})
		})
	}
}

func TestHeadKeepsTheLength(t *testing.T) {
	inEveryFramework(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1234")
	}, func(t *testing.T, _ string, do func(*http.Request) (*http.Response, string, error), base string) {
		resp, _, err := do(request(t, "HEAD", base+"/a", ""))
		if err != nil || resp.ContentLength != 1234 {
			t.Errorf("%+v, %v", resp, err)
		}
	})
}

func TestInformationalResponsesPass(t *testing.T) {
	inEveryFramework(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		fmt.Fprint(w, "final")
	}, func(t *testing.T, adapter string, do func(*http.Request) (*http.Response, string, error), base string) {
		var links []string
		trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			links = append(links, fmt.Sprint(code, h["Link"]))
			return nil
		}}
		r := request(t, "GET", base+"/a", "")
		resp, body, err := do(r.WithContext(httptrace.WithClientTrace(r.Context(), trace)))
		if err != nil || resp.StatusCode != http.StatusOK || body != "final" || resp.Header["Link"] != nil {
			t.Fatalf("%+v, %q, %v", resp, body, err)
		}
		want := "[103 [</style.css>; rel=preload]]"
		if adapter == "gin" || adapter == "fiber" {
			want = "[]" // Gin drops them, fasthttp cannot send them
		}
		if got := fmt.Sprint(links); got != want {
			t.Errorf("informational responses: %s, want %s", got, want)
		}
	})
}

func TestADeadOriginIsABadGateway(t *testing.T) {
	for _, adapter := range adapters {
		t.Run(adapter, func(t *testing.T) {
			origin := httptest.NewServer(http.NotFoundHandler())
			base := behind(t, adapter, origin.URL)
			origin.Close()
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
			resp, err := client.Do(request(t, "GET", base+"/a", ""))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusBadGateway {
				t.Errorf("status %d", resp.StatusCode)
			}
		})
	}
}

func TestABodyThatBreaksOffIsNotStored(t *testing.T) {
	for name, head := range map[string]string{
		"length":  "Content-Length: 100\r\n\r\nhalf",
		"chunked": "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int32
			inEveryFramework(t, func(w http.ResponseWriter, _ *http.Request) {
				asked.Add(1)
				c, buf, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				breakOff(buf.Writer, "HTTP/1.1 200 OK\r\nConnection: close\r\nCache-Control: max-age=60\r\n"+head)
			}, func(t *testing.T, _ string, do func(*http.Request) (*http.Response, string, error), base string) {
				before := asked.Load()
				for range 2 {
					resp, body, err := do(request(t, "GET", base+"/a", ""))
					if err == nil && resp.StatusCode != http.StatusBadGateway {
						t.Errorf("it looks complete: status %d, %q", resp.StatusCode, body)
					}
				}
				// More than twice where a client tries again.
				if n := asked.Load() - before; n < 2 {
					t.Errorf("the origin was asked %d times", n)
				}
			})
		})
	}
}

func breakOff(w *bufio.Writer, half string) {
	_, _ = w.WriteString(half) // what arrives is the matter of the test
	_ = w.Flush()
}
