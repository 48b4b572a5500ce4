package redisstore

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/larderhq/larder/core/internal/tier"
)

// Heads implements tier.Session: one pipeline per master, sent concurrently (rule R19).
func (s *session) Heads(ctx context.Context) ([]tier.Head, error) {
	heads := make([]tier.Head, s.partitions.Load())
	masters := make(map[*redis.Client][]int)
	for p := range heads {
		master, err := s.nodes.master(ctx, s.names.head(p))
		if err != nil {
			heads[p].Err = failed("find the master", err)
			continue
		}
		masters[master] = append(masters[master], p)
	}
	var wg sync.WaitGroup
	for master, partitions := range masters {
		wg.Go(func() { s.headsOf(ctx, master, partitions, heads) })
	}
	wg.Wait()
	if slices.ContainsFunc(heads, func(h tier.Head) bool { return h.Err != nil }) {
		s.reload(ctx)
	}
	return heads, nil
}

// headsOf asks one master for the heads of some partitions.
func (s *session) headsOf(ctx context.Context, master *redis.Client, partitions []int, heads []tier.Head) {
	cmds := []redis.Cmder{
		// HDEL is a write, which a demoted or isolated master refuses and a full one accepts. Its
		// key may exist, so that a slot that is being moved has it.
		redis.NewCmd(ctx, "hdel", s.names.head(partitions[0]), ""),
		redis.NewCmd(ctx, "info", "replication"),
		redis.NewCmd(ctx, "time"),
	}
	for _, p := range partitions {
		cmds = append(cmds, redis.NewCmd(ctx,
			"hmget", s.names.head(p), "pid", "ptok", "era", "sweep", "confirmed", "parts", "proto", "lagmax", "until"))
	}
	sent := time.Now()
	s.nodes.pipeline(ctx, master, cmds)
	values, _ := results(cmds)
	write := cmds[0].Err()
	if isWrongType(write) {
		write = nil // it was let through as a write
	}
	info, infoErr := asString(values[1])
	now, timeErr := clockOf(values[2])
	var wg sync.WaitGroup
	defer wg.Wait()
	var unaware []int
	for i, p := range partitions {
		aware := s.want.ReplicaLag <= 0
		err := errors.Join(write, cmds[1].Err(), cmds[2].Err())
		head := cmds[3+i]
		switch {
		case elsewhere(write) || elsewhere(head.Err()):
			wg.Go(func() { heads[p] = s.headElsewhere(ctx, p) })
			continue
		case err != nil:
		case isWrongType(head.Err()):
			heads[p] = tier.Head{Missing: true}
		case head.Err() != nil:
			err = head.Err()
		case infoErr != nil || timeErr != nil:
			err = errors.Join(infoErr, timeErr)
		default:
			heads[p], aware, err = s.readHead(newReply(values[3+i]))
		}
		if err == nil {
			err = s.served(&heads[p], info, now, p, sent)
		}
		switch {
		case err != nil:
			heads[p] = tier.Head{Err: failed("ask for the head", err)}
		case !aware:
			unaware = append(unaware, p)
		}
	}
	s.makeAware(ctx, unaware, heads)
}

// makeAware writes the lag of this instance into heads with a shorter one. A partition for which
// that fails is not verified.
func (s *session) makeAware(ctx context.Context, partitions []int, heads []tier.Head) {
	if len(partitions) == 0 {
		return
	}
	for i, err := range s.noteLag(ctx, partitions) {
		if err != nil {
			heads[partitions[i]] = tier.Head{Err: failed("note the replica lag", err)}
		}
	}
}

// served records the server that answered for a head, and the time.
func (s *session) served(h *tier.Head, info string, now int64, p int, sent time.Time) error {
	id, err := replicationOf(info)
	if err != nil {
		return err
	}
	h.Server, h.Now = id, now
	s.clocks[p].read(now, sent)
	return nil
}

// readHead reads the fields in the order of the question. aware: writers in that partition know of
// a lag as long as that of this instance.
func (s *session) readHead(r *reply) (h tier.Head, aware bool, err error) {
	h = tier.Head{Position: tier.Position{ID: r.optional(), Token: r.optional()}}
	h.Era, h.Sweep, h.Confirmed = r.optional(), r.optional(), r.optional()
	h.Begun = begunAt(h.Era)
	partitions, protocol, lag, until := r.optional(), r.optional(), r.optional(), r.optional()
	if r.err != nil {
		return tier.Head{}, false, r.err
	}
	h.Until, _ = strconv.ParseInt(until, 10, 64)
	most, _ := strconv.ParseInt(lag, 10, 64) // a malformed lag counts as too short
	// A malformed number counts as a different one.
	h.Partitions, _ = strconv.Atoi(partitions)
	h.Protocol, _ = strconv.Atoi(protocol)
	h.Missing = h.Era == "" || partitions == "" || protocol == "" // a change writes some of it; NewEra makes it one
	return h, max(0, ms(s.want.ReplicaLag)) <= most, nil
}

// begunAt returns the time at which the script created the token of an era, in microseconds of the
// server's clock (see head.lua), 0 for another token. The token of an item ends in the number of
// the item.
func begunAt(era string) int64 {
	for range 2 {
		at := strings.LastIndexByte(era, '.')
		if at < 0 {
			return 0
		}
		if us, err := strconv.ParseInt(era[at+1:], 10, 64); err == nil && us >= leastMicroseconds {
			return us
		}
		era = era[:at]
	}
	return 0
}

// leastMicroseconds is earlier than any time of a real clock, and greater than any number of an
// item.
const leastMicroseconds = 1e12

// elsewhere reports whether an error means that the slot map is outdated, or the slot being moved.
func elsewhere(err error) bool {
	return redis.HasErrorPrefix(err, "MOVED ") || redis.HasErrorPrefix(err, "ASK ")
}

// headElsewhere asks the server that has the head now.
func (s *session) headElsewhere(ctx context.Context, p int) tier.Head {
	s.reload(ctx)
	sent := time.Now()
	replies, err := s.run(ctx, call{script: stateScript, keys: []string{s.names.head(p)}})
	if err != nil {
		return tier.Head{Err: failed("ask for the head", err)}
	}
	r := newReply(replies[0])
	info := r.string()
	now, err := clockOf(r.next())
	var h tier.Head
	aware := true
	if err == nil {
		h, aware, err = s.readHead(r.array())
	}
	if err == nil {
		err = r.err
	}
	if err == nil && info == "" {
		err = errors.New("the slot is being migrated, and scripts may not call INFO: its server is unknown until the migration ends")
	}
	if err == nil {
		err = s.served(&h, info, now, p, sent)
	}
	if err != nil {
		return tier.Head{Err: failed("ask for the head", err)}
	}
	if !aware {
		if err := s.noteLag(ctx, []int{p})[0]; err != nil {
			return tier.Head{Err: failed("note the replica lag", err)}
		}
	}
	return h
}

// reload reads the slot map again, in the background, for the next call.
func (s *session) reload(ctx context.Context) {
	if s.nodes.cluster != nil {
		s.nodes.cluster.ReloadState(ctx)
	}
}
