package redisstore_test

import (
	"context"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core"
)

// A written value is in the database, and in both instances without a load.
func showWriteThrough(p *pair) {
	p.open(core.Class{TTL: time.Hour})
	p.db.set(7, product{Name: "tea"})
	p.has(p.a, 7, "tea")
	p.has(p.b, 7, "tea")
	p.loaded(7)
	require.NoError(p, p.a.Write(p.Context(), 7, product{Name: "coffee"}, p.db.save))
	require.Equal(p, "coffee", p.db.row(7).Name)
	p.has(p.a, 7, "coffee")
	p.comesToHit(p.b, 7, "coffee")
	p.loaded()

	// A save that fails may have committed all the same, so the next read loads the value.
	err := p.a.Write(p.Context(), 7, product{Name: "milk"}, func(ctx context.Context, id int, v product) error {
		require.NoError(p, p.db.save(ctx, id, v))
		return errDatabaseDown
	})
	require.ErrorIs(p, err, errDatabaseDown)
	p.has(p.a, 7, "milk")
	p.comesToHave(p.b, 7, "milk")
	p.loadedAnew(7)
}

// A load that has read before a write does not leave its value behind.
func showWriteBesideLoad(p *pair) {
	p.open(core.Class{TTL: time.Hour})
	p.db.set(7, product{Name: "tea"})
	began, release := p.db.hold()
	defer release()
	got := make(chan string, 1)
	go func() {
		v, err := p.b.Get(p.Context(), 7, p.db.load)
		if err != nil {
			p.Error(err)
		}
		got <- v.Name
	}()
	receive(p, began)
	require.NoError(p, p.a.Write(p.Context(), 7, product{Name: "coffee"}, p.db.save))
	release()
	require.Equal(p, "tea", receive(p, got), "it was asked for before")
	p.comesToHit(p.b, 7, "coffee")
	p.has(p.a, 7, "coffee")
	p.loaded(7)
}

// Two instances write one id concurrently, and the cache converges to the value that the
// database committed last, whichever write returned last.
func showTwoWriters(p *pair) {
	p.open(core.Class{TTL: time.Hour})
	saved, release := make(chan struct{}), make(chan struct{})
	wrote := make(chan error, 1)
	go func() {
		wrote <- p.a.Write(p.Context(), 7, product{Name: "first"}, func(ctx context.Context, id int, v product) error {
			err := p.db.save(ctx, id, v)
			close(saved)
			<-release // slow from here on
			return err
		})
	}()
	receive(p, saved)
	require.NoError(p, p.b.Write(p.Context(), 7, product{Name: "second"}, p.db.save))
	close(release)
	require.NoError(p, receive(p, wrote))
	p.has(p.a, 7, "second")
	p.comesToHave(p.b, 7, "second")
	require.Equal(p, "second", p.db.row(7).Name)
}

// A database that gives versions says which of two values is newer, in whatever order
// they come to the cache.
func showVersions(p *pair) {
	p.open(core.Class{TTL: time.Hour, StaleWhileRevalidate: time.Hour}, func(o *core.MapOptions[int, product]) {
		o.Version = func(v product) int64 { return v.Version }
	})
	older, newer := product{Name: "older", Version: 1}, product{Name: "newer", Version: 2}
	p.db.set(7, newer)
	require.NoError(p, p.a.Put(p.Context(), 7, newer))
	require.NoError(p, p.b.Put(p.Context(), 7, older)) // late
	p.has(p.b, 7, "newer")
	p.comesToHave(p.a, 7, "newer")

	// A refresh that reads a replica of the database that lags.
	p.db.set(8, newer)
	_, err := p.a.Get(p.Context(), 8, p.db.loadShort)
	require.NoError(p, err)
	p.has(p.b, 8, "newer")
	p.db.set(8, older)
	refused := func() int64 { return p.a.cache.Stats().Refused + p.b.cache.Stats().Refused }
	before := refused()
	p.until("it has been refused", func() bool {
		p.has(p.a, 8, "newer")
		p.has(p.b, 8, "newer")
		return refused() > before
	})
	p.has(p.a, 8, "newer")
	p.has(p.b, 8, "newer")
}
