package patterns

import (
	"context"
	"sync"

	"github.com/redis/go-redis/v9"
)

// PublishShop keeps products in its own memory, and tells the other servers which
// keys have changed.
type PublishShop struct {
	db    Database
	rdb   *redis.Client
	local sync.Map // key -> Product
}

// Product answers a product.
//
// guide: publish, naive
func (s *PublishShop) Product(ctx context.Context, id int64) (Product, error) {
	if p, ok := s.local.Load(productKey(id)); ok {
		return p.(Product), nil
	}
	p, err := s.db.Product(ctx, id)
	if err == nil {
		s.local.Store(productKey(id), p)
	}
	return p, err
}

func (s *PublishShop) Save(ctx context.Context, p Product) error {
	if err := s.db.Save(ctx, p.ID, p); err != nil {
		return err
	}
	s.local.Delete(productKey(p.ID))
	return s.rdb.Publish(ctx, "changed", productKey(p.ID)).Err()
}

func (s *PublishShop) Listen(ctx context.Context) {
	sub := s.rdb.Subscribe(ctx, "changed")
	defer sub.Close()
	for changed := sub.Channel(); ; {
		select {
		case m := <-changed:
			s.local.Delete(m.Payload)
		case <-ctx.Done():
			return
		}
	}
}

// guide: end
