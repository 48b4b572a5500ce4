package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/larderhq/larder/core"
)

// products is how many there are, on products/shelfSize shelves.
const products = 200

// Product is a row of the database. Every write raises its version by one.
type Product struct {
	ID      int64 `json:"id"`
	Version int64 `json:"version"`
}

// database is a model of a database: rows with versions, over HTTP, as slow as a query. Its
// versions are the truth by which answers are judged.
type database struct {
	listener net.Listener
	server   *http.Server
	served   chan struct{}
	versions []atomic.Int64
	queries  []atomic.Int64 // by shop
}

func startDatabase(rows, shops int) (*database, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start database: %w", err)
	}
	d := &database{
		listener: l, served: make(chan struct{}),
		versions: make([]atomic.Int64, rows), queries: make([]atomic.Int64, shops),
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /products", d.read)
	mux.HandleFunc("POST /products/{id}", d.write)
	d.server = &http.Server{Handler: mux, ReadHeaderTimeout: readHeaderTimeout}
	go func() {
		defer close(d.served)
		_ = d.server.Serve(l) // it ends by close
	}()
	return d, nil
}

func (d *database) url() string { return "http://" + d.listener.Addr().String() }

func (d *database) close() error {
	err := d.server.Close()
	<-d.served
	return err
}

// shopField names the shop that sends a request.
const shopField = "X-Shop"

func (d *database) asked(r *http.Request) {
	if n, err := strconv.Atoi(r.Header.Get(shopField)); err == nil && n >= 1 && n <= len(d.queries) {
		d.queries[n-1].Add(1)
	}
}

// delay is the time of a query before it reads, and again after.
func delay() { time.Sleep(time.Millisecond + rand.N(time.Millisecond)) }

func (d *database) row(id string) (int64, bool) {
	n, err := strconv.ParseInt(id, 10, 64)
	return n, err == nil && n >= 0 && n < int64(len(d.versions))
}

// read answers the rows of the parameters "id" that there are.
func (d *database) read(w http.ResponseWriter, r *http.Request) {
	d.asked(r)
	list := []Product{}
	delay()
	for _, id := range r.URL.Query()["id"] {
		if n, ok := d.row(id); ok {
			list = append(list, Product{ID: n, Version: d.versions[n].Load()})
		}
	}
	delay()
	_ = json.NewEncoder(w).Encode(list)
}

// write makes a new version of a row.
func (d *database) write(w http.ResponseWriter, r *http.Request) {
	d.asked(r)
	n, ok := d.row(r.PathValue("id"))
	if !ok {
		http.NotFound(w, r)
		return
	}
	delay()
	version := d.versions[n].Add(1)
	delay()
	_ = json.NewEncoder(w).Encode([]Product{{ID: n, Version: version}})
}

// dbClient is the shops' side of it.
type dbClient struct {
	base, shop string
	http       *http.Client
}

func newDBClient(base string, shop int) *dbClient {
	return &dbClient{base, strconv.Itoa(shop), &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
}

func (c *dbClient) close() { c.http.CloseIdleConnections() }

// product is a loader of the cache. A missing row is core.ErrNotFound.
func (c *dbClient) product(ctx context.Context, id int64) (Product, error) {
	found, err := c.products(ctx, []int64{id})
	if err != nil {
		return Product{}, err
	}
	p, ok := found[id]
	if !ok {
		return Product{}, core.ErrNotFound
	}
	return p, nil
}

// products is a loader for many ids: one query, whose result lacks the missing rows.
func (c *dbClient) products(ctx context.Context, ids []int64) (map[int64]Product, error) {
	query := url.Values{}
	for _, id := range ids {
		query.Add("id", strconv.FormatInt(id, 10))
	}
	return c.ask(ctx, http.MethodGet, "/products?"+query.Encode())
}

func (c *dbClient) update(ctx context.Context, id int64) (Product, error) {
	found, err := c.ask(ctx, http.MethodPost, "/products/"+strconv.FormatInt(id, 10))
	return found[id], err
}

func (c *dbClient) ask(ctx context.Context, method, path string) (_ map[int64]Product, err error) {
	defer func() {
		if err != nil && !errors.Is(err, core.ErrNotFound) {
			err = fmt.Errorf("database: %w", err)
		}
	}()
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header.Set(shopField, c.shop)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return nil, core.ErrNotFound
	default:
		return nil, errors.New(resp.Status)
	}
	var list []Product
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil {
		return nil, err
	}
	_, _ = io.Copy(io.Discard, resp.Body) // the connection is used again
	found := make(map[int64]Product, len(list))
	for _, p := range list {
		found[p.ID] = p
	}
	return found, nil
}
