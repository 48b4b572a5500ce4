package main

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// database is the database of this process. It judges the order of the applied changes.
type database struct {
	srv  *http.Server
	addr string

	mu         sync.Mutex
	rows       map[int64]int64 // the value of each id
	applied    int             // changes, including repeated ones
	twice      int
	outOfOrder int
	batches    int

	// at is called when the batch of this number has been applied, before the process that
	// sent it gets the answer.
	number int
	at     func(process string)
}

// processField names the process that sends a batch.
const processField = "Process"

// A row of a batch is an id and a value, little-endian.
const rowBytes = 16

func openDatabase() (*database, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	d := &database{addr: l.Addr().String(), rows: make(map[int64]int64)}
	d.srv = &http.Server{Handler: d, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = d.srv.Serve(l) }() // until Close
	return d, nil
}

func (d *database) Close() error { return d.srv.Close() }

// ServeHTTP applies a batch.
func (d *database) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil || len(body)%rowBytes != 0 {
		http.Error(w, "not a batch", http.StatusBadRequest)
		return
	}
	if at := d.apply(body); at != nil {
		at(r.Header.Get(processField))
	}
}

// apply applies a batch, and returns the function to call after it, or nil.
func (d *database) apply(body []byte) (at func(process string)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.batches++
	if d.batches == d.number {
		at = d.at
	}
	for ; len(body) > 0; body = body[rowBytes:] {
		id, value := int64(binary.LittleEndian.Uint64(body)), int64(binary.LittleEndian.Uint64(body[8:]))
		d.applied++
		switch old := d.rows[id]; {
		case value == old:
			d.twice++
		case value < old:
			d.outOfOrder++
		}
		d.rows[id] = value
	}
	return at
}

// onBatch sets the function to call after the batch of a number.
func (d *database) onBatch(number int, call func(process string)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.number, d.at = number, call
}

// reset empties it.
func (d *database) reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rows = make(map[int64]int64)
	d.applied, d.twice, d.outOfOrder, d.batches = 0, 0, 0, 0
}

// tally returns its counters.
func (d *database) tally() (applied, twice, outOfOrder, batches int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.applied, d.twice, d.outOfOrder, d.batches
}

// store is a worker process's client of the database.
type store struct {
	client  http.Client
	url     string
	process string
}

func openStore(o order) *store {
	return &store{url: "http://" + o.Database, process: o.Name, client: http.Client{Timeout: 10 * time.Second}}
}

var errStore = errors.New("the database refused a batch")
