package redisstore

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// topology maps partitions to their servers.
type topology struct {
	// of describes all masters: run ids, and slots of partitions, compared for equality. It
	// includes the replication id, which changes when a server becomes the master again, and the
	// epoch, which changes when a slot returns.
	of     string
	stable bool            // each slot of ours has one master and stays there
	ours   map[string]bool // the addresses of the masters that have slots of ours, or may have them soon
	keys   int64           // that these have, of whatever kind
}

// eachMaster calls fn for all masters concurrently and returns the first error.
func (n *nodes) eachMaster(ctx context.Context, fn func(context.Context, *redis.Client) error) (err error) {
	if n.single != nil {
		return fn(ctx, n.single)
	}
	defer n.recovered(&err)
	return n.cluster.ForEachMaster(ctx, fn)
}

// topology asks each master about itself, since the answers of others may be outdated.
func (s *session) topology(ctx context.Context) (topology, error) {
	ours := s.slots()
	var mu sync.Mutex
	var masters []string
	t := topology{stable: true, ours: make(map[string]bool)}
	served := make(map[int]int)
	err := s.nodes.eachMaster(ctx, func(ctx context.Context, master *redis.Client) error {
		info, err := s.text(ctx, master, "info")
		if err != nil {
			return err
		}
		id, err := replicationOf(info)
		if err != nil {
			return err
		}
		run := infoField(info, "run_id") // the id of the data set changes as well, where there is none
		var slots []string
		var epoch string
		if s.nodes.cluster != nil {
			list, err := s.text(ctx, master, "cluster", "nodes")
			if err != nil {
				return err
			}
			if epoch, slots, err = ownSlots(list); err != nil {
				return err
			}
		}
		mu.Lock()
		defer mu.Unlock()
		var has []int
		mine := s.nodes.cluster == nil
		for _, r := range slots {
			from, to, moving, err := slotRange(r)
			if err != nil {
				return err
			}
			for _, slot := range ours {
				if slot < from || slot > to {
					continue
				}
				mine = true
				if moving {
					t.stable = false
				} else {
					served[slot]++
					has = append(has, slot)
				}
			}
		}
		if mine {
			t.ours[master.Options().Addr] = true
			t.keys += keysOf(infoField(info, fmt.Sprint("db", master.Options().DB)))
		}
		masters = append(masters, fmt.Sprintln(run, id, epoch, has))
		return nil
	})
	if err != nil {
		return topology{}, err
	}
	for _, slot := range ours {
		t.stable = t.stable && served[slot] == 1
	}
	slices.Sort(masters)
	t.of = strings.Join(masters, "")
	return t, nil
}

// slots returns the slots of the partitions; none without a cluster.
func (s *session) slots() []int {
	if s.nodes.cluster == nil {
		return nil
	}
	var slots []int
	for p := range int(s.partitions.Load()) {
		slots = append(slots, slotOf(fmt.Sprintf("%02x", p)))
	}
	slices.Sort(slots)
	return slices.Compact(slots)
}

// slotOf returns the slot of the keys with a hash tag: its CRC16, as the cluster
// specification has it (polynomial 0x1021), modulo 16384.
func slotOf(hashTag string) int {
	var crc uint16
	for i := range len(hashTag) {
		crc ^= uint16(hashTag[i]) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return int(crc) % 16384
}

func (s *session) text(ctx context.Context, node *redis.Client, args ...any) (string, error) {
	cmd := redis.NewCmd(ctx, args...)
	if err := s.nodes.process(ctx, node, cmd); err != nil {
		return "", err
	}
	return asString(cmd.Val())
}

// keysOf parses the field keys=7,expires=2,… of INFO. An empty database has no such field.
func keysOf(field string) int64 {
	field, _, _ = strings.Cut(strings.TrimPrefix(field, "keys="), ",")
	n, err := strconv.ParseInt(field, 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// ownSlots returns the epoch and the slots of a node, by its own account (CLUSTER NODES). A node
// shows only those moving slots that are its own.
func ownSlots(list string) (epoch string, slots []string, err error) {
	for line := range strings.Lines(list) {
		fields := strings.Fields(line)
		if len(fields) >= 8 && slices.Contains(strings.Split(fields[2], ","), "myself") {
			return fields[6], fields[8:], nil
		}
	}
	return "", nil, fmt.Errorf("%w: a node that does not know itself", errReply)
}

// slotRange parses 7, 7-9, [7->-node] or [7-<-node].
func slotRange(s string) (from, to int, moving bool, err error) {
	inner, moving := strings.CutPrefix(s, "[")
	first, last, several := strings.Cut(inner, "-")
	if moving || !several {
		last = first
	}
	from, err1 := strconv.Atoi(first)
	to, err2 := strconv.Atoi(last)
	if err1 != nil || err2 != nil {
		return 0, 0, false, fmt.Errorf("%w: slots %q", errReply, s)
	}
	return from, to, moving, nil
}
