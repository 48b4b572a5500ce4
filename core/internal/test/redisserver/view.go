package redisserver

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// view is the state of a cluster as one node reports it.
type view struct {
	state string // of the cluster
	nodes map[string]member
}

// member is a line of CLUSTER NODES.
type member struct {
	master    bool
	replicaOf string // the name of its master
	ill       bool   // it failed, may have failed, or is new to the viewer
	epoch     int64
	slots     [][2]int // ranges, both ends included
}

func (m member) has(slot int) bool {
	return slices.ContainsFunc(m.slots, func(r [2]int) bool { return r[0] <= slot && slot <= r[1] })
}

// owners returns the owner of each slot, and an empty name for a slot without one.
func (v view) owners() []string {
	owners := make([]string, Slots)
	for id, m := range v.nodes {
		for _, r := range m.slots {
			for slot := r[0]; slot <= r[1]; slot++ {
				owners[slot] = id
			}
		}
	}
	return owners
}

// views asks all nodes that run, at the same time, for what they think. Those that do not answer are left out.
func (c *Cluster) views(ctx context.Context) map[*Server]view {
	views := make(map[*Server]view)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, s := range c.nodes {
		if !s.up() {
			continue
		}
		wg.Go(func() {
			state, err := text(askSoon(ctx, s, "CLUSTER", "INFO"))
			if err != nil {
				return
			}
			lines, err := text(askSoon(ctx, s, "CLUSTER", "NODES"))
			if err != nil {
				return
			}
			members, err := readMembers(lines)
			if err != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			views[s] = view{fields(state)["cluster_state"], members}
		})
	}
	wg.Wait()
	return views
}

// readMembers reads what CLUSTER NODES replies: lines of
//
//	name address flags master ping pong epoch link slots…
func readMembers(lines string) (map[string]member, error) {
	members := make(map[string]member)
	for line := range strings.Lines(lines) {
		f := strings.Fields(line)
		if len(f) < 8 {
			return nil, fmt.Errorf("node %q", line)
		}
		flags := strings.Split(f[2], ",")
		m := member{master: slices.Contains(flags, "master"), replicaOf: f[3]}
		for _, bad := range []string{"fail", "fail?", "handshake", "noaddr"} {
			m.ill = m.ill || slices.Contains(flags, bad)
		}
		var err error
		if m.epoch, err = strconv.ParseInt(f[6], 10, 64); err != nil {
			return nil, fmt.Errorf("node %q: %w", line, err)
		}
		for _, r := range f[8:] {
			if strings.HasPrefix(r, "[") {
				continue // a slot on its way, which is still in a range too
			}
			first, last, ok := strings.Cut(r, "-")
			if !ok {
				last = first
			}
			a, err := strconv.Atoi(first)
			if err != nil {
				return nil, fmt.Errorf("node %q: %w", line, err)
			}
			b, err := strconv.Atoi(last)
			if err != nil {
				return nil, fmt.Errorf("node %q: %w", line, err)
			}
			m.slots = append(m.slots, [2]int{a, b})
		}
		members[f[0]] = m
	}
	return members, nil
}
