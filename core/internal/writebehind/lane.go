package writebehind

import "sync"

// maxLane is how many changes of a partition wait in its lane.
const maxLane = 4 * maxCommit

// lane holds the changes of a partition that cannot be recorded with the others: the queue
// has no room for them, or the partition does not answer. A goroutine drains it.
type lane struct {
	mu      sync.Mutex
	open    bool
	waiting []*Change
}

// add appends changes to the lane, unless the lane is closed and must not be opened.
// opened: the caller has to start a goroutine that drains it.
func (l *lane) add(list []*Change, mayOpen bool) (added, opened bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.open && !mayOpen {
		return false, false
	}
	opened = !l.open
	l.open = true
	if len(l.waiting)+len(list) > maxLane {
		l.waiting = dropExpired(l.waiting)
	}
	room := min(max(0, maxLane-len(l.waiting)), len(list))
	for _, c := range list[room:] {
		c.finish(ErrQueueFull)
	}
	l.waiting = append(l.waiting, list[:room]...)
	return true, opened
}

// take returns first and the changes of the lane. It closes the lane if there are none.
func (l *lane) take(first []*Change) []*Change {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := append(first, l.waiting...)
	l.waiting, l.open = nil, len(list) > 0
	return list
}
