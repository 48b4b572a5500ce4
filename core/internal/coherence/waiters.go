package coherence

import "sync"

// leaseWaiters are the requests of this process that wait for the end of another instance's
// lease. The requests of one key share a channel.
type leaseWaiters struct {
	mu    sync.Mutex
	byKey map[string]*leaseWaiter
}

type leaseWaiter struct {
	ended    chan struct{} // closed at the end of the lease
	requests int
}

// listen begins to listen for the end of a key's lease. It is called before the tier is asked
// for the lease (R12). The caller must call leave.
func (w *leaseWaiters) listen(key string) (ended <-chan struct{}, leave func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	k := w.byKey[key]
	if k == nil {
		k = &leaseWaiter{ended: make(chan struct{})}
		w.byKey[key] = k
	}
	k.requests++
	return k.ended, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if k.requests--; k.requests == 0 && w.byKey[key] == k {
			delete(w.byKey, key)
		}
	}
}

// wake wakes the requests that wait for the end of a key's lease.
func (w *leaseWaiters) wake(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if k := w.byKey[key]; k != nil {
		close(k.ended)
		delete(w.byKey, key)
	}
}

// wakeAll makes all waiting requests ask again, since hints may have been lost.
func (w *leaseWaiters) wakeAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, k := range w.byKey {
		close(k.ended)
	}
	clear(w.byKey)
}
