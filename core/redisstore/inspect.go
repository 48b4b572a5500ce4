package redisstore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/larderhq/larder/core/internal/tier"
)

// probeLives is the lifetime of the keys of an interrupted probe, in milliseconds.
const probeLives = 10_000

// The effect of a command that is refused in scripts depends on the use of the command. The
// cache cannot work without any command that is not named here.
//
//nolint:gochecknoglobals // constants, but that Go has none of maps
var (
	lesser = map[string]string{
		"PUBLISH": "others hear of an invalidation after MaxStaleness, and of a load that has ended when its lease does",
		"INFO":    "a new era takes a call more, and a partition whose slot is on its way is not served from the cache",
		"APPEND":  "an instance that waits for a load of another one notices it when the lease ends",
		"TYPE":    "a key of another program in the place of the layout cannot be distinguished from an error",
	}
	forQueues = []string{"ZADD", "ZCARD", "ZRANGE", "ZRANGEBYSCORE", "ZREM", "ZSCORE", "XDEL", "XLEN"}
)

// inspect finds permanent obstacles, in one round trip.
func (s *session) inspect(ctx context.Context) error {
	node, err := s.firstMaster(ctx)
	if err != nil {
		return err
	}
	// The keys are in the slot of the layout, which the asked server has.
	prefix := s.names.namespace + ":{" + s.names.layout() + "}:probe:" + nonce() + ":"
	channel := s.names.namespace + ":probe"
	if s.nodes.cluster != nil {
		channel = prefix + "channel"
	}
	probe := call{
		script: probeScript,
		keys:   []string{prefix + "text", prefix + "hash", prefix + "stream", prefix + "set"},
		args:   []any{channel, probeLives},
	}
	cmds := []redis.Cmder{
		redis.NewCmd(ctx, "info"),
		redis.NewCmd(ctx, "info", "replication"),
		redis.NewCmd(ctx, "scan", "0", "match", prefix+"*", "count", 1),
		probe.command(ctx, "eval", probe.script.source),
	}
	s.nodes.pipeline(ctx, node, cmds)
	if err := s.inspectInfo(cmds[0], cmds[1]); err != nil {
		return err
	}
	if err := judge(cmds[2].Err()); tier.IsPermanent(err) {
		s.limits = append(s.limits, fmt.Sprintf("SCAN is refused (%v): a pattern, and Sweep, invalidates everything", err))
	} else if err != nil {
		return err
	}
	if err := cmds[3].Err(); err != nil {
		return fmt.Errorf("a script is refused: %w", err)
	}
	return s.inspectCommands(newReply(cmds[3].(*redis.Cmd).Val())) //nolint:forcetypeassert // made above
}

func (s *session) inspectInfo(all, replication redis.Cmder) error {
	var texts [2]string
	for i, cmd := range []redis.Cmder{all, replication} {
		if err := cmd.Err(); err != nil {
			return fmt.Errorf("INFO replication, by which a failover or a restart is noticed, is refused: %w; %s", err, forTests)
		}
		var err error
		if texts[i], err = asString(cmd.(*redis.Cmd).Val()); err != nil { //nolint:forcetypeassert // inspect made it
			return err
		}
	}
	version := infoField(texts[0], "redis_version")
	switch {
	case olderThan(version, 6, 2):
		return fmt.Errorf("%w: Redis %s: 6.2 is needed, better 6.2.7", tier.ErrUnusable, version)
	case s.nodes.single != nil && infoField(texts[0], "cluster_enabled") == "1":
		return fmt.Errorf("%w: the server is part of a cluster: give a redis.ClusterClient", tier.ErrUnusable)
	case olderThan(version, 6, 2, 7):
		s.limits = append(s.limits, "Redis "+version+" lets scripts write where min-replicas-to-write would refuse a command: "+
			"a master that has lost its replicas goes on to accept invalidations, which 6.2.7 and later refuse")
	}
	if infoField(texts[0], "maxmemory_policy") == "" {
		s.limits = append(s.limits, "INFO names no maxmemory_policy: write-behind queues changes, and cannot tell whether the server may evict them")
	}
	if role := infoField(texts[1], "role"); role != "" && role != "master" {
		return errors.New("the server is a replica, or the client's option ReplicaOnly is set")
	}
	_, err := replicationOf(texts[1])
	return err
}

// inspectCommands reads the refusals of a probe: commands and errors in turn.
func (s *session) inspectCommands(r *reply) error {
	refused := make(map[string]string)
	for r.err == nil && len(r.rest) > 0 {
		command, reason := r.string(), r.string()
		if !passing.MatchString(head(reason)) { // a full server, say, lacks nothing
			refused[command] = command + " (" + strings.TrimSpace(reason) + ")"
		}
	}
	if r.err != nil {
		return r.err
	}
	var needed, queues []string
	for _, command := range slices.Sorted(maps.Keys(refused)) {
		switch {
		case lesser[command] != "":
			s.limits = append(s.limits, "scripts may not call "+refused[command]+": "+lesser[command])
		case slices.Contains(forQueues, command):
			queues = append(queues, refused[command])
		default:
			needed = append(needed, refused[command])
		}
	}
	if len(needed) > 0 {
		return fmt.Errorf("%w: scripts may not call %s", tier.ErrUnusable, strings.Join(needed, ", "))
	}
	if len(queues) > 0 {
		s.noQueue = fmt.Errorf("%w: scripts may not call %s", tier.ErrUnusable, strings.Join(queues, ", "))
		s.limits = append(s.limits, "scripts may not call "+strings.Join(queues, ", ")+": there is no write-behind")
	}
	return nil
}
