package patterns

import (
	"context"
	"errors"

	"github.com/larderhq/larder/core"
)

// QueuedShop is a Shop whose writes go to the database behind the cache.
type QueuedShop struct {
	*Shop
	queue *core.WriteBehind[int64, Product]
}

// NewQueuedShop makes a shop of another one. The caller closes it, and not the other.
func NewQueuedShop(s *Shop) (*QueuedShop, error) {
	// guide: write-behind
	queue, err := core.NewWriteBehind(s.products, s.apply, core.WriteBehindOptions[int64, Product]{})
	// guide: end
	if err != nil {
		return nil, err
	}
	return &QueuedShop{s, queue}, nil
}

// guide: apply
func (s *Shop) apply(ctx context.Context, changes []core.Change[int64, Product]) error {
	for _, c := range changes {
		if err := s.db.Save(ctx, c.ID, c.Value); err != nil {
			return err // they come again
		}
	}
	return nil
}

// guide: end

// Save puts a product into the queue.
func (s *QueuedShop) Save(ctx context.Context, p Product) error {
	// guide: put
	err := s.queue.Put(ctx, p.ID, p)
	// guide: end
	return err
}

// Close ends the queue's workers, which leave in Redis what they have not applied,
// and closes the cache.
func (s *QueuedShop) Close(ctx context.Context) error {
	return errors.Join(s.queue.Close(ctx), s.Shop.Close())
}
