package coherence

import "sync"

// wakes are those of this process who wait for the end of another instance's
// lease. One channel per key serves all of them.
type wakes struct {
	mu sync.Mutex
	m  map[string]*wake
}

type wake struct {
	ended chan struct{}
	users int
}

// listen begins to listen: before the tier is asked whether there is a lease (R12).
// leave must be called.
func (w *wakes) listen(key string) (ended <-chan struct{}, leave func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	k := w.m[key]
	if k == nil {
		k = &wake{ended: make(chan struct{})}
		w.m[key] = k
	}
	k.users++
	return k.ended, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if k.users--; k.users == 0 && w.m[key] == k {
			delete(w.m, key)
		}
	}
}

func (w *wakes) wake(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if k := w.m[key]; k != nil {
		close(k.ended)
		delete(w.m, key)
	}
}

// wakeAll lets everybody ask again: hints may have been lost.
func (w *wakes) wakeAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, k := range w.m {
		close(k.ended)
	}
	clear(w.m)
}
