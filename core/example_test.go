package core_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9" //nolint:depguard // an example of what users write

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/test/redisserver"
	"github.com/larderhq/larder/core/redisstore"
)

type User struct {
	Name string
}

func newCache() *core.Cache {
	cache, err := core.New(core.Options{
		Classes: core.Classes{"profile": {TTL: time.Hour, NegativeTTL: time.Minute}},
	})
	if err != nil {
		panic(err)
	}
	return cache
}

func ExampleMap() {
	cache := newCache()
	defer cache.Close()
	ctx := context.Background()

	loads := 0
	loadUser := func(ctx context.Context, id int64) (User, error) {
		loads++ // SELECT name FROM users WHERE id = …
		if id != 42 {
			return User{}, core.ErrNotFound
		}
		return User{Name: "Ada"}, nil
	}

	users, err := core.NewMap(cache, core.MapOptions[int64, User]{Class: "profile", Prefix: "user"})
	if err != nil {
		panic(err)
	}
	u, err := users.Get(ctx, 42, loadUser)
	fmt.Println(u.Name, err)
	u, err = users.Get(ctx, 42, loadUser)
	fmt.Println(u.Name, err)
	for range 2 {
		_, err = users.Get(ctx, 43, loadUser)
		fmt.Println(errors.Is(err, core.ErrNotFound))
	}
	fmt.Println("loads:", loads)

	// Whatever is tagged user:42 goes with it: pages too.
	if err := users.Invalidate(ctx, 42); err != nil {
		panic(err)
	}
	_, _ = users.Get(ctx, 42, loadUser)
	fmt.Println("loads:", loads)
	// Output:
	// Ada <nil>
	// Ada <nil>
	// true
	// true
	// loads: 2
	// loads: 3
}

func ExampleMapOptions() {
	cache, err := core.New(core.Options{Classes: core.Classes{"profile": {TTL: time.Hour, NegativeTTL: time.Minute}}})
	if err != nil {
		panic(err)
	}
	defer cache.Close()
	users, err := core.NewMap(cache, core.MapOptions[int64, User]{
		Class: "profile", Prefix: "user", NotFound: []error{sql.ErrNoRows},
	})
	if err != nil {
		panic(err)
	}

	queries := 0
	for range 3 {
		_, err := users.Get(context.Background(), 43, func(context.Context, int64) (User, error) {
			queries++
			return User{}, fmt.Errorf("SELECT name FROM users: %w", sql.ErrNoRows)
		})
		fmt.Println(errors.Is(err, sql.ErrNoRows), err)
	}
	fmt.Println("queries:", queries)
	// Output:
	// true SELECT name FROM users: sql: no rows in result set
	// true sql: no rows in result set
	// true sql: no rows in result set
	// queries: 1
}

func ExampleCache_Invalidate() {
	cache := newCache()
	defer cache.Close()
	ctx := context.Background()

	err := cache.Invalidate(ctx, core.Key("user:42"), core.Tag("catalog"), core.Pattern("user:*"), core.Path("/items"))
	fmt.Println(err)
	err = cache.Invalidate(ctx, core.Path("/items?page=2"))
	fmt.Println(err)
	// Output:
	// <nil>
	// larder: Path is "/items?page=2"; allowed: "/…" or an absolute URL without query, fragment or control characters (a path covers every query)
}

// A reload of the configuration changes how long profiles live.
func ExampleCache_SetClasses() {
	cache := newCache()
	defer cache.Close()
	users, err := core.NewMap(cache, core.MapOptions[int64, User]{Class: "profile", Prefix: "user"})
	if err != nil {
		panic(err)
	}

	classes := cache.Options().Classes
	profile := classes["profile"]
	profile.TTL = time.Minute
	classes["profile"] = profile
	err = cache.SetClasses(classes)
	fmt.Println(err)
	_ = users.Put(context.Background(), 42, User{Name: "Ada"}) // for a minute
	profile, _ = cache.Class("profile")
	fmt.Println(profile.TTL)

	err = cache.SetClasses(core.Classes{}) // with an error nothing changes
	fmt.Println(err)
	// Output:
	// <nil>
	// 1m0s
	// larder: Classes["profile"] is <nil>; allowed: a class: an existing class cannot be removed
}

func ExampleCache_Begin() {
	cache := newCache()
	defer cache.Close()
	ctx := context.Background()
	errRefused := errors.New("refused")
	commit := func() error { return nil }

	// For jobs and transactions: what the Invalidate middleware does around a handler.
	intent, err := cache.Begin(ctx, core.Tag("product:42"), core.Path("/products"))
	if err != nil {
		panic(err)
	}
	switch failed := commit(); {
	case errors.Is(failed, errRefused):
		intent.Abandon() // nothing was written
	case failed != nil:
		err = intent.Lapse(ctx) // the database may still commit it
	default:
		err = intent.End(ctx)
	}
	fmt.Println(err)
	// Output: <nil>
}

func ExampleStaleValue() {
	cache := newCache()
	defer cache.Close()
	ctx := context.Background()
	users, err := core.NewMap(cache, core.MapOptions[int64, User]{Class: "profile", Prefix: "user"})
	if err != nil {
		panic(err)
	}
	row, changed := User{Name: "Ada"}, "2026-01-01"
	loadUser := func(ctx context.Context, id int64) (User, error) {
		if _, known, ok := core.StaleValue[User](ctx); ok && known == changed {
			return User{}, core.ErrNotModified // SELECT … WHERE id = … AND changed > … has no row
		}
		if err := core.SetTTL(ctx, time.Millisecond); err != nil {
			return User{}, err
		}
		return row, core.SetValidator(ctx, changed)
	}
	_, _ = users.Get(ctx, 42, loadUser)
	time.Sleep(5 * time.Millisecond)
	u, err := users.Lookup(ctx, 42, loadUser) // Get, with more in its answer
	fmt.Println(u.Value.Name, "from", u.Source, "stale:", u.Stale, err)
	u, err = users.Lookup(ctx, 42, loadUser)
	fmt.Println(u.Value.Name, "from", u.Source, "stale:", u.Stale, err)
	// Output:
	// Ada from loader stale: false <nil>
	// Ada from process stale: false <nil>
}

func ExampleAddTags() {
	cache := newCache()
	defer cache.Close()
	ctx := context.Background()
	teams, err := core.NewMap(cache, core.MapOptions[string, []string]{Class: "profile", Prefix: "team"})
	if err != nil {
		panic(err)
	}
	loads := 0
	members := func(ctx context.Context, _ string) ([]string, error) {
		loads++
		// The loader knows only now what its value depends on.
		if err := core.AddTags(ctx, "user:42", "user:43"); err != nil {
			return nil, err
		}
		return []string{"Ada", "Grace"}, nil
	}
	_, _ = teams.Get(ctx, "core", members)
	_ = cache.Invalidate(ctx, core.Tag("user:43"))
	_, _ = teams.Get(ctx, "core", members)
	fmt.Println("loads:", loads)
	// Output: loads: 2
}

// Two servers of an app share what they keep, and what they invalidate.
func ExampleRemote() {
	ctx := context.Background()
	server, err := redisserver.Start(ctx, redisserver.Options{}) // a redis-server
	if err != nil {
		panic(err)
	}
	defer server.Close()
	address := server.Addr()

	loads := 0
	loadUser := func(context.Context, int64) (User, error) {
		loads++
		return User{Name: "Ada"}, nil
	}
	var caches []*core.Cache
	for range 2 {
		options := core.Options{
			Classes:      core.Classes{"profile": {TTL: time.Hour}},
			RemoteBudget: time.Second, // the machine that tests run on may be busy
		}
		client := redis.NewClient(&redis.Options{Addr: address})
		defer client.Close()
		options.Remote = redisstore.New(client)
		cache, err := core.New(options)
		if err != nil {
			panic(err)
		}
		defer cache.Close()
		caches = append(caches, cache)
	}

	get := func(cache *core.Cache) {
		users, err := core.NewMap(cache, core.MapOptions[int64, User]{Class: "profile", Prefix: "user"})
		if err != nil {
			panic(err)
		}
		u, err := users.Get(ctx, 42, loadUser)
		fmt.Println(u.Name, err, "loads:", loads)
	}
	get(caches[0])
	get(caches[1])

	err = caches[1].InvalidateEverywhere(ctx, core.Tag("user:42"))
	fmt.Println(err) // returned when no server answers the old value any more
	get(caches[0])
	// Output:
	// Ada <nil> loads: 1
	// Ada <nil> loads: 1
	// <nil>
	// Ada <nil> loads: 2
}

func ExampleMap_GetMany() {
	cache, err := core.New(core.Options{Classes: core.Classes{"profile": {TTL: time.Hour}}})
	if err != nil {
		panic(err)
	}
	defer cache.Close()
	users, err := core.NewMap(cache, core.MapOptions[int64, User]{Class: "profile", Prefix: "user"})
	if err != nil {
		panic(err)
	}
	names := map[int64]User{41: {Name: "Grace"}, 42: {Name: "Ada"}}
	loadUsers := func(_ context.Context, ids []int64) (map[int64]User, error) {
		fmt.Println("SELECT id, name FROM users WHERE id IN", slices.Sorted(slices.Values(ids)))
		found := make(map[int64]User)
		for _, id := range ids {
			if u, ok := names[id]; ok {
				found[id] = u
			}
		}
		return found, nil
	}
	saveUser := func(_ context.Context, id int64, u User) error {
		names[id] = u // UPDATE users …
		return nil
	}
	ctx, ids, u := context.Background(), []int64{41, 42, 43}, User{Name: "Ada L."}

	found, err := users.GetMany(ctx, ids, loadUsers) // one load for the missing ids
	fmt.Println(found, err)
	err = users.Write(ctx, 42, u, saveUser) // write-through: saved, and in the cache
	fmt.Println(err)
	warmed, err := users.Warm(ctx, slices.Values(ids), loadUsers, core.WarmOptions{PerSecond: 1000})
	fmt.Println(warmed.Items, warmed.Filled, err)
	found, err = users.GetMany(ctx, ids[:2], loadUsers)
	fmt.Println(found, err)
	// Output:
	// SELECT id, name FROM users WHERE id IN [41 42 43]
	// map[41:{Grace} 42:{Ada}] <nil>
	// <nil>
	// SELECT id, name FROM users WHERE id IN [43]
	// 3 0 <nil>
	// map[41:{Grace} 42:{Ada L.}] <nil>
}

// Changes are answered at once and applied together: without a shared tier by this
// process, until Close.
func ExampleNewWriteBehind() {
	cache := newCache()
	defer cache.Close()
	ctx := context.Background()
	users, err := core.NewMap(cache, core.MapOptions[int64, User]{Class: "profile", Prefix: "user"})
	if err != nil {
		panic(err)
	}
	names := map[int64]string{42: "Ada"}
	apply := func(_ context.Context, changes []core.Change[int64, User]) error {
		for _, c := range changes { // INSERT … ON CONFLICT (id) DO UPDATE … WHERE users.version < excluded.version
			names[c.ID] = c.Value.Name
			fmt.Println("applied:", c.ID, c.Value.Name)
		}
		return nil
	}
	queue, err := core.NewWriteBehind(users, apply, core.WriteBehindOptions[int64, User]{
		Interval: time.Minute, // changes of an id wait for each other
	})
	if err != nil {
		panic(err) // core.ErrUnusable: a Redis that may evict what is queued
	}
	for _, name := range []string{"Ada K.", "Ada L."} {
		if err := queue.Put(ctx, 42, User{Name: name}); err != nil {
			panic(err)
		}
	}
	u, err := users.Get(ctx, 42, func(context.Context, int64) (User, error) {
		return User{Name: names[42]}, nil
	})
	fmt.Println(u.Name, err, "| in the database:", names[42])

	err = queue.Close(ctx) // applies what waits
	fmt.Println(err, "| in the database:", names[42])
	// Output:
	// Ada L. <nil> | in the database: Ada
	// applied: 42 Ada L.
	// <nil> | in the database: Ada L.
}

// A counter that every request writes: the database gets what came of a second of them.
func ExampleWriteBehind() {
	cache := newCache()
	defer cache.Close()
	views, err := core.NewMap(cache, core.MapOptions[int64, int]{Class: "profile", Prefix: "views"})
	if err != nil {
		panic(err)
	}
	rows := make(map[int64]int)
	loadViews := func(_ context.Context, id int64) (int, error) { return rows[id], nil }
	saveViews := func(_ context.Context, changes []core.Change[int64, int]) error {
		for _, c := range changes { // one statement: INSERT … ON CONFLICT DO UPDATE
			rows[c.ID] = c.Value
		}
		fmt.Println("saved:", len(changes))
		return nil
	}
	ctx := context.Background()

	queue, err := core.NewWriteBehind(views, saveViews, core.WriteBehindOptions[int64, int]{
		Interval: time.Second,
		Merge:    func(old, more int) int { return old + more }, // without Merge, Put replaces the value
		Load:     loadViews,
	})
	if err != nil {
		panic(err)
	}
	for range 3 {
		if err := queue.Put(ctx, 42, 1); err != nil { // queued: from here on every reader gets it
			panic(err)
		}
	}
	n, err := views.Get(ctx, 42, loadViews)
	fmt.Println("read:", n, err)
	err = queue.Close(ctx) // applies the queue of this process; with Redis, other servers apply it too
	fmt.Println(rows[42], err)
	// Output:
	// read: 3 <nil>
	// saved: 1
	// 3 <nil>
}

// A prefix of any number of entries, with all the time that the context has.
func ExampleCache_Sweep() {
	cache, err := core.New(core.Options{Classes: core.Classes{"": {TTL: time.Hour}}})
	if err != nil {
		panic(err)
	}
	defer cache.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	did, err := cache.Sweep(ctx, core.Prefix("user:eu:"), core.Pattern("page:*:[a-c]"))
	if err != nil {
		panic(err) // core.ErrPending: a server has failed; it is tried again
	}
	fmt.Println(did.Removed, "entries of", did.Keys, "keys on", did.Servers, "servers")
	if did.Everything != nil {
		fmt.Println("the cache is cold now:", did.Everything)
	}
	// Output: 0 entries of 0 keys on 0 servers
}

func ExampleNew() {
	cache, err := core.New(core.Options{
		Classes:  core.Classes{"product": {TTL: 5 * time.Minute, StaleWhileRevalidate: time.Minute}},
		MaxBytes: 256 << 20,
	})
	if err != nil {
		panic(err)
	}
	defer cache.Close()
	class, err := cache.Class("product")
	fmt.Println(class.TTL, class.LoadTimeout, err)

	_, err = core.New(core.Options{MaxBytes: -1})
	fmt.Println(err)
	// Output:
	// 5m0s 30s <nil>
	// larder: Options.MaxBytes is -1; allowed: 0 (64 MiB), or 65536 and more
}

func ExampleMap_Lookup() {
	cache := newCache()
	defer cache.Close()
	users, err := core.NewMap(cache, core.MapOptions[int64, User]{Class: "profile", Prefix: "user"})
	if err != nil {
		panic(err)
	}
	load := func(context.Context, int64) (User, error) { return User{Name: "Ada"}, nil }
	for range 2 {
		r, err := users.Lookup(context.Background(), 42, load)
		fmt.Println(r.Value.Name, "from", r.Source, "stale:", r.Stale, err)
	}
	// Output:
	// Ada from loader stale: false <nil>
	// Ada from process stale: false <nil>
}

func ExampleMap_Put() {
	cache := newCache()
	defer cache.Close()
	ctx := context.Background()
	users, err := core.NewMap(cache, core.MapOptions[int64, User]{Class: "profile", Prefix: "user"})
	if err != nil {
		panic(err)
	}
	// After the commit of UPDATE users SET name = 'Grace' WHERE id = 42:
	fmt.Println(users.Put(ctx, 42, User{Name: "Grace"}, "staff"))
	fmt.Println(users.PutMany(ctx, map[int64]User{43: {Name: "Ada"}}))
	u, err := users.Get(ctx, 42, func(context.Context, int64) (User, error) { panic("it is cached") })
	fmt.Println(u.Name, err)
	// Output:
	// <nil>
	// <nil>
	// Grace <nil>
}

func ExampleMap_Write() {
	cache := newCache()
	defer cache.Close()
	ctx := context.Background()
	users, err := core.NewMap(cache, core.MapOptions[int64, User]{Class: "profile", Prefix: "user"})
	if err != nil {
		panic(err)
	}
	save := func(ctx context.Context, id int64, u User) error { return nil } // UPDATE users …
	fmt.Println(users.Write(ctx, 42, User{Name: "Grace"}, save))
	refuse := func(context.Context, int64, User) error { return errors.New("the name is taken") }
	fmt.Println(users.Write(ctx, 42, User{Name: "Ada"}, refuse))
	// Output:
	// <nil>
	// the name is taken
}

func ExampleMap_Warm() {
	cache := newCache()
	defer cache.Close()
	users, err := core.NewMap(cache, core.MapOptions[int64, User]{Class: "profile", Prefix: "user"})
	if err != nil {
		panic(err)
	}
	load := func(_ context.Context, ids []int64) (map[int64]User, error) { // SELECT … WHERE id = ANY($1)
		values := make(map[int64]User)
		for _, id := range ids {
			values[id] = User{Name: fmt.Sprint("user ", id)}
		}
		return values, nil
	}
	ids := slices.Values([]int64{1, 2, 3})
	r, err := users.Warm(context.Background(), ids, load, core.WarmOptions{Batch: 2, PerSecond: 1000})
	fmt.Println(r.Items, r.Filled, r.Failed, err)
	// Output: 3 3 0 <nil>
}

func ExampleMap_KeepWarm() {
	cache := newCache()
	users, err := core.NewMap(cache, core.MapOptions[int64, User]{Class: "profile", Prefix: "user"})
	if err != nil {
		panic(err)
	}
	load := func(context.Context, []int64) (map[int64]User, error) { return nil, nil }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- users.KeepWarm(ctx, load, core.KeepWarmOptions{Top: 100, Every: time.Second}) }()

	cancel() // the app is shut down
	fmt.Println(<-done)
	fmt.Println(cache.Close())
	// Output:
	// context canceled
	// <nil>
}

func ExampleSetTTL() {
	cache := newCache()
	defer cache.Close()
	ctx := context.Background()
	users, err := core.NewMap(cache, core.MapOptions[int64, User]{Class: "profile", Prefix: "user"})
	if err != nil {
		panic(err)
	}
	load := func(ctx context.Context, id int64) (User, error) {
		if id == 0 { // a guest
			return User{Name: "guest"}, core.NoStore(ctx)
		}
		return User{Name: "Ada"}, core.SetTTL(ctx, 10*time.Minute) // instead of the class's hour
	}
	for _, id := range []int64{0, 42} {
		r, err := users.Lookup(ctx, id, load)
		fmt.Println(r.Value.Name, r.Fresh.Round(time.Minute), err)
	}
	fmt.Println(core.SetTTL(ctx, time.Minute))
	// Output:
	// guest 0s <nil>
	// Ada 10m0s <nil>
	// larder: context does not belong to a cached handler, an invalidating handler or a loader
}

func ExamplePattern() {
	cache := newCache()
	defer cache.Close()
	ctx := context.Background()
	fmt.Println(cache.Invalidate(ctx, core.Pattern("user:4?"), core.Prefix("cart:")))
	fmt.Println(cache.Invalidate(ctx, core.Key("user:42"), core.Tag("staff"), core.Path("/staff")))
	fmt.Println(cache.Invalidate(ctx, core.Group("https://shop.example", "catalog")))
	fmt.Println(cache.Invalidate(ctx, core.Path("/staff?page=1")))
	// Output:
	// <nil>
	// <nil>
	// <nil>
	// larder: Path is "/staff?page=1"; allowed: "/…" or an absolute URL without query, fragment or control characters (a path covers every query)
}

func ExampleCache_SetEnabled() {
	cache := newCache()
	defer cache.Close()
	cache.SetEnabled(false)
	users, err := core.NewMap(cache, core.MapOptions[int64, User]{Class: "profile", Prefix: "user"})
	if err != nil {
		panic(err)
	}
	for range 2 {
		_, err = users.Get(context.Background(), 42, func(context.Context, int64) (User, error) { return User{}, nil })
	}
	s := cache.Stats()
	fmt.Println(s.Bypassed, s.Hits, s.Misses, err)
	// Output: 2 0 0 <nil>
}

func ExampleCredentialFields() {
	cache, err := core.New(core.Options{Classes: core.Classes{"account": {
		TTL:  time.Minute,
		HTTP: core.HTTPPolicy{Credentials: append(core.CredentialFields(), "X-Our-Session")},
	}}})
	fmt.Println(err)
	fmt.Println(cache.Close())
	// Output:
	// <nil>
	// <nil>
}
