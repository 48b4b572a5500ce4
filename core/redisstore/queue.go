package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/larderhq/larder/core/internal/tier"
)

const (
	// maxLetters is the number of dead letters that a partition keeps for a queue. Beyond it the
	// oldest are lost.
	maxLetters = 10_000
	// retriesRead is the number of retried records of a partition that States reads.
	retriesRead = 1000
)

// errLate is returned if nothing was done.
var errLate = tier.ErrLate

// Durable implements tier.Session.
func (s *session) Durable(ctx context.Context) error {
	if s.noQueue != nil {
		return failed("ask whether queues are durable", s.noQueue)
	}
	err := s.nodes.eachMaster(ctx, func(ctx context.Context, master *redis.Client) error {
		info, err := s.text(ctx, master, "info", "memory")
		if err != nil {
			return err
		}
		switch policy := infoField(info, "maxmemory_policy"); {
		case policy == "": // see inspectInfo, which has told of it
		case policy != "noeviction" && !strings.HasPrefix(policy, "volatile-"):
			return fmt.Errorf("%w: maxmemory-policy of %s is %s, which evicts what is queued: noeviction and volatile-* are allowed",
				tier.ErrUnusable, master.Options().Addr, policy)
		}
		return nil
	})
	if err != nil {
		return failed("ask whether queues are durable", err)
	}
	return nil
}

// Enqueue implements tier.Session: one script. A second execution finds its own nonce in the
// records that no other call has written since, leaves them, and invalidates their keys again. A
// change that another call has replaced is queued again, as the latest. Within bounds the delay
// after which that can happen.
func (s *session) Enqueue(ctx context.Context, e tier.Enqueue) ([]tier.Enqueued, error) {
	if err := e.Validate(int(s.partitions.Load())); err != nil {
		return nil, failed("enqueue", err)
	}
	if len(e.Changes) == 0 {
		return nil, nil
	}
	r, _, err := s.known(ctx, e.Partition, func() call { return s.enqueueCall(e) })
	if err != nil {
		return nil, failed("enqueue", err)
	}
	done := make([]tier.Enqueued, len(e.Changes))
	for i := range done {
		if done[i].Version = r.int(); done[i].Version <= 0 {
			continue
		}
		read := func(l *tier.Logged, kind tier.Kind, value string) {
			l.Item = tier.Item{Kind: kind, Value: strings.Clone(value)}
			l.ID, l.Token, l.Before = r.string(), r.string(), r.string()
		}
		read(&done[i].Logged, tier.Key, e.Changes[i].Key)
		if tag := e.Changes[i].Tag; tag != "" {
			read(&done[i].Tagged, tier.Tag, tag)
		}
	}
	if r.err != nil {
		return nil, failed("enqueue", r.err)
	}
	return done, nil
}

func (s *session) enqueueCall(e tier.Enqueue) call {
	p, versions := e.Partition, s.knownVersions()
	deadline := int64(0)
	if now, known := s.clocks[p].now(); known && e.Within > 0 {
		deadline = now + ms(e.Within)
	}
	keys := append(s.names.queue(p, e.Queue), s.names.head(p), s.names.log(p))
	args := s.changeArgs(tier.Change{Partition: p, Lag: e.Lag}, versions)
	args = append(args, e.Queue, max(0, e.Limit), deadline, 0) // our version is the first
	for _, c := range e.Changes {
		keys = s.tagKeys(s.changeKeys(keys, p, versions, c.Key), p, c.Tag)
		args = append(args, c.Key, s.sealChange(e.Queue, c.Key, c.Payload), c.Lease, c.Tag)
	}
	return call{script: enqueueScript, keys: keys, args: args}
}

// Claim implements tier.Session. A second execution extends the claim by the same time and returns
// the same records. A late execution claims the queue for a worker that does not use it, until the
// lease ends.
func (s *session) Claim(ctx context.Context, c tier.Claim) (tier.Claimed, error) {
	if err := c.Validate(int(s.partitions.Load())); err != nil {
		return tier.Claimed{}, failed("claim", err)
	}
	replies, err := s.run(ctx, call{
		script: claimScript,
		keys:   s.names.queue(c.Partition, c.Queue),
		args:   []any{c.Worker, max(1, ms(c.Lease)), c.Queue, min(max(0, c.Max), tier.MaxClaim), c.Keep},
	})
	if err != nil {
		return tier.Claimed{}, failed("claim", err)
	}
	claimed, err := readClaimed(newReply(replies[0]))
	if err != nil {
		return tier.Claimed{}, failed("claim", err)
	}
	for i := range claimed.Records {
		s.openChange(c.Queue, &claimed.Records[i])
	}
	return claimed, nil
}

func readClaimed(r *reply) (c tier.Claimed, err error) {
	outcome := r.string()
	c.Now = r.int()
	switch outcome {
	case "busy":
		c.Busy = span(r.int())
	case "held":
		c.More = r.int() == 1
		c.Next = span(r.int())
		for r.err == nil && len(r.rest) > 0 {
			key := r.string()
			rec, ok := parseRecord(r.string())
			if r.err == nil && !ok {
				r.err = fmt.Errorf("%w: the record of %q", errReply, key)
			}
			c.Records = append(c.Records, rec.queued(key))
		}
	default:
		if r.err == nil {
			r.err = fmt.Errorf("%w: outcome %q", errReply, outcome)
		}
	}
	if r.err != nil {
		return tier.Claimed{}, r.err
	}
	return c, nil
}

// Settle implements tier.Session. A second execution does not find the removed records, and finds
// its own nonce in the records that are retried, so that it counts no attempt twice. A release that
// is executed late would give up the queue that the same worker has claimed again. A worker that
// releases a queue therefore returns under another name.
func (s *session) Settle(ctx context.Context, st tier.Settle) (tier.Settlement, error) {
	if err := st.Validate(int(s.partitions.Load())); err != nil {
		return tier.Settlement{}, failed("settle", err)
	}
	sent := time.Now()
	replies, err := s.run(ctx, s.settleCall(st))
	if err != nil {
		return tier.Settlement{}, failed("settle", err)
	}
	r := newReply(replies[0])
	now := r.int()
	settled := tier.Settlement{Held: r.int() == 1, Newer: make([]bool, len(st.Records))}
	for i := range settled.Newer {
		settled.Newer[i] = r.int() == 1
	}
	if r.err != nil {
		return tier.Settlement{}, failed("settle", r.err)
	}
	s.clocks[st.Partition].read(now, sent)
	return settled, nil
}

func (s *session) settleCall(st tier.Settle) call {
	args := []any{nonce(), st.Worker, st.Queue, st.Release, s.letters}
	for _, r := range st.Records {
		args = append(args, r.Key, r.Version, max(0, ms(r.Retry)), r.Dead)
	}
	return call{script: settleScript, keys: s.names.queue(st.Partition, st.Queue), args: args}
}

// States implements tier.Session.
func (s *session) States(ctx context.Context, queue string) ([]tier.QueueState, error) {
	states := make([]tier.QueueState, s.partitions.Load())
	calls := make([]call, len(states))
	for p := range calls {
		calls[p] = call{script: standingScript, keys: s.names.queue(p, queue), args: []any{retriesRead}}
	}
	cmds := s.runAll(ctx, calls)
	values, _ := results(cmds)
	for p := range states {
		err := cmds[p].Err()
		if err == nil {
			r := newReply(values[p])
			states[p] = tier.QueueState{Now: r.int()}
			st := &states[p]
			st.Depth, st.Retrying, st.Dead = int(r.int()), int(r.int()), int(r.int())
			st.First, st.Last = r.int(), r.int()
			st.Unseen = int(r.int())
			err = r.err
		}
		if err != nil {
			states[p] = tier.QueueState{Err: failed("ask for the state of a queue", err)}
		}
	}
	return states, nil
}

// DeadLetters implements tier.Session.
func (s *session) DeadLetters(ctx context.Context, partition int, queue, after string, n int) ([]tier.DeadLetter, error) {
	if err := s.in(partition); err != nil {
		return nil, failed("read dead letters", err)
	}
	if n <= 0 {
		return nil, nil
	}
	from := "-"
	if after != "" {
		from = "(" + after
	}
	letters, err := s.lettersOf(ctx, partition, queue, from, "+", min(n, tier.MaxClaim))
	if err != nil {
		return nil, failed("read dead letters", err)
	}
	return letters, nil
}

func (s *session) lettersOf(ctx context.Context, partition int, queue, from, to string, n int) ([]tier.DeadLetter, error) {
	cmd := redis.NewCmd(ctx, "xrange", s.names.letters(partition, queue), from, to, "count", n)
	s.send(ctx, []redis.Cmder{cmd})
	if err := cmd.Err(); err != nil {
		if isWrongType(err) {
			return nil, nil
		}
		return nil, err
	}
	letters, err := readLetters(newReply(cmd.Val()))
	for i := range letters {
		s.openChange(queue, &letters[i].Queued)
	}
	return letters, err
}

// readLetters parses entries of the stream. It skips an entry that is not a dead letter.
func readLetters(r *reply) ([]tier.DeadLetter, error) {
	var letters []tier.DeadLetter
	for r.err == nil && len(r.rest) > 0 {
		entry := r.array()
		id, fields := entry.string(), entry.array()
		values := make(map[string]string)
		for entry.err == nil && fields.err == nil && len(fields.rest) > 0 {
			name := fields.string()
			values[name] = fields.string()
		}
		if err := errors.Join(entry.err, fields.err); err != nil {
			return nil, err
		}
		version, ok1 := number(values["v"])
		first, ok2 := number(values["f"])
		attempts, ok3 := number(values["a"])
		if !ok1 || !ok2 || !ok3 || values["k"] == "" || values["p"] == "" {
			continue
		}
		letters = append(letters, tier.DeadLetter{
			ID: id, Reason: values["why"],
			Queued: tier.Queued{
				Key: values["k"], Version: version, First: first, Attempts: int(attempts), Payload: []byte(values["p"]),
			},
		})
	}
	return letters, r.err
}

// Replay implements tier.Session. A second execution finds its own nonce in the record that it has
// queued.
func (s *session) Replay(ctx context.Context, partition int, queue, id string) (bool, error) {
	return s.endDeadLetter(ctx, partition, queue, id, true)
}

// Discard implements tier.Session. A second execution finds no dead letter.
func (s *session) Discard(ctx context.Context, partition int, queue, id string) (bool, error) {
	return s.endDeadLetter(ctx, partition, queue, id, false)
}

// endDeadLetter deletes a dead letter. replayed: its change is queued again. The key of the dead
// letter is read first, since the script names its keys.
func (s *session) endDeadLetter(ctx context.Context, partition int, queue, id string, replayed bool) (bool, error) {
	doing := "discard a dead letter"
	if replayed {
		doing = "replay a dead letter"
	}
	if err := s.in(partition); err != nil {
		return false, failed(doing, err)
	}
	letters, err := s.lettersOf(ctx, partition, queue, id, id, 1)
	if err != nil {
		return false, failed(doing, err)
	}
	if len(letters) == 0 {
		return false, nil
	}
	r, _, err := s.known(ctx, partition, func() call {
		return s.replayCall(partition, queue, id, letters[0].Key, replayed)
	})
	if err != nil {
		return false, failed(doing, err)
	}
	ok := r.int() == 1
	if r.err != nil {
		return false, failed(doing, r.err)
	}
	return ok, nil
}

func (s *session) replayCall(p int, queue, id, key string, replayed bool) call {
	versions := s.knownVersions()
	keys := append(s.names.queue(p, queue), s.names.head(p), s.names.log(p))
	args := s.changeArgs(tier.Change{Partition: p}, versions)
	return call{
		script: replayScript,
		keys:   s.changeKeys(keys, p, versions, key),
		args:   append(args, queue, id, key, replayed),
	}
}
