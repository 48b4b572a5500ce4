package patterns

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/redis/go-redis/v9"
)

func TestAPageCachedByURLIsServedToAnotherUser(t *testing.T) {
	hello := func(say func(r *http.Request) string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "hello %s", say(r)) })
	}
	for name, c := range map[string]struct {
		show          http.Handler
		first, second func(r *http.Request)
		broken, right string // the second answer
	}{
		"Authorization": {
			hello(func(r *http.Request) string { user, _, _ := r.BasicAuth(); return user }),
			func(r *http.Request) { r.SetBasicAuth("anna", "") },
			func(r *http.Request) { r.SetBasicAuth("ben", "") },
			"200 hello anna", "200 hello ben",
		},
		"Cookie": {
			hello(func(r *http.Request) string { c, _ := r.Cookie("session"); return c.Value }),
			func(r *http.Request) { r.AddCookie(&http.Cookie{Name: "session", Value: "anna"}) },
			func(r *http.Request) { r.AddCookie(&http.Cookie{Name: "session", Value: "ben"}) },
			"200 hello anna", "200 hello ben",
		},
		"Vary": {
			http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Vary", "Accept-Language")
				fmt.Fprintf(w, "hello %s", r.Header.Get("Accept-Language"))
			}),
			func(r *http.Request) { r.Header.Set("Accept-Language", "de") },
			func(r *http.Request) { r.Header.Set("Accept-Language", "fr") },
			"200 hello de", "200 hello fr",
		},
		"Host": {
			hello(func(r *http.Request) string { return r.Host }),
			func(r *http.Request) { r.Host = "one.example" },
			func(r *http.Request) { r.Host = "two.example" },
			"200 hello one.example", "200 hello two.example",
		},
		"private": {
			http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Cache-Control", "private")
				fmt.Fprintf(w, "hello %s", r.Header.Get("X-Customer"))
			}),
			func(r *http.Request) { r.Header.Set("X-Customer", "anna") },
			func(r *http.Request) { r.Header.Set("X-Customer", "ben") },
			"200 hello anna", "200 hello ben",
		},
		"status": {
			http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(http.StatusNotFound)
				fmt.Fprint(w, "no such product")
			}),
			func(*http.Request) {},
			func(*http.Request) {},
			"200 no such product", "404 no such product",
		},
	} {
		t.Run(name, func(t *testing.T) {
			both := func(t *testing.T, h http.Handler) string {
				t.Helper()
				ask := func(who func(r *http.Request)) string {
					r := httptest.NewRequest(http.MethodGet, "/products/1", nil)
					who(r)
					rec := httptest.NewRecorder()
					h.ServeHTTP(rec, r)
					return fmt.Sprint(rec.Code, " ", rec.Body)
				}
				ask(c.first)
				return ask(c.second)
			}
			client := connect(t, &redis.Options{Addr: startRedis(t)})
			if got := both(t, CacheByURL(client)(c.show)); got != c.broken {
				t.Errorf("the naive version is not broken as the guide says: %q", got)
			}
			ours := larder()(t, client, newDatabase()).(*Shop)
			if got := both(t, CachedPage(ours.cache, c.show)); got != c.right {
				t.Errorf("Larder is wrong: %q", got)
			}
		})
	}
}

func TestAnIdentityGivesEachUserTheirOwnCachedPage(t *testing.T) {
	ours := larder()(t, connect(t, &redis.Options{Addr: startRedis(t)}), newDatabase()).(*Shop)
	runs := 0
	h, err := CachedAccount(ours.cache, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		runs++
		user, _, _ := r.BasicAuth()
		fmt.Fprintf(w, "hello %s", user)
	}))
	if err != nil {
		t.Fatal(err)
	}
	until(t, "a round that is answered from the cache", func() bool {
		before := runs
		for _, user := range []string{"anna", "ben"} {
			r := httptest.NewRequest(http.MethodGet, "/account", nil)
			r.SetBasicAuth(user, "")
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, r)
			if got := rec.Body.String(); got != "hello "+user {
				t.Errorf("%s is answered %q", user, got)
			}
		}
		return runs == before
	})
}
