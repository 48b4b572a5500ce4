package patterns

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/larderhq/larder/core"
)

// shop is the common interface of the naive version and Larder's.
type shop interface {
	Product(ctx context.Context, id int64) (Product, error)
	Save(ctx context.Context, p Product) error
}

// server is one of the servers of a world.
type server struct {
	shop
	wire *wire
}

// world is two servers of one kind, a database, and a real Redis.
type world struct {
	t      *testing.T
	addr   string
	client *redis.Client // the test's own
	db     *database
	a, b   *server
	larder bool // they use Larder
}

// A maker makes the shop of one server.
type maker func(t *testing.T, client *redis.Client, db Database) shop

func newWorld(t *testing.T, newShop maker, ours bool) *world {
	t.Helper()
	w := &world{t: t, addr: startRedis(t), db: newDatabase(), larder: ours}
	w.client = connect(t, &redis.Options{Addr: w.addr})
	w.db.set(cheese(old))
	for _, s := range []**server{&w.a, &w.b} {
		*s = &server{wire: new(wire)}
		client := connect(t, &redis.Options{Addr: w.addr, Dialer: (*s).wire.dial})
		(*s).shop = newShop(t, client, w.db)
	}
	return w
}

// The product that everybody asks for, and its prices.
const (
	id     = 1
	old    = 1000
	newer  = 2000
	newest = 3000
)

func cheese(cents int64) Product { return Product{ID: id, Name: "Emmental", Cents: cents} }

// compare drives one interleaving against the naive version, which must come to the
// broken outcome, and against Larder's, which must come to the right one.
func compare[T comparable](t *testing.T, naive, ours maker, drive func(w *world) T, broken, right T) {
	t.Helper()
	if broken == right {
		t.Fatal("nothing is compared")
	}
	t.Run("naive", func(t *testing.T) {
		if got := drive(newWorld(t, naive, false)); got != broken {
			t.Errorf("the naive version is not broken as the guide says: %+v instead of %+v", got, broken)
		}
	})
	if ours == nil {
		return
	}
	t.Run("larder", func(t *testing.T) {
		if got := drive(newWorld(t, ours, true)); got != right {
			t.Errorf("%+v instead of %+v", got, right)
		}
	})
}

// patient are the guide's options on a machine that is busy with other tests: that
// must not count as a slow Redis.
func patient(client *redis.Client) core.Options {
	o := Options(client)
	o.Logger = slog.New(slog.DiscardHandler)
	o.RemoteBudget, o.MaxStaleness = 10*time.Second, 30*time.Second
	return o
}

// larder makes shops with Larder, with other options than the guide's.
func larder(change ...func(o *core.Options)) maker {
	return func(t *testing.T, client *redis.Client, db Database) shop {
		t.Helper()
		o := patient(client)
		for _, c := range change {
			c(&o)
		}
		s, err := NewShop(db, o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		return s
	}
}

// fresh makes other servers notice within a short time what no message told them.
func fresh(o *core.Options) { o.MaxStaleness = 200 * time.Millisecond }

// cost asks a server for the price.
func (w *world) cost(s shop) int64 {
	w.t.Helper()
	p, err := s.Product(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return p.Cents
}

// save changes the price at a server.
func (w *world) save(s shop, cents int64) {
	w.t.Helper()
	if err := s.Save(w.t.Context(), cheese(cents)); err != nil {
		w.t.Fatal(err)
	}
}

// answer is the result of one call.
type answer struct {
	cents int64
	err   error
}

// ask asks a server for the price, in a goroutine that the test waits for.
func (w *world) ask(s shop) <-chan answer {
	return w.askIn(w.t.Context(), s, id)
}

func (w *world) askIn(ctx context.Context, s shop, id int64) <-chan answer {
	to, done := make(chan answer, 1), make(chan struct{})
	go func() {
		defer close(done)
		p, err := s.Product(ctx, id)
		to <- answer{p.Cents, err}
	}()
	w.t.Cleanup(func() { <-done })
	return to
}

// start runs do until the test ends.
func (w *world) start(do func(ctx context.Context)) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		do(ctx)
	}()
	w.t.Cleanup(func() {
		cancel()
		<-done
	})
}

// waiting is the number of callers of Larder's shops that wait for another caller's load.
func (w *world) waiting() int {
	n := int64(0)
	for _, s := range []*server{w.a, w.b} {
		if s, ok := s.shop.(*Shop); ok {
			n += s.cache.Stats().Coalesced
		}
	}
	return int(n)
}

// mustStay demands that the value that a naive version has left in Redis will stay for long.
func (w *world) mustStay() {
	w.t.Helper()
	if left := w.client.PTTL(w.t.Context(), productKey(id)).Val(); !w.larder && left < ttl/2 {
		w.t.Errorf("what is in Redis will be gone in %v", left)
	}
}
