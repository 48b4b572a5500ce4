package redisstore_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/test/redisserver"
)

// BenchmarkLongLoads is 64 loads of 30 seconds, half of them with a late tag, while another
// instance invalidates 10,000 other tags per second, 100 in a call. It fails unless all values are
// stored. The machine must have processors to spare: a lease is lost where the server does not
// answer for a second.
//
//	go test -run=xxx -bench=LongLoads -benchtime=1x ./core/redisstore
func BenchmarkLongLoads(b *testing.B) {
	const loads, lasts, perSecond, inCall = 64, 30 * time.Second, 10_000, 100
	server := redisserver.Single(b)
	usual := func(o *core.Options) {
		o.MaxStaleness, o.RemoteBudget = time.Second, 50*time.Millisecond
		o.Classes = core.Classes{"c": {TTL: time.Hour, LoadTimeout: time.Minute}}
	}
	reader, writer, other := newInstance(b, server.Addr(), usual), newInstance(b, server.Addr(), usual), newInstance(b, server.Addr(), usual)
	for n := range b.N {
		ctx, cancel := context.WithCancel(b.Context())
		var invalidated atomic.Int64
		var all, invalidations sync.WaitGroup
		invalidations.Go(func() { invalidate(ctx, b, writer, perSecond, inCall, &invalidated) })
		began := time.Now()
		for i := range loads {
			all.Go(func() {
				_, err := reader.Get(b.Context(), loads*n+i, func(ctx context.Context, _ int) (string, error) {
					time.Sleep(lasts)
					if i%2 == 0 {
						return "value", nil
					}
					return "value", core.AddTags(ctx, fmt.Sprint("late:", i))
				})
				if err != nil {
					b.Error(err)
				}
			})
		}
		all.Wait()
		cancel()
		invalidations.Wait()
		took := time.Since(began)
		stored := 0
		for i := range loads {
			if !other.get(b, loads*n+i, "") {
				stored++
			}
		}
		b.ReportMetric(float64(invalidated.Load())/took.Seconds(), "invalidations/s")
		b.ReportMetric(float64(stored), "stored")
		if stored != loads {
			b.Errorf("%d of %d loads were stored, beside %d invalidations in %v: %+v", stored, loads, invalidated.Load(), took, reader.cache.Stats())
		}
	}
}

// invalidate invalidates tags that nothing carries, at a rate, until ctx ends.
func invalidate(ctx context.Context, b *testing.B, in *instance, perSecond, inCall int, count *atomic.Int64) {
	const callers = 8
	var all sync.WaitGroup
	for caller := range callers {
		all.Go(func() {
			tick := time.NewTicker(time.Second * time.Duration(inCall*callers) / time.Duration(perSecond))
			defer tick.Stop()
			for i := 0; ; i++ {
				select {
				case <-tick.C:
				case <-ctx.Done():
					return
				}
				targets := make([]core.Target, inCall)
				for j := range targets {
					targets[j] = core.Tag(fmt.Sprint("noise:", caller, ":", i, ":", j))
				}
				if err := in.cache.Invalidate(b.Context(), targets...); err != nil {
					b.Error(err)
				}
				count.Add(int64(inCall))
			}
		})
	}
	all.Wait()
}

// BenchmarkFanOut is the time of Redis's processor for one invalidation, with some instances that
// subscribe to its messages. Each subscriber stands for an instance.
func BenchmarkFanOut(b *testing.B) {
	for _, subscribers := range []int{0, 10, 100, 1000} {
		b.Run(fmt.Sprint(subscribers, " instances"), func(b *testing.B) {
			server := redisserver.Single(b)
			client := redis.NewClient(&redis.Options{Addr: server.Addr()})
			defer client.Close()
			writer := newInstance(b, server.Addr())
			for range subscribers {
				sub := client.Subscribe(b.Context(), "larder:hints")
				_, err := sub.Receive(b.Context())
				require.NoError(b, err)
				defer sub.Close()
				go func() {
					for range sub.Channel() { //nolint:revive // it only reads
					}
				}()
			}
			require.NoError(b, writer.Invalidate(b.Context(), 0))
			before := serverCPU(b, client)
			for i := 0; b.Loop(); i++ {
				require.NoError(b, writer.Invalidate(b.Context(), i))
			}
			b.ReportMetric(1e6*(serverCPU(b, client)-before)/float64(b.N), "redis-µs/op")
		})
	}
}
