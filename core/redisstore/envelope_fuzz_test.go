package redisstore

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/tier"
)

// FuzzDecodeEnvelope decodes its input, and the same input with a correct checksum,
// without which no input would get far.
func FuzzDecodeEnvelope(f *testing.F) {
	for _, n := range []int{0, 100, 600, 5000} {
		e := sampleEnvelope(n)
		f.Add(encodeEnvelope(nil, &e))
	}
	f.Add(encodeEnvelope(nil, &envelope{}))
	f.Add(encodeEnvelope(nil, &envelope{payload: make([]byte, 1<<17)}))
	bomb := s2.Encode(nil, make([]byte, 1<<20))
	f.Add(craftedEnvelope(envelopeCompressed, emptyHeader(), append([]byte{byte(len(bomb)), 0, 0, 0}, bomb...)))
	f.Add([]byte{envelopeMagic, envelopeVersion + 1, 0})
	sealed := sampleEnvelope(600)
	f.Add(encodeSealed(nil, &sealed, sealerOf(f, Sealing{Keys: []SealingKey{{"one", secret(1)}}}), nil))

	f.Fuzz(func(t *testing.T, data []byte) {
		checkDecode(t, data)
		if len(data) >= envelopeSum {
			checkDecode(t, sealEnvelope(data[:len(data)-envelopeSum]))
		}
	})
}

// mayAllocate is what decoding n bytes may allocate.
func mayAllocate(n int) uint64 {
	const rounding = 2 // size classes
	return rounding * (ratioFree + maxRatio*uint64(n))
}

func checkDecode(t *testing.T, data []byte) {
	const fuzzer = 1 << 20 // bytes that the fuzzer's own goroutines may allocate meanwhile

	given := bytes.Clone(data)
	var e envelope
	var err error
	allocated := bytesAllocated(func() { e, err = decodeEnvelope(data) })
	require.LessOrEqual(t, allocated, mayAllocate(len(data))+fuzzer)
	require.Equal(t, given, data)
	if err != nil {
		switch {
		case len(data) > 2 && data[0] == envelopeMagic && data[1] != envelopeVersion:
			require.ErrorIs(t, err, errVersion)
		case errors.Is(err, errNoSealing):
			require.NotZero(t, data[envelopePrefix+data[2]]&envelopeSealed)
		default:
			require.ErrorIs(t, err, errCorrupt)
		}
		require.Equal(t, envelope{}, e)
		return
	}
	require.LessOrEqual(t, len(e.payload), ratioFree+maxRatio*len(data))

	clear(data) // e is independent of it
	again, err := decodeEnvelope(encodeEnvelope(nil, &e))
	require.NoError(t, err)
	require.Equal(t, e, again)

	first, err := decodeEnvelope(given)
	require.NoError(t, err)
	require.Equal(t, e, first)
}

func FuzzEnvelopeRoundTrip(f *testing.F) {
	f.Add("id", int64(1), int64(2), int64(3), int64(4), int64(5), false, "tag", "token", "era", uint8(2), uint8(7), []byte("payload"), uint16(1))
	f.Add("", int64(0), int64(-1), int64(1)<<62, int64(-1)<<63, int64(0), true, "", "", "", uint8(0), uint8(64), []byte{}, uint16(0))
	f.Add("id", int64(1), int64(2), int64(3), int64(4), int64(5), true, "a", "b", "c", uint8(255), uint8(63), []byte("0123456789"), uint16(60000))

	f.Fuzz(func(t *testing.T, id string, born, fresh, stale, keep, load int64, provisional bool,
		tag, token, era string, tags, partition uint8, payload []byte, times uint16) {
		if len(payload)*int(times) > 1<<22 {
			t.Skip("slow")
		}
		e := envelope{
			id: id, born: born, freshUntil: fresh, staleUntil: stale, keepUntil: keep,
			loadTime: time.Duration(load), provisional: provisional,
			payload: bytes.Repeat(payload, int(times)),
		}
		for i := range int(tags) {
			e.tags = append(e.tags, tier.TagGeneration{Tag: tag[:len(tag)*i/int(tags)], Token: token})
			if i < maxEnvelopeEras {
				e.eras = append(e.eras, tier.PartitionEra{Partition: int(partition), Era: era})
			}
		}

		data := encodeEnvelope([]byte("before"), &e)
		require.Equal(t, "before", string(data[:6]))
		data = data[6:]
		long := max(len(tag), len(token), len(era)) > maxEnvelopeString
		if len(id) > maxEnvelopeID || tags > 0 && (long || int(partition) >= tier.MaxPartitions) {
			if len(data) > 0 { // the prefixes of a long tag may all be short enough
				_, err := decodeEnvelope(data)
				require.NoError(t, err)
			}
			return
		}
		require.Equal(t, id, string(data[3:3+int(data[2])]))
		got, err := decodeEnvelope(data)
		require.NoError(t, err)
		require.Equal(t, e.asDecoded(), got)
	})
}
