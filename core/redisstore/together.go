package redisstore

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/larderhq/larder/core/internal/tier"
)

// One script handles at most maxTogether items, and fills with about maxTogetherBytes of entries,
// since Redis executes nothing else meanwhile. It takes about 5 µs for each item: 1 ms in all. A
// single entry may be longer. Lua accepts some thousands of keys in one call.
const (
	maxTogether      = 200
	maxTogetherBytes = 512 << 10
)

// Vacancies implements tier.Session.
func (s *session) Vacancies(ctx context.Context, keys []tier.TaggedKey) ([]tier.Vacancy, error) {
	vacancies := make([]tier.Vacancy, len(keys))
	in := s.distribute(len(keys), func(i int) string { return keys[i].Key })
	var calls []call
	var chunks [][]int
	for _, order := range in.orders {
		for chunk := range slices.Chunk(order, maxTogether) {
			chunks = append(chunks, chunk)
			calls = append(calls, s.vacancyCall(keys, &in, chunk))
		}
	}
	sent := time.Now()
	replies, err := s.run(ctx, calls...)
	if err != nil {
		return nil, failed("vacancies", err)
	}
	base := nonce()
	for c, chunk := range chunks {
		now, err := readVacancies(chunk, replies[c], base, vacancies)
		if err != nil {
			return nil, failed("vacancies", err)
		}
		distinct, _ := in.count(chunk)
		for _, p := range distinct {
			s.clocks[p].read(now, sent)
		}
	}
	return vacancies, nil
}

func (s *session) vacancyCall(keys []tier.TaggedKey, in *distribution, chunk []int) call {
	distinct, counts := in.count(chunk)
	c := call{script: vacantScript, keys: make([]string, 0, len(distinct)+3*len(chunk))}
	c.args = append(c.args, len(distinct))
	for at, p := range distinct {
		c.keys = append(c.keys, s.names.records(p))
		c.args = append(c.args, counts[at])
	}
	for _, i := range chunk {
		c.keys = append(c.keys, s.names.entry(in.parts[i], s.names.version, keys[i].Key))
	}
	for _, i := range chunk {
		c.keys = append(c.keys, s.names.lease(in.parts[i], s.names.version, keys[i].Key))
	}
	for _, i := range chunk {
		c.keys = append(c.keys, s.names.generation(in.parts[i], keys[i].Tag))
	}
	return c
}

// distribution is the distribution of keys over partitions.
type distribution struct {
	parts []int // of each key
	// orders are the indexes of the keys in the order of their partitions. The keys of one order
	// may stand in one script: in a cluster those of one partition, otherwise all.
	orders [][]int
}

func (s *session) distribute(n int, key func(int) string) distribution {
	d := distribution{parts: make([]int, n)}
	of := make([][]int, s.partitions.Load())
	for i := range n {
		p := s.partitionOfKey(key(i))
		d.parts[i] = p
		of[p] = append(of[p], i)
	}
	of = slices.DeleteFunc(of, func(part []int) bool { return len(part) == 0 })
	if d.orders = of; s.nodes.cluster == nil {
		d.orders = [][]int{slices.Concat(of...)}
	}
	return d
}

// count returns the partitions of a part of an order, and how many of its keys each has.
func (d *distribution) count(chunk []int) (distinct, counts []int) {
	for _, i := range chunk {
		p := d.parts[i]
		if len(distinct) == 0 || p != distinct[len(distinct)-1] {
			distinct, counts = append(distinct, p), append(counts, 0)
		}
		counts[len(counts)-1]++
	}
	return distinct, counts
}

// readVacancies reads the reply for some of the keys, and returns the server's time. base makes the
// proposed tokens unique. A token ends in the server's time, see capture.lua.
func readVacancies(chunk []int, v any, base string, vacancies []tier.Vacancy) (now int64, err error) {
	r := newReply(v)
	micros := r.string()
	taken, found := r.array(), r.array()
	us, err := strconv.ParseInt(micros, 10, 64)
	if r.err == nil && err != nil {
		r.err = fmt.Errorf("%w: a clock of %q", errReply, micros)
	}
	if r.err != nil {
		return 0, r.err
	}
	now = us / 1000
	for _, i := range chunk {
		n := strconv.Itoa(i)
		vacancies[i] = tier.Vacancy{Vacant: true, Now: now, ID: base + "." + n, Generation: "g" + n + base + "." + micros}
	}
	at := func(r *reply) *tier.Vacancy {
		i := r.int()
		if r.err == nil && (i < 1 || int(i) > len(chunk)) {
			r.err = fmt.Errorf("%w: key %d of %d", errReply, i, len(chunk))
		}
		if r.err != nil {
			return new(tier.Vacancy)
		}
		return &vacancies[chunk[i-1]]
	}
	for taken.err == nil && len(taken.rest) > 0 {
		at(taken).Vacant = false
	}
	for found.err == nil && len(found.rest) > 0 {
		at(found).Generation = found.string()
	}
	if taken.err != nil {
		return 0, taken.err
	}
	return now, found.err
}

// FillTogether implements tier.Session.
func (s *session) FillTogether(ctx context.Context, b tier.BatchFill) (stored []bool, err error) {
	stored = make([]bool, len(b.Items))
	var fills []togetherFill
	in := s.distribute(len(b.Items), func(i int) string { return b.Items[i].Key })
	for _, order := range in.orders {
		fills = s.appendFills(fills, &b, &in, order)
	}
	calls := make([]call, len(fills))
	for i := range fills {
		calls[i] = fills[i].call(s)
	}
	replies, err := s.run(ctx, calls...)
	for i := range fills {
		if replies[i] == nil {
			continue
		}
		if readErr := fills[i].read(replies[i], stored); err == nil {
			err = readErr
		}
	}
	if err != nil {
		err = failed("fill together", err)
	}
	return stored, err
}

// togetherFill is one call of together.lua. Its items are in the order of their partitions.
type togetherFill struct {
	batch  *tier.BatchFill
	in     *distribution
	items  []int
	values [][]byte
	size   int
}

// appendFills appends the fills of some items. An entry beyond the limits of the envelope is left
// out.
func (s *session) appendFills(fills []togetherFill, b *tier.BatchFill, in *distribution, items []int) []togetherFill {
	f := togetherFill{batch: b, in: in}
	for _, i := range items {
		e := &b.Items[i].Entry
		value := s.encode(b.Items[i].Key, &envelope{
			id: e.ID, born: e.Born, freshUntil: e.FreshUntil, staleUntil: e.StaleUntil, keepUntil: e.KeepUntil,
			loadTime: e.LoadTime, tags: e.Tags, eras: e.Eras, payload: e.Payload,
		})
		if len(value) == 0 || in.parts[i] >= len(b.Places) {
			continue
		}
		if len(f.items) == maxTogether || len(f.items) > 0 && f.size+len(value) > maxTogetherBytes {
			fills = append(fills, f)
			f = togetherFill{batch: b, in: in}
		}
		f.items, f.values, f.size = append(f.items, i), append(f.values, value), f.size+len(value)
	}
	if len(f.items) > 0 {
		fills = append(fills, f)
	}
	return fills
}

func (f *togetherFill) call(s *session) call {
	n := len(f.items)
	distinct, counts := f.in.count(f.items)
	keys, args := make([]string, 0, 3*len(distinct)+5*n), make([]any, 0, 3+4*len(distinct)+3*n)
	args = append(args, s.names.version, len(distinct), n)
	for at, p := range distinct {
		place := &f.batch.Places[p]
		keys = append(keys, s.names.head(p), s.names.log(p), s.names.records(p))
		args = append(args, place.ID, place.Token, place.Era, counts[at])
	}
	v := s.names.version
	for _, key := range []func(p int, it *tier.BatchItem) string{
		func(p int, it *tier.BatchItem) string { return s.names.generation(p, it.Tag) },
		func(p int, it *tier.BatchItem) string { return s.names.entry(p, v, it.Key) },
		func(p int, it *tier.BatchItem) string { return s.names.lease(p, v, it.Key) },
		func(p int, it *tier.BatchItem) string { return s.names.keyIntents(p, it.Key) },
		func(p int, it *tier.BatchItem) string { return s.names.tagIntents(p, it.Tag) },
	} {
		for _, i := range f.items {
			keys = append(keys, key(f.in.parts[i], &f.batch.Items[i]))
		}
	}
	for at, i := range f.items {
		it := &f.batch.Items[i]
		args = append(args, it.Generation, it.Entry.KeepUntil, f.values[at])
	}
	return call{script: togetherScript, keys: keys, args: args}
}

// read marks the items that were stored: all except those of the reply.
func (f *togetherFill) read(v any, stored []bool) error {
	r := newReply(v)
	left := make(map[int64]bool, len(r.rest))
	for r.err == nil && len(r.rest) > 0 {
		i := r.int()
		if i < 1 || int(i) > len(f.items) {
			return fmt.Errorf("%w: item %d of %d", errReply, i, len(f.items))
		}
		left[i] = true
	}
	if r.err != nil {
		return r.err
	}
	for at, i := range f.items {
		stored[i] = !left[int64(at+1)]
	}
	return nil
}
