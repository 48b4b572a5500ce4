package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/larderhq/larder/core/internal/tier"
)

const (
	// lookEvery is the interval at which the slot map is read. lookPause is the shortest interval
	// after a sign that the map has changed.
	lookEvery = time.Second
	lookPause = 20 * time.Millisecond
	// shardPause is the pause before the next connection to a shard that was cut. It doubles each
	// time, up to maxShardPause, until the shard answers.
	shardPause, maxShardPause = 20 * time.Millisecond, time.Second
)

// everyShard stands for the channel of other programs, whose messages every node delivers.
const everyShard = -1

// shards receive hints in a cluster: over one connection to each master, on the channels of the
// partitions that the master serves. A slot that moves takes its channel with it, and so does the
// failure of a master with those of its slots. The channels are subscribed to again where the slot
// map then places them. The tier therefore listens at the server that publishes the hints of a
// slot, except while the slot moves. The server decides whether the channel is a sharded one, for
// publishers and subscribers alike.
type shards struct {
	s     *session
	ready func()
	fn    func(tier.Hint)
	turn  sync.Mutex    // of ready and fn
	look  chan struct{} // the slot map may have changed
	wg    sync.WaitGroup

	mu    sync.Mutex
	of    map[*redis.Client]*shard
	where map[int]*shard // of partitions and everyShard
	begun bool           // ready has been called
}

// shard is one connection.
type shard struct {
	h      *shards
	client *redis.Client
	sub    *redis.PubSub
	more   chan struct{} // there is something in todo
	stop   context.CancelFunc

	// Guarded by shards.mu.
	todo, asked []subscription // not asked for yet; without a reply yet, in order
	hears       bool           // something was confirmed
	over        bool
	pause       time.Duration // before the next connection, from when it is over
	notBefore   time.Time
}

// subscription is the subscription to the channel of a partition. plain: the server has no sharded
// pub/sub, or does not allow it, and publishes there as on any channel.
type subscription struct {
	partition int
	plain     bool
}

// listenToShards is listen in a cluster. It ends with ctx.
func (s *session) listenToShards(ctx context.Context, ready func(), fn func(tier.Hint)) error {
	h := &shards{
		s: s, ready: ready, fn: fn, look: make(chan struct{}, 1),
		of: make(map[*redis.Client]*shard), where: make(map[int]*shard),
	}
	ctx, cancel := context.WithCancel(ctx)
	defer h.wg.Wait()
	defer cancel()
	for {
		timer := time.NewTimer(h.place(ctx))
		select {
		case <-timer.C:
		case <-h.look:
		case <-ctx.Done():
		}
		timer.Stop()
		select {
		case <-time.After(lookPause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// place subscribes to every channel at its server, and returns the time of the next look.
func (h *shards) place(ctx context.Context) time.Duration {
	masters := h.masters(ctx)
	h.mu.Lock()
	defer h.mu.Unlock()
	again := lookEvery
	serves := make(map[*redis.Client]bool)
	for p, master := range masters {
		serves[master] = true
		if at := h.where[p]; at != nil && at.client == master {
			continue
		}
		if to, left := h.shardAt(ctx, master); to != nil {
			h.move(p, to)
		} else {
			again = min(again, left)
		}
	}
	if at := h.where[everyShard]; at == nil || !serves[at.client] {
		h.move(everyShard, h.anyShard(serves))
	}
	used := make(map[*shard]bool)
	for _, sh := range h.where {
		used[sh] = true
	}
	for client, sh := range h.of {
		switch {
		case serves[client] || used[sh]:
		case sh.over:
			delete(h.of, client)
		default:
			sh.stop() // to be deleted when it is over
		}
	}
	return again
}

// masters returns the server of each partition, nil where it is unknown.
func (h *shards) masters(ctx context.Context) map[int]*redis.Client {
	ctx, cancel := context.WithTimeout(ctx, 2*pingAfter)
	defer cancel()
	list := make(map[int]*redis.Client)
	for p := range int(h.s.partitions.Load()) {
		master, err := h.s.nodes.master(ctx, h.s.names.head(p))
		if err != nil {
			h.s.reload(ctx)
			break
		}
		list[p] = master
	}
	return list
}

// shardAt returns the shard of a client, or the time for which it must not be connected. The caller
// holds mu.
func (h *shards) shardAt(ctx context.Context, client *redis.Client) (*shard, time.Duration) {
	pause := shardPause
	if old := h.of[client]; old != nil {
		if !old.over {
			return old, 0
		}
		if left := time.Until(old.notBefore); left > 0 {
			return nil, left
		}
		pause = min(2*old.pause, maxShardPause)
	}
	sh := &shard{h: h, client: client, more: make(chan struct{}, 1), pause: pause}
	ctx, sh.stop = context.WithCancel(ctx)
	h.of[client] = sh
	h.wg.Go(func() {
		sh.listen(ctx)
		sh.end(ctx)
	})
	return sh, 0
}

// anyShard returns a shard, preferably one that answers. The caller holds mu.
func (h *shards) anyShard(serves map[*redis.Client]bool) (found *shard) {
	for client, sh := range h.of {
		if serves[client] && !sh.over && (found == nil || sh.hears) {
			found = sh
		}
	}
	return found
}

// move moves a subscription to another shard, nil for none. It does not unsubscribe at the former
// one: that server has ended the subscription, or publishes nothing any more. The caller holds mu.
func (h *shards) move(p int, to *shard) {
	if to == nil {
		delete(h.where, p)
		return
	}
	h.where[p] = to
	to.want(subscription{partition: p, plain: p == everyShard})
}

// want adds to the pending subscriptions. The caller holds mu.
func (sh *shard) want(sub subscription) {
	sh.todo = append(sh.todo, sub)
	select {
	case sh.more <- struct{}{}:
	default:
	}
}

// lost records that a channel is not received from a shard any more. The caller holds mu.
func (h *shards) lost(p int, at *shard) {
	if h.where[p] == at {
		delete(h.where, p)
	}
	h.changed()
}

func (h *shards) changed() {
	select {
	case h.look <- struct{}{}:
	default:
	}
}

// listen receives until the connection is cut.
func (sh *shard) listen(ctx context.Context) {
	s := sh.h.s
	sh.sub = sh.client.Subscribe(ctx)
	defer func() { _ = sh.sub.Close() }()
	defer context.AfterFunc(ctx, func() { _ = sh.sub.Close() })()
	if sh.ask(ctx) != nil {
		return
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer sh.stop()
	wg.Go(func() { sh.askMore(ctx) })
	p := pulse{sub: sh.sub}
	defer p.start(ctx)()
	for {
		message, err := s.receive(ctx, sh.sub)
		p.busy.Store(true)
		switch m := message.(type) {
		case *redis.Subscription:
			err = sh.confirmed(ctx, m)
		case *redis.Message:
			sh.h.turn.Lock()
			s.hear(m, sh.h.fn)
			sh.h.turn.Unlock()
		case nil:
			err = sh.refused(ctx, err)
		}
		if err != nil {
			return
		}
		p.heard.Store(true)
		p.busy.Store(false)
	}
}

// askMore sends pending subscriptions while the connection receives.
func (sh *shard) askMore(ctx context.Context) {
	for {
		select {
		case <-sh.more:
		case <-ctx.Done():
			return
		}
		if sh.ask(ctx) != nil {
			sh.stop()
			return
		}
	}
}

// ask sends the pending subscriptions, a command for each, since a command is for one slot.
func (sh *shard) ask(ctx context.Context) error {
	for {
		sh.h.mu.Lock()
		if len(sh.todo) == 0 {
			sh.h.mu.Unlock()
			return nil
		}
		next := sh.todo[0]
		sh.todo = sh.todo[1:]
		sh.asked = append(sh.asked, next)
		sh.h.mu.Unlock()
		subscribe := sh.sub.SSubscribe
		if next.plain {
			subscribe = sh.sub.Subscribe
		}
		if err := sh.h.s.subscribe(ctx, subscribe, sh.h.channel(next.partition)); err != nil {
			return err
		}
	}
}

func (h *shards) channel(p int) string {
	if p == everyShard {
		return h.s.names.invalidate()
	}
	return h.s.names.shardHints(p)
}

// confirmed handles the message that a subscription has begun, or that the server has ended it.
func (sh *shard) confirmed(ctx context.Context, m *redis.Subscription) error {
	h := sh.h
	if strings.HasSuffix(m.Kind, "unsubscribe") {
		h.mu.Lock()
		defer h.mu.Unlock()
		for p := range h.where {
			if h.channel(p) == m.Channel {
				h.lost(p, sh)
			}
		}
		h.s.reload(ctx)
		return nil
	}
	h.mu.Lock()
	sub, ok := sh.replied()
	if !ok || h.channel(sub.partition) != m.Channel {
		h.mu.Unlock()
		return fmt.Errorf("%w: a subscription to %q", errReply, m.Channel)
	}
	sh.hears, sh.pause = true, shardPause
	ready := sh.isReady()
	h.mu.Unlock()
	if ready {
		h.nowReady()
	}
	return nil
}

// replied removes the first pending question. The caller holds mu.
func (sh *shard) replied() (sub subscription, ok bool) {
	if len(sh.asked) == 0 {
		return sub, false
	}
	sub = sh.asked[0]
	sh.asked = sh.asked[1:]
	return sub, true
}

// isReady reports whether ready must be called: no question is pending here, and the first time
// none at any shard. The caller holds mu.
func (sh *shard) isReady() bool {
	if len(sh.todo)+len(sh.asked) > 0 {
		return false
	}
	if sh.h.begun {
		return true
	}
	hears := false
	for _, other := range sh.h.of {
		if !other.over && len(other.todo)+len(other.asked) > 0 {
			return false
		}
		hears = hears || other.hears && !other.over
	}
	sh.h.begun = hears
	return hears
}

// follow moves a channel to the server that the reply names, if there is a connection to it, since
// the slot map is read later. The caller holds mu.
func (h *shards) follow(p int, from *shard, moved error) {
	if h.where[p] != from {
		return // its slot has moved since the request
	}
	for client, to := range h.of {
		if !to.over && strings.HasSuffix(moved.Error(), " "+client.Options().Addr) {
			h.move(p, to)
			return
		}
	}
	h.lost(p, from)
}

func (h *shards) nowReady() {
	h.turn.Lock()
	defer h.turn.Unlock()
	h.ready()
}

// refused handles an error reply. It returns the error if the connection has ended.
func (sh *shard) refused(ctx context.Context, err error) error {
	h := sh.h
	h.mu.Lock()
	defer h.mu.Unlock()
	if reply := redis.Error(nil); !errors.As(err, &reply) {
		return err
	}
	sub, ok := sh.replied()
	switch {
	case !ok:
		return err
	case redis.HasErrorPrefix(err, "MOVED ") && !strings.HasSuffix(err.Error(), " "+sh.client.Options().Addr):
		h.s.reload(ctx)
		h.follow(sub.partition, sh, err)
		return nil
	case !sub.plain && (redis.HasErrorPrefix(err, "unknown command") || redis.IsPermissionError(err)):
		sub.plain = true
		sh.want(sub)
		return nil
	}
	return err
}

// end ends the subscriptions of this connection. They are made again, here or at another shard.
func (sh *shard) end(ctx context.Context) {
	sh.stop()
	h := sh.h
	h.mu.Lock()
	sh.over, sh.todo, sh.asked = true, nil, nil
	sh.notBefore = time.Now().Add(sh.pause)
	for p, at := range h.where {
		if at == sh {
			delete(h.where, p)
		}
	}
	ready := !h.begun && sh.isReady()
	h.mu.Unlock()
	if ready {
		h.nowReady()
	}
	h.s.reload(ctx)
	h.changed()
}
