package patterns

import (
	"context"
	"encoding/json"
	"sync"
	"time"
)

// LockShop lets one server load, and the others wait for it.
type LockShop struct {
	AsideShop
	lockTTL time.Duration // 0: none
}

// Product answers a product.
//
// guide: lock, naive
func (s *LockShop) Product(ctx context.Context, id int64) (p Product, err error) {
	key := productKey(id)
	for {
		if b, err := s.rdb.Get(ctx, key).Bytes(); err == nil {
			return p, json.Unmarshal(b, &p)
		}
		won, err := s.rdb.SetNX(ctx, "lock:"+key, "1", s.lockTTL).Result()
		if err != nil {
			return p, err
		}
		if won {
			defer s.rdb.Del(ctx, "lock:"+key)
			return s.AsideShop.Product(ctx, id) // loads and stores
		}
		select {
		case <-time.After(10 * time.Millisecond): // another caller loads: look again
		case <-ctx.Done():
			return p, ctx.Err()
		}
	}
}

// guide: end

// LockMapShop has a mutex for each id, in its process.
type LockMapShop struct {
	AsideShop
	mu    sync.Mutex
	locks map[int64]*sync.Mutex
}

// Product answers a product.
//
// guide: lock map, naive
func (s *LockMapShop) Product(ctx context.Context, id int64) (Product, error) {
	s.mu.Lock()
	lock, ok := s.locks[id]
	if !ok {
		lock = new(sync.Mutex)
		s.locks[id] = lock
	}
	s.mu.Unlock()

	lock.Lock()
	defer lock.Unlock()
	return s.AsideShop.Product(ctx, id)
}

// guide: end
