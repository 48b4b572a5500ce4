package writebehind

import "sync"

// maxLane bounds the changes in the lane of a partition.
const maxLane = 4 * maxCommit

// lane holds the changes of a partition that would delay the others: the queue is full, or
// the partition does not answer. A goroutine drains the lane.
type lane struct {
	mu      sync.Mutex
	open    bool
	waiting []*Change
}

// add appends changes to the lane, unless the lane is closed and must not be opened.
// opened: the caller has to start the goroutine that drains it.
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

// take returns first and the changes of the lane. If there are none, it closes the lane.
func (l *lane) take(first []*Change) []*Change {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := append(first, l.waiting...)
	l.waiting, l.open = nil, len(list) > 0
	return list
}
