package patterns

import (
	"context"
)

// ScanShop deletes all products by looking for their keys.
type ScanShop struct{ AsideShop }

// Clear deletes all products from Redis.
//
// guide: scan, naive
func (s *ScanShop) Clear(ctx context.Context) error {
	keys := s.rdb.Scan(ctx, 0, "product:*", 100).Iterator()
	for keys.Next(ctx) {
		if err := s.rdb.Del(ctx, keys.Val()).Err(); err != nil {
			return err
		}
	}
	return keys.Err()
}

// guide: end

// KeysShop deletes all products by looking for their keys at one go.
type KeysShop struct{ AsideShop }

// Clear deletes all products from Redis.
func (s *KeysShop) Clear(ctx context.Context) error {
	// guide: keys, naive
	keys, err := s.rdb.Keys(ctx, "product:*").Result()
	if err != nil || len(keys) == 0 {
		return err
	}
	return s.rdb.Del(ctx, keys...).Err()
	// guide: end
}
