package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/redisstore"
)

// childEnv names the environment variable that makes this program a worker process.
const childEnv = "LARDER_WRITEBEHIND_CHILD"

// order is the configuration of one process.
type order struct {
	Name     string
	Redis    []string
	Cluster  bool
	Database string
	Plain    bool // a loop of XREADGROUP and XACK
}

// document is a value: about 150 bytes as JSON.
type document struct {
	N    int64
	Text string
}

func newDocument(n int64) document { return document{n, text} }

var text = strings.Repeat("lorem ipsum ", 11)

// The stream and group of the plain loop.
const (
	stream = "plain"
	group  = "g"
)

func connect(addrs []string, cluster bool) redis.UniversalClient {
	if cluster {
		return redis.NewClusterClient(&redis.ClusterOptions{Addrs: addrs})
	}
	return redis.NewClient(&redis.Options{Addr: addrs[0], PoolSize: 64})
}

// open makes the map and its queue. end closes both.
func open(o order, workers int) (q *core.WriteBehind[int64, document], end func() error, err error) {
	client := connect(o.Redis, o.Cluster)
	cache, err := core.New(core.Options{
		Remote: redisstore.New(client), RemoteBudget: time.Second,
		Classes: core.Classes{"document": {TTL: time.Hour}},
		Logger:  slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		return nil, nil, errors.Join(err, client.Close())
	}
	end = func() error { return errors.Join(cache.Close(), client.Close()) }
	m, err := core.NewMap(cache, core.MapOptions[int64, document]{Class: "document", Prefix: "document"})
	if err != nil {
		return nil, nil, errors.Join(err, end())
	}
	db := openStore(o)
	q, err = core.NewWriteBehind(m, func(ctx context.Context, changes []core.Change[int64, document]) error {
		rows := make([]row, len(changes))
		for i, c := range changes {
			rows[i] = row{c.ID, c.Value.N}
		}
		return db.apply(ctx, rows)
	}, core.WriteBehindOptions[int64, document]{
		Workers: workers, Interval: 100 * time.Millisecond, Batch: 500, MaxQueued: 1 << 20, Wait: time.Minute,
	})
	if err != nil {
		return nil, nil, errors.Join(err, end())
	}
	return q, end, nil
}

// child applies changes until its standard input ends. That happens when the conductor ends.
func child(say string) error {
	signal.Ignore(os.Interrupt) // the conductor handles it
	var o order
	if err := json.Unmarshal([]byte(say), &o); err != nil {
		return fmt.Errorf("%s: %w", childEnv, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	if o.Plain {
		return plainLoop(ctx, o)
	}
	_, end, err := open(o, 4)
	if err != nil {
		return err
	}
	<-ctx.Done()
	return end()
}

// plainLoop is the usual loop without a library.
func plainLoop(ctx context.Context, o order) error {
	client, db := connect(o.Redis, o.Cluster), openStore(o)
	defer client.Close()
	for ctx.Err() == nil {
		got, err := client.XReadGroup(ctx, &redis.XReadGroupArgs{
			Group: group, Consumer: o.Name, Streams: []string{stream, ">"}, Count: 500, Block: 100 * time.Millisecond,
		}).Result()
		if err != nil || len(got) == 0 {
			continue // the stream is empty
		}
		var rows []row
		var ids []string
		for _, msg := range got[0].Messages {
			var d document
			var id int64
			if _, err := fmt.Sscan(fmt.Sprint(msg.Values["id"]), &id); err != nil {
				return err
			}
			if err := json.Unmarshal([]byte(fmt.Sprint(msg.Values["value"])), &d); err != nil {
				return err
			}
			rows, ids = append(rows, row{id, d.N}), append(ids, msg.ID)
		}
		if err := db.apply(ctx, rows); err != nil {
			return err
		}
		if err := client.XAck(ctx, stream, group, ids...).Err(); err != nil {
			return err
		}
	}
	return nil
}

type row struct{ id, value int64 }

// apply puts rows into the database.
func (s *store) apply(ctx context.Context, rows []row) error {
	body := make([]byte, 0, rowBytes*len(rows))
	for _, r := range rows {
		body = binary.LittleEndian.AppendUint64(body, uint64(r.id))
		body = binary.LittleEndian.AppendUint64(body, uint64(r.value))
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set(processField, s.process)
	res, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%w: %s", errStore, res.Status)
	}
	return nil
}
