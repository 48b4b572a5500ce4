package patterns

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/redisstore"
)

// Product is an article of the shop.
type Product struct {
	ID    int64
	Name  string
	Cents int64
}

// Database is where products really live.
type Database interface {
	// Product returns sql.ErrNoRows for an id that does not exist.
	Product(ctx context.Context, id int64) (Product, error)
	// Products leaves out ids that do not exist.
	Products(ctx context.Context, ids []int64) (map[int64]Product, error)
	Save(ctx context.Context, id int64, p Product) error
}

// ttl is how long the naive versions keep everything.
const ttl = 5 * time.Minute

func productKey(id int64) string { return fmt.Sprintf("product:%d", id) }

// Options are those of a Shop over Redis.
func Options(client *redis.Client) core.Options {
	// guide: classes
	options := core.Options{
		Remote: redisstore.New(client),
		Classes: core.Classes{
			"product": {TTL: 5 * time.Minute, StaleWhileRevalidate: time.Minute, Jitter: 0.2, NegativeTTL: 10 * time.Second},
			"country": {TTL: 24 * time.Hour, StaleWhileRevalidate: time.Hour, Jitter: 0.2},
		},
	}
	// guide: end
	return options
}

// Shop replaces the patterns, with Larder.
type Shop struct {
	db        Database
	cache     *core.Cache
	products  *core.Map[int64, Product]
	countries *core.Map[string, []string]
}

// NewShop makes a shop. The caller closes it.
func NewShop(db Database, options core.Options) (*Shop, error) {
	cache, err := core.New(options)
	if err != nil {
		return nil, err
	}
	// guide: maps
	products, err := core.NewMap(cache, core.MapOptions[int64, Product]{Class: "product", Prefix: "product"})
	// guide: end
	if err != nil {
		return nil, errors.Join(err, cache.Close())
	}
	countries, err := core.NewMap(cache, core.MapOptions[string, []string]{Class: "country", Prefix: "country"})
	if err != nil {
		return nil, errors.Join(err, cache.Close())
	}
	return &Shop{db: db, cache: cache, products: products, countries: countries}, nil
}

// Close closes the shop's cache.
func (s *Shop) Close() error { return s.cache.Close() }

// guide: load
func (s *Shop) load(ctx context.Context, id int64) (Product, error) {
	p, err := s.db.Product(ctx, id)
	if errors.Is(err, sql.ErrNoRows) {
		return p, core.ErrNotFound // remembered for the class's NegativeTTL
	}
	return p, err
}

// guide: end

// Product answers a product, cache-aside.
func (s *Shop) Product(ctx context.Context, id int64) (Product, error) {
	// guide: get
	p, err := s.products.Get(ctx, id, s.load)
	// guide: end
	return p, err
}

// Save writes a product through.
func (s *Shop) Save(ctx context.Context, p Product) error {
	// guide: write
	err := s.products.Write(ctx, p.ID, p, s.db.Save)
	// guide: end
	return err
}

// Clear forgets all products.
func (s *Shop) Clear(ctx context.Context) error {
	// guide: pattern
	err := s.cache.Invalidate(ctx, core.Pattern("product:*"))
	// guide: end
	return err
}

// Warm fills in the products of ids.
func (s *Shop) Warm(ctx context.Context, ids []int64) error {
	_, err := s.products.Warm(ctx, slices.Values(ids), s.db.Products, core.WarmOptions{Batch: 20})
	return err
}

// Countries are where the shop sends to, which changes once in a blue moon.
func (s *Shop) Countries(ctx context.Context) ([]string, error) {
	return s.countries.Get(ctx, "all", func(context.Context, string) ([]string, error) { return countries, nil })
}

var countries = []string{"AT", "CH", "DE"}
