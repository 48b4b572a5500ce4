package patterns

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"

	"github.com/redis/go-redis/v9"
)

// AsideShop reads through Redis by hand, and deletes the keys of changed rows.
type AsideShop struct {
	db  Database
	rdb *redis.Client
}

// Product answers a product.
//
// guide: aside, naive
func (s *AsideShop) Product(ctx context.Context, id int64) (Product, error) {
	var p Product
	if b, err := s.rdb.Get(ctx, productKey(id)).Bytes(); err == nil {
		return p, json.Unmarshal(b, &p)
	}
	p, err := s.db.Product(ctx, id)
	if err != nil {
		return p, err
	}
	b, _ := json.Marshal(p)
	s.rdb.SetEx(ctx, productKey(id), b, ttl)
	return p, nil
}

func (s *AsideShop) Save(ctx context.Context, p Product) error {
	if err := s.db.Save(ctx, p.ID, p); err != nil {
		return err
	}
	return s.rdb.Del(ctx, productKey(p.ID)).Err()
}

// guide: end

// NullShop is an AsideShop that remembers missing products.
type NullShop struct{ AsideShop }

// Product answers a product.
func (s *NullShop) Product(ctx context.Context, id int64) (Product, error) {
	p, err := s.AsideShop.Product(ctx, id)
	// guide: null, naive
	if errors.Is(err, sql.ErrNoRows) {
		s.rdb.SetEx(ctx, productKey(id), "null", ttl) // do not ask the database again
	}
	// guide: end
	return p, err
}
