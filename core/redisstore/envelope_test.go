package redisstore

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/tier"
)

// sampleEnvelope is an entry as they usually are, with n bytes of JSON.
func sampleEnvelope(n int) envelope {
	var payload []byte
	for i := 0; len(payload) < n; i++ {
		payload = fmt.Appendf(payload, `{"id":%d,"name":"item %x","price":%d.95},`, i, i*i*7919, i*37%100)
	}
	return envelope{
		id:   "1764000000000-0:5f2c9a",
		born: 1764000000000, freshUntil: 1764000060000, staleUntil: 1764000120000, keepUntil: 1764000180000,
		loadTime: 37 * time.Millisecond,
		tags: []tier.TagGeneration{
			{Tag: "product:42", Token: "9b1deb4d3b7d4bad-17"},
			{Tag: "category:shoes", Token: "9b1deb4d3b7d4bad-18"},
		},
		eras:    []tier.PartitionEra{{Partition: 7, Era: "c0ffee-1"}, {Partition: 11, Era: "c0ffee-2"}},
		payload: payload[:n],
	}
}

// randomPayload does not compress.
func randomPayload(n int) []byte {
	rng := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// asDecoded returns e as decodeEnvelope returns it: empty fields are nil.
func (e envelope) asDecoded() envelope {
	if len(e.tags) == 0 {
		e.tags = nil
	}
	if len(e.eras) == 0 {
		e.eras = nil
	}
	if len(e.payload) == 0 {
		e.payload = nil
	}
	return e
}

// sealEnvelope ends body with a checksum that is right, as an attacker would.
func sealEnvelope(body []byte) []byte {
	return binary.LittleEndian.AppendUint32(bytes.Clone(body), envelopeChecksum(body))
}

// craftedEnvelope is a value without an id, with a checksum that is right.
func craftedEnvelope(flags byte, header, payload []byte) []byte {
	b := []byte{envelopeMagic, envelopeVersion, 0, flags, 0, 0, 0, 0}
	b = append(b, header...)
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)))
	return sealEnvelope(append(b, payload...))
}

// emptyHeader has times of zero, no tags, no eras.
func emptyHeader() []byte { return make([]byte, 7) }

// bytesAllocated returns the bytes that f and, meanwhile, the runtime allocate.
func bytesAllocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestEnvelopeRoundTrip(t *testing.T) {
	long := strings.Repeat("x", maxEnvelopeString)
	manyTags := make([]tier.TagGeneration, maxEnvelopeTags)
	for i := range manyTags {
		manyTags[i] = tier.TagGeneration{Tag: fmt.Sprint("tag", i), Token: fmt.Sprint("token", i)}
	}
	allEras := make([]tier.PartitionEra, maxEnvelopeEras)
	for i := range allEras {
		allEras[i] = tier.PartitionEra{Partition: i, Era: fmt.Sprint("era", i)}
	}
	provisional := sampleEnvelope(100)
	provisional.provisional = true
	provisionalCompressed := sampleEnvelope(10_000)
	provisionalCompressed.provisional = true

	cases := map[string]envelope{
		"zero":                   {},
		"nil slices":             {id: "a"},
		"empty slices":           {id: "a", tags: []tier.TagGeneration{}, eras: []tier.PartitionEra{}, payload: []byte{}},
		"empty strings":          {tags: []tier.TagGeneration{{}}, eras: []tier.PartitionEra{{}}},
		"one byte":               {id: "a", payload: []byte{0}},
		"provisional":            provisional,
		"provisional compressed": provisionalCompressed,
		"least times": {born: math.MinInt64, freshUntil: math.MinInt64, staleUntil: math.MinInt64,
			keepUntil: math.MinInt64, loadTime: math.MinInt64},
		"greatest times": {born: math.MaxInt64, freshUntil: math.MaxInt64, staleUntil: math.MaxInt64,
			keepUntil: math.MaxInt64, loadTime: math.MaxInt64},
		"negative times":  {born: -1, freshUntil: -2, staleUntil: -3, keepUntil: -4, loadTime: -5},
		"longest id":      {id: strings.Repeat("\xff", maxEnvelopeID)},
		"longest strings": {tags: []tier.TagGeneration{{Tag: long, Token: long}}, eras: []tier.PartitionEra{{Partition: 63, Era: long}}},
		"most tags":       {id: "a", tags: manyTags, payload: []byte("p")},
		"most eras":       {id: "a", eras: allEras, payload: []byte("p")},
		"incompressible":  {id: "a", payload: randomPayload(1 << 20)},
		"1 MiB of zeros":  {id: "a", payload: make([]byte, 1<<20)},
		"64 KiB of zeros": {id: "a", payload: make([]byte, ratioFree)},
		"16 MiB of zeros": {id: "a", payload: make([]byte, 16<<20)},
		"1 MiB of JSON":   sampleEnvelope(1 << 20),
	}
	for _, n := range []int{minCompress - 1, minCompress, minCompress + 1, 1 << 16, 1<<16 + 1} {
		cases[fmt.Sprintf("%d bytes of JSON", n)] = sampleEnvelope(n)
		cases[fmt.Sprintf("%d random bytes", n)] = envelope{id: "a", payload: randomPayload(n)}
	}
	for name, e := range cases {
		t.Run(name, func(t *testing.T) {
			data := encodeEnvelope(nil, &e)
			require.NotEmpty(t, data)
			got, err := decodeEnvelope(data)
			require.NoError(t, err)
			require.Equal(t, e.asDecoded(), got)
		})
	}
}

func TestEnvelopeIsAppended(t *testing.T) {
	for _, n := range []int{0, 100, 10_000} {
		e := sampleEnvelope(n)
		alone := encodeEnvelope(nil, &e)
		for _, dst := range [][]byte{[]byte("before"), append(make([]byte, 0, 1<<16), "before"...)} {
			require.Equal(t, append([]byte("before"), alone...), encodeEnvelope(dst, &e))
		}
	}
}

// Values of one release are read by the next, so a change of the layout needs a
// new version.
func TestEnvelopeLayoutIsPinned(t *testing.T) {
	e := envelope{
		id: "id-1", born: 1000, freshUntil: 2000, staleUntil: 3000, keepUntil: 4000, loadTime: 5,
		provisional: true,
		tags:        []tier.TagGeneration{{Tag: "t", Token: "g"}},
		eras:        []tier.PartitionEra{{Partition: 3, Era: "e"}},
		payload:     []byte("payload"),
	}
	want := "e701" + "0469642d31" + "01" + "1e000000" + // magic, version; id; flags; payload at 30
		"d00f" + "a01f" + "f02e" + "c03e" + "0a" + // times
		"01" + "0174" + "0167" + "01" + "03" + "0165" + // tags, eras
		hex.EncodeToString([]byte("payload"))
	data := encodeEnvelope(nil, &e)
	require.Equal(t, want, hex.EncodeToString(data[:len(data)-envelopeSum]))
	require.Equal(t, envelopeChecksum(data[:len(data)-envelopeSum]), binary.LittleEndian.Uint32(data[len(data)-envelopeSum:]))
}

func TestEnvelopeIDIsWhereScriptsReadIt(t *testing.T) {
	for _, id := range []string{"", "a", strings.Repeat("é", 127)} {
		data := encodeEnvelope(nil, &envelope{id: id, payload: []byte("p")})
		require.Equal(t, id, string(data[3:3+int(data[2])]))
	}
}

func TestEnvelopeIsCompressedWhereItPays(t *testing.T) {
	compressed := func(e envelope) bool {
		data := encodeEnvelope(nil, &e)
		return data[envelopePrefix+int(data[2])]&envelopeCompressed != 0
	}
	zeros := func(n int) envelope { return envelope{payload: make([]byte, n)} }
	require.False(t, compressed(zeros(minCompress-1)), "short")
	require.True(t, compressed(zeros(minCompress)))
	require.False(t, compressed(envelope{payload: randomPayload(1 << 16)}), "incompressible")

	// 5 % of zeros is too little to save, 20 % is enough.
	e := envelope{payload: append(randomPayload(9500), make([]byte, 500)...)}
	require.False(t, compressed(e), "saves little")
	e = envelope{payload: append(randomPayload(8000), make([]byte, 2000)...)}
	require.True(t, compressed(e))

	// A payload that compresses beyond maxRatio is padded to it, and is still small.
	e = zeros(1 << 20)
	require.Less(t, len(encodeEnvelope(nil, &e)), 1<<20/maxRatio+100)
}

func TestEnvelopeBeyondLimitsIsNotEncoded(t *testing.T) {
	long := strings.Repeat("x", maxEnvelopeString+1)
	for name, e := range map[string]envelope{
		"id":                 {id: strings.Repeat("x", maxEnvelopeID+1)},
		"tags":               {tags: make([]tier.TagGeneration, maxEnvelopeTags+1)},
		"tag":                {tags: []tier.TagGeneration{{Tag: long}}},
		"token":              {tags: []tier.TagGeneration{{Token: long}}},
		"eras":               {eras: make([]tier.PartitionEra, maxEnvelopeEras+1)},
		"era":                {eras: []tier.PartitionEra{{Era: long}}},
		"partition":          {eras: []tier.PartitionEra{{Partition: tier.MaxPartitions}}},
		"negative partition": {eras: []tier.PartitionEra{{Partition: -1}}},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, "before", string(encodeEnvelope([]byte("before"), &e)))
			_, err := decodeEnvelope(encodeEnvelope(nil, &e))
			require.ErrorIs(t, err, errCorrupt)
		})
	}
}

func TestEnvelopeTruncatedIsCorrupt(t *testing.T) {
	for _, n := range []int{0, 100, 2000} {
		e := sampleEnvelope(n)
		data := encodeEnvelope(nil, &e)
		for i := range data {
			_, err := decodeEnvelope(data[:i])
			require.ErrorIs(t, err, errCorrupt, "%d of %d bytes", i, len(data))
			_, err = decodeEnvelope(data[i+1:])
			require.Error(t, err, "without the first %d of %d bytes", i+1, len(data))
		}
		_, err := decodeEnvelope(append(bytes.Clone(data), 0))
		require.ErrorIs(t, err, errCorrupt, "a byte behind it")
	}
}

func TestEnvelopeWithAFlippedBitIsAnError(t *testing.T) {
	for _, n := range []int{0, 100, 2000} {
		e := sampleEnvelope(n)
		data := encodeEnvelope(nil, &e)
		for i := range data {
			want := errCorrupt
			if i == 1 {
				want = errVersion
			}
			for bit := range 8 {
				data[i] ^= 1 << bit
				_, err := decodeEnvelope(data)
				require.ErrorIs(t, err, want, "bit %d of byte %d", bit, i)
				data[i] ^= 1 << bit
			}
		}
	}
}

func TestEnvelopeOfAnotherVersionIsNotCorrupt(t *testing.T) {
	e := sampleEnvelope(100)
	data := encodeEnvelope(nil, &e)
	for v := range 256 {
		data[1] = byte(v)
		_, err := decodeEnvelope(data)
		if v == envelopeVersion {
			require.NoError(t, err)
			continue
		}
		require.ErrorIs(t, err, errVersion)
		require.NotErrorIs(t, err, errCorrupt)

		// It may look otherwise from the id on.
		_, err = decodeEnvelope([]byte{envelopeMagic, byte(v), 0})
		require.ErrorIs(t, err, errVersion)
	}
}

// Every value here has a checksum that is right.
func TestEnvelopeHostileIsCorrupt(t *testing.T) {
	uvarint := func(v uint64) []byte { return binary.AppendUvarint(nil, v) }
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	times := make([]byte, 5)
	// block is a compressed payload that says it decodes to n bytes.
	block := func(n uint64, fill int) []byte {
		b := append(uvarint(n), make([]byte, fill)...)
		return append(binary.LittleEndian.AppendUint32(nil, uint32(len(b))), b...)
	}
	at := func(v uint32) []byte {
		b := craftedEnvelope(0, emptyHeader(), []byte("payload"))
		binary.LittleEndian.PutUint32(b[4:], v)
		return sealEnvelope(b[:len(b)-envelopeSum])
	}
	// The bomb decodes: 64 MiB in a few bytes.
	bomb := s2.Encode(nil, make([]byte, 64<<20))
	require.Less(t, len(bomb), 1000)
	bomb = append(binary.LittleEndian.AppendUint32(nil, uint32(len(bomb))), bomb...)

	for name, data := range map[string][]byte{
		"unknown flag":            craftedEnvelope(1<<2, emptyHeader(), nil),
		"payload before header":   at(0),
		"payload within header":   at(uint32(envelopePrefix + envelopeFixed)),
		"payload a byte late":     at(uint32(envelopePrefix+envelopeFixed) + 8),
		"payload behind the end":  at(1000),
		"payload far behind":      at(math.MaxUint32),
		"id behind the end":       sealEnvelope([]byte{envelopeMagic, envelopeVersion, 255, 0, 8, 0, 0, 0}),
		"times missing":           craftedEnvelope(0, nil, []byte("payload")),
		"time without an end":     craftedEnvelope(0, bytes.Repeat([]byte{0x80}, 20), nil),
		"time of 65 bits":         craftedEnvelope(0, join(bytes.Repeat([]byte{0xff}, 9), []byte{2}, make([]byte, 6)), nil),
		"tags missing":            craftedEnvelope(0, join(times, uvarint(maxEnvelopeTags)), nil),
		"too many tags":           craftedEnvelope(0, join(times, uvarint(maxEnvelopeTags+1), make([]byte, 4*maxEnvelopeTags)), nil),
		"countless tags":          craftedEnvelope(0, join(times, uvarint(math.MaxUint64)), nil),
		"tag missing":             craftedEnvelope(0, join(times, []byte{1, 50, 0, 0}), nil),
		"tag too long":            craftedEnvelope(0, join(times, []byte{1}, uvarint(maxEnvelopeString+1), make([]byte, maxEnvelopeString+3)), nil),
		"endless tag":             craftedEnvelope(0, join(times, []byte{1}, uvarint(math.MaxInt64)), nil),
		"eras missing":            craftedEnvelope(0, join(times, []byte{0, 64}), nil),
		"too many eras":           craftedEnvelope(0, join(times, []byte{0, 65}, make([]byte, 200)), nil),
		"partition 64":            craftedEnvelope(0, join(times, []byte{0, 1, 64, 0}), nil),
		"rest in the header":      craftedEnvelope(0, append(emptyHeader(), 0), nil),
		"no length of the block":  craftedEnvelope(envelopeCompressed, emptyHeader(), []byte{1, 0, 0}),
		"block behind the end":    craftedEnvelope(envelopeCompressed, emptyHeader(), []byte{2, 0, 0, 0, 1}),
		"block far behind":        craftedEnvelope(envelopeCompressed, emptyHeader(), []byte{255, 255, 255, 255, 1}),
		"empty block":             craftedEnvelope(envelopeCompressed, emptyHeader(), []byte{0, 0, 0, 0}),
		"block of nothing":        craftedEnvelope(envelopeCompressed, emptyHeader(), block(0, 0)),
		"block without its bytes": craftedEnvelope(envelopeCompressed, emptyHeader(), block(1000, 3)),
		"bomb":                    craftedEnvelope(envelopeCompressed, emptyHeader(), bomb),
		"1 GiB":                   craftedEnvelope(envelopeCompressed, emptyHeader(), block(1<<30, 10)),
		"4 GiB":                   craftedEnvelope(envelopeCompressed, emptyHeader(), block(math.MaxUint32, 10)),
		"endless":                 craftedEnvelope(envelopeCompressed, emptyHeader(), block(math.MaxUint64, 10)),
		"beyond maxDecoded":       craftedEnvelope(envelopeCompressed, emptyHeader(), block(maxDecoded+1, maxDecoded/maxRatio+1)),
	} {
		t.Run(name, func(t *testing.T) {
			// It is refused before anything is allocated for its stated lengths.
			least := uint64(math.MaxUint64)
			for range 3 { // the runtime allocates as well, now and then
				var err error
				least = min(least, bytesAllocated(func() { _, err = decodeEnvelope(data) }))
				require.ErrorIs(t, err, errCorrupt)
			}
			require.LessOrEqual(t, least, 8<<10+2*uint64(len(data)))
		})
	}
}

func TestEnvelopeRatioIsBounded(t *testing.T) {
	// Given a payload at the bound, it decodes; with a byte less of filling, it does not.
	e := envelope{payload: make([]byte, 1<<20)}
	data := encodeEnvelope(nil, &e)
	_, err := decodeEnvelope(data)
	require.NoError(t, err)
	_, err = decodeEnvelope(sealEnvelope(data[:len(data)-envelopeSum-1]))
	require.ErrorIs(t, err, errCorrupt)
}

func TestEnvelopeKeepsNothingOfTheValue(t *testing.T) {
	for _, n := range []int{100, 2000} {
		e := sampleEnvelope(n)
		data := encodeEnvelope(nil, &e)
		got, err := decodeEnvelope(data)
		require.NoError(t, err)
		clear(data)
		require.Equal(t, e, got)
	}
}

func TestEnvelopeDecodesWithFewAllocations(t *testing.T) {
	for _, n := range []int{100, 10_000} {
		e := sampleEnvelope(n)
		data := encodeEnvelope(nil, &e)
		allocs := testing.AllocsPerRun(100, func() { _, _ = decodeEnvelope(data) })
		require.LessOrEqual(t, allocs, 4.0, "the header, tags, eras and the payload")
	}
}

func BenchmarkDecodeEnvelope(b *testing.B) {
	for name, payload := range map[string][]byte{"compressed": sampleEnvelope(1024).payload, "raw": randomPayload(1024)} {
		b.Run("1KiB/"+name, func(b *testing.B) {
			e := sampleEnvelope(0)
			e.payload = payload
			data := encodeEnvelope(nil, &e)
			b.SetBytes(int64(len(payload)))
			b.ReportAllocs()
			b.ReportMetric(float64(len(data)), "bytes/value")
			for b.Loop() {
				if _, err := decodeEnvelope(data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkEncodeEnvelope(b *testing.B) {
	e := sampleEnvelope(1024)
	b.SetBytes(1024)
	b.ReportAllocs()
	var dst []byte
	for b.Loop() {
		dst = encodeEnvelope(dst[:0], &e)
	}
}
