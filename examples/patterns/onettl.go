package patterns

import (
	"context"
	"encoding/json"
)

// OneTTLShop keeps everything for the same time.
type OneTTLShop struct{ NullShop }

// Warm fills in the products of ids.
//
// guide: one ttl, naive
func (s *OneTTLShop) Warm(ctx context.Context, ids []int64) error {
	products, err := s.db.Products(ctx, ids)
	if err != nil {
		return err
	}
	pipe := s.rdb.Pipeline()
	for id, p := range products {
		b, _ := json.Marshal(p)
		pipe.SetEx(ctx, productKey(id), b, ttl)
	}
	_, err = pipe.Exec(ctx)
	return err
}

// guide: end

// Countries are where the shop sends to.
func (s *OneTTLShop) Countries(ctx context.Context) (list []string, err error) {
	if b, err := s.rdb.Get(ctx, "country:all").Bytes(); err == nil {
		return list, json.Unmarshal(b, &list)
	}
	b, _ := json.Marshal(countries)
	return countries, s.rdb.SetEx(ctx, "country:all", b, ttl).Err()
}
