package patterns

import (
	"context"
	"encoding/json"
)

// UpdateSetShop writes the new value into Redis after the database has it.
type UpdateSetShop struct{ AsideShop }

// Save writes a product.
//
// guide: update then set, naive
func (s *UpdateSetShop) Save(ctx context.Context, p Product) error {
	if err := s.db.Save(ctx, p.ID, p); err != nil {
		return err
	}
	b, _ := json.Marshal(p)
	return s.rdb.SetEx(ctx, productKey(p.ID), b, ttl).Err()
}

// guide: end
