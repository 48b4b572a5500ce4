package patterns

import (
	"context"
)

// QueueShop acknowledges a write when it is in a queue in memory.
type QueueShop struct {
	AsideShop
	queue chan Product
}

// NewQueueShop makes a shop whose queue is applied by Work.
func NewQueueShop(aside AsideShop) *QueueShop {
	return &QueueShop{AsideShop: aside, queue: make(chan Product, 1000)}
}

// Save puts a product into the queue.
//
// guide: queue, naive
func (s *QueueShop) Save(ctx context.Context, p Product) error {
	select {
	case s.queue <- p: // acknowledged: Work will apply it
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *QueueShop) Work(ctx context.Context) {
	for {
		select {
		case p := <-s.queue:
			_ = s.AsideShop.Save(ctx, p)
		case <-ctx.Done():
			return
		}
	}
}

// guide: end
