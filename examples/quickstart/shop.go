package main

import (
	"bytes"
	"context"
	"database/sql"
	_ "embed"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite": SQLite in this process, without cgo
)

// products.csv holds facts (name, country, milk, protected designation) and two
// columns that begin with demo_: those are made up, as are the orders that OpenShop
// adds to them.
//
//go:embed products.csv
var productsCSV []byte

// demoNote goes with every answer that holds numbers that are no facts.
const demoNote = "prices, stock and sales are demo numbers"

// Errors of Shop that are the client's.
var (
	errNoProduct = errors.New("no such product")
	errBadPrice  = errors.New(`want {"price_cents": n} with n from 1 to 1000000`)
)

// Shop is the common part of all frameworks: a SQLite database, and a count of
// the statements that handlers sent to it.
type Shop struct {
	db      *sql.DB
	dir     string // temporary, removed by Close; "": the database is a file of the user's
	made    bool   // the database was filled by this Shop, not found
	queries atomic.Int64
}

// Summary is a product as the list shows it.
type Summary struct {
	ID         int64  `json:"id"`
	Name       string `json:"name"`
	Country    string `json:"country"`
	PriceCents int64  `json:"price_cents"`
	UnitsSold  int64  `json:"units_sold"`
}

// Catalog is the list of all products.
type Catalog struct {
	Note     string    `json:"note"`
	Products []Summary `json:"products"`
}

// Product is a product's page.
type Product struct {
	Note        string   `json:"note"`
	ID          int64    `json:"id"`
	Name        string   `json:"name"`
	Country     string   `json:"country"`
	Milk        string   `json:"milk"`
	Protection  string   `json:"protection"`
	SameCountry int64    `json:"same_country"` // how many products the country has
	PriceCents  int64    `json:"price_cents"`
	Stock       int64    `json:"stock"`
	UnitsSold   int64    `json:"units_sold"`
	RankInMilk  int64    `json:"rank_in_milk"` // by units sold, among products of the same milk
	BoughtWith  []string `json:"bought_with"`
}

// LowStock is one event of the stream.
type LowStock struct {
	Name  string `json:"name"`
	Stock int64  `json:"stock"`
}

const schema = `
CREATE TABLE product (
	id          INTEGER PRIMARY KEY,
	name        TEXT NOT NULL UNIQUE,
	country     TEXT NOT NULL,
	milk        TEXT NOT NULL,
	protection  TEXT NOT NULL,
	price_cents INTEGER NOT NULL CHECK (price_cents > 0),
	stock       INTEGER NOT NULL
);
CREATE TABLE order_line (
	order_id   INTEGER NOT NULL,
	product_id INTEGER NOT NULL REFERENCES product,
	quantity   INTEGER NOT NULL,
	PRIMARY KEY (order_id, product_id)
) WITHOUT ROWID;`

// OpenShop opens the database in a file that several processes may share. The process that finds
// it empty fills it with the products and so many made-up orders. Without a file
// the database is new, in a temporary directory that Close removes.
func OpenShop(ctx context.Context, file string, orders int) (*Shop, error) {
	s := new(Shop)
	if file == "" {
		dir, err := os.MkdirTemp("", "quickstart-")
		if err != nil {
			return nil, fmt.Errorf("open shop: %w", err)
		}
		s.dir, file = dir, filepath.Join(dir, "shop.db")
	}
	if err := s.open(ctx, file, orders); err != nil {
		return nil, errors.Join(fmt.Errorf("open shop in %s: %w", file, err), s.Close())
	}
	return s, nil
}

func (s *Shop) open(ctx context.Context, file string, orders int) (err error) {
	// A file and not :memory:, which every connection of the pool would have for
	// itself. With a write-ahead log readers and the writer do not wait for each
	// other; writers wait their turn instead of failing.
	path := url.URL{Path: filepath.ToSlash(file)}
	dsn := "file:" + path.EscapedPath() +
		"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)&_pragma=foreign_keys(1)&_txlock=immediate"
	if s.db, err = sql.Open("sqlite", dsn); err != nil {
		return err
	}
	// SQLite computes in the process: more connections than processors gain
	// nothing. Idle ones are kept, with their prepared pages.
	connections := max(2, runtime.GOMAXPROCS(0))
	s.db.SetMaxOpenConns(connections)
	s.db.SetMaxIdleConns(connections)
	return s.fill(ctx, orders)
}

// Close closes the database. A temporary one it removes.
func (s *Shop) Close() (err error) {
	if s.db != nil {
		err = s.db.Close()
	}
	if s.dir != "" {
		err = errors.Join(err, os.RemoveAll(s.dir))
	}
	return err
}

// Made reports whether the database is new.
func (s *Shop) Made() bool { return s.made }

// Queries returns how many statements handlers have sent to the database.
func (s *Shop) Queries() int64 { return s.queries.Load() }

func (s *Shop) fill(ctx context.Context, orders int) error {
	records, err := csv.NewReader(bytes.NewReader(productsCSV)).ReadAll()
	if err != nil {
		return fmt.Errorf("products.csv: %w", err)
	}
	products := records[1:] // the first names the columns

	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it says only that there is nothing to roll back
	var tables int      // more than none: another process was first; this one waited for it
	if err := tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM sqlite_master WHERE name = 'product'`).Scan(&tables); err != nil || tables > 0 {
		return err
	}
	if _, err := tx.ExecContext(ctx, schema); err != nil {
		return err
	}
	insert, err := tx.PrepareContext(ctx, `INSERT INTO product VALUES (?, ?, ?, ?, ?, ?, ?)`)
	if err != nil {
		return err
	}
	defer insert.Close()
	for i, p := range products {
		price, err := strconv.ParseInt(p[4], 10, 64)
		if err != nil {
			return fmt.Errorf("products.csv: %s: %w", p[0], err)
		}
		stock, err := strconv.ParseInt(p[5], 10, 64)
		if err != nil {
			return fmt.Errorf("products.csv: %s: %w", p[0], err)
		}
		if _, err := insert.ExecContext(ctx, i+1, p[0], p[1], p[2], p[3], price, stock); err != nil {
			return fmt.Errorf("products.csv: %s: %w", p[0], err)
		}
	}
	if err := fillOrders(ctx, tx, orders, len(products)); err != nil {
		return err
	}
	s.made = true
	return tx.Commit()
}

// fillOrders makes up orders of one to five products each, some products much
// more popular than others. They are the same at every start.
func fillOrders(ctx context.Context, tx *sql.Tx, orders, products int) error {
	random := rand.New(rand.NewPCG(1, 2))
	popularity := rand.NewZipf(random, 1.3, 4, uint64(products-1))
	shelf := random.Perm(products)
	type line [3]int // order, product, quantity
	var lines []line
	for order := range orders {
		for range 1 + random.IntN(5) {
			lines = append(lines, line{order + 1, 1 + shelf[popularity.Uint64()], 1 + random.IntN(3)})
		}
	}
	encoded, err := json.Marshal(lines)
	if err != nil {
		return err
	}
	// One statement for all lines, then the index: much faster than one by one.
	if _, err := tx.ExecContext(ctx, `
		INSERT OR IGNORE INTO order_line
		SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?)`, string(encoded)); err != nil {
		return fmt.Errorf("orders: %w", err)
	}
	if _, err := tx.ExecContext(ctx, `CREATE INDEX order_line_by_product ON order_line (product_id, order_id, quantity)`); err != nil {
		return fmt.Errorf("orders: %w", err)
	}
	return nil
}

// Catalog returns all products with what was sold of each.
func (s *Shop) Catalog(ctx context.Context) (Catalog, error) {
	s.queries.Add(1)
	rows, err := s.db.QueryContext(ctx, `
		SELECT p.id, p.name, p.country, p.price_cents, COALESCE(SUM(l.quantity), 0)
		FROM product p LEFT JOIN order_line l ON l.product_id = p.id
		GROUP BY p.id ORDER BY p.id`)
	if err != nil {
		return Catalog{}, fmt.Errorf("catalog: %w", err)
	}
	defer rows.Close()
	c := Catalog{Note: demoNote}
	for rows.Next() {
		var p Summary
		if err := rows.Scan(&p.ID, &p.Name, &p.Country, &p.PriceCents, &p.UnitsSold); err != nil {
			return Catalog{}, fmt.Errorf("catalog: %w", err)
		}
		c.Products = append(c.Products, p)
	}
	if err := rows.Err(); err != nil {
		return Catalog{}, fmt.Errorf("catalog: %w", err)
	}
	return c, nil
}

// Product returns a product's page: the product, its rank among those of the
// same milk, and what was bought together with it most.
func (s *Shop) Product(ctx context.Context, id string) (Product, error) {
	n, err := strconv.ParseInt(id, 10, 64)
	if err != nil {
		return Product{}, errNoProduct
	}
	s.queries.Add(1)
	p := Product{Note: demoNote}
	var boughtWith []byte
	err = s.db.QueryRowContext(ctx, `
		WITH sold AS (
			SELECT rival.id, COALESCE(SUM(l.quantity), 0) AS units
			FROM product self
			JOIN product rival ON rival.milk = self.milk
			LEFT JOIN order_line l ON l.product_id = rival.id
			WHERE self.id = ?1
			GROUP BY rival.id
		), together AS (
			SELECT other.name, SUM(b.quantity) AS units
			FROM order_line a
			JOIN order_line b ON b.order_id = a.order_id AND b.product_id <> a.product_id
			JOIN product other ON other.id = b.product_id
			WHERE a.product_id = ?1
			GROUP BY other.id
			ORDER BY units DESC, other.name LIMIT 3
		)
		SELECT p.id, p.name, p.country, p.milk, p.protection, p.price_cents, p.stock,
			(SELECT COUNT(*) FROM product WHERE country = p.country),
			own.units,
			(SELECT COUNT(*) + 1 FROM sold WHERE units > own.units),
			(SELECT json_group_array(name) FROM together)
		FROM product p JOIN sold own ON own.id = p.id
		WHERE p.id = ?1`, n).
		Scan(&p.ID, &p.Name, &p.Country, &p.Milk, &p.Protection, &p.PriceCents, &p.Stock,
			&p.SameCountry, &p.UnitsSold, &p.RankInMilk, &boughtWith)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return Product{}, errNoProduct
	case err != nil:
		return Product{}, fmt.Errorf("product %d: %w", n, err)
	}
	if err := json.Unmarshal(boughtWith, &p.BoughtWith); err != nil {
		return Product{}, fmt.Errorf("product %d: %w", n, err)
	}
	return p, nil
}

// SetPrice reads {"price_cents": n} from body and makes n the product's price.
func (s *Shop) SetPrice(ctx context.Context, id string, body io.Reader) error {
	n, err := strconv.ParseInt(id, 10, 64)
	if err != nil {
		return errNoProduct
	}
	var update struct {
		PriceCents int64 `json:"price_cents"`
	}
	if err := json.NewDecoder(io.LimitReader(body, 1<<10)).Decode(&update); err != nil {
		return errBadPrice
	}
	if update.PriceCents < 1 || update.PriceCents > 1_000_000 {
		return errBadPrice
	}
	return s.setPrice(ctx, n, update.PriceCents)
}

func (s *Shop) setPrice(ctx context.Context, id, cents int64) error {
	s.queries.Add(1)
	result, err := s.db.ExecContext(ctx, `UPDATE product SET price_cents = ? WHERE id = ?`, cents, id)
	if err != nil {
		return fmt.Errorf("set price of product %d: %w", id, err)
	}
	if changed, err := result.RowsAffected(); err != nil {
		return fmt.Errorf("set price of product %d: %w", id, err)
	} else if changed == 0 {
		return errNoProduct
	}
	return nil
}

// The stream is five events, this far apart.
const (
	streamEvents   = 5
	streamInterval = 100 * time.Millisecond
)

// Stream writes server-sent events about products that run low, least first, and
// calls flush after each, until all are written or ctx or the client has gone.
func (s *Shop) Stream(ctx context.Context, w io.Writer, flush func() error) error {
	tick := time.NewTicker(streamInterval)
	defer tick.Stop()
	for i := range streamEvents {
		if i > 0 {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		s.queries.Add(1)
		var e LowStock
		err := s.db.QueryRowContext(ctx, `SELECT name, stock FROM product ORDER BY stock, id LIMIT 1 OFFSET ?`, i).Scan(&e.Name, &e.Stock)
		if err != nil {
			return fmt.Errorf("stream: %w", err)
		}
		data, err := json.Marshal(e)
		if err != nil {
			return fmt.Errorf("stream: %w", err)
		}
		if _, err := fmt.Fprintf(w, "event: low-stock\ndata: %s\n\n", data); err != nil {
			return fmt.Errorf("stream: %w", err)
		}
		if err := flush(); err != nil {
			return fmt.Errorf("stream: %w", err)
		}
	}
	return nil
}

// failure returns the answer to an error of Shop: a mistake of the client with its text, any
// other error only with its status.
func failure(err error) (status int, text string) {
	switch {
	case errors.Is(err, errNoProduct):
		return http.StatusNotFound, err.Error()
	case errors.Is(err, errBadPrice):
		return http.StatusBadRequest, err.Error()
	default:
		slog.Error("quickstart", "err", err)
		return http.StatusInternalServerError, http.StatusText(http.StatusInternalServerError)
	}
}
