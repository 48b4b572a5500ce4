package redisstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/test/redisserver"
	"github.com/larderhq/larder/core/internal/test/tiertest"
	"github.com/larderhq/larder/core/internal/tier"
)

// secret is a secret of tests.
func secret(b byte) []byte { return bytes.Repeat([]byte{b}, secretBytes) }

func sealerOf(t testing.TB, s Sealing) *sealer {
	t.Helper()
	seals, err := newSealer(s)
	require.NoError(t, err)
	return seals
}

func openSealed(t *testing.T, client redis.UniversalClient, s Sealing) *session {
	t.Helper()
	opened := open(t, client, layout("v1"))
	opened.sealer = sealerOf(t, s)
	return opened
}

// stored returns all values in a Redis, by key.
func stored(t *testing.T, client *redis.Client) map[string]string {
	t.Helper()
	values := make(map[string]string)
	keys, err := client.Keys(t.Context(), "*").Result()
	require.NoError(t, err)
	for _, key := range keys {
		values[key], err = client.Dump(t.Context(), key).Result()
		require.NoError(t, err)
	}
	return values
}

func TestTheTierWithSealedValues(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("the suite once more")
	}
	server := redisserver.Single(t)
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer client.Close()
	h := harness(client)
	plain := h.Open
	h.Open = func(t testing.TB, l tier.Layout) tier.Session {
		opened := plain(t, l)
		opened.(*session).sealer = sealerOf(t, Sealing{Keys: []SealingKey{{"one", secret(1)}}})
		return opened
	}
	tiertest.Run(t, h)
}

func TestSealedValuesAreUnreadableInRedis(t *testing.T) {
	t.Parallel()
	_, client := single(t)
	require.NoError(t, client.ConfigSet(t.Context(), "rdbcompression", "no").Err())
	for _, size := range []int{10, 10_000} { // as it is, and compressed
		s := openSealed(t, client, Sealing{Keys: []SealingKey{{"one", secret(1)}}})
		payload := strings.Repeat("plaintext ", size/10)
		fill(t, s, "key", payload, "t:tag")
		ctx := within(t, 5*time.Second)
		require.NoError(t, s.Note(ctx, "note", []byte(payload), time.Minute))
		p := s.partitionOfKey("queued")
		_, err := s.Enqueue(ctx, tier.Enqueue{
			Partition: p, Queue: "q", Limit: 10,
			Changes: []tier.QueueChange{{Key: "queued", Payload: []byte(payload)}},
		})
		require.NoError(t, err)

		for key, value := range stored(t, client) {
			require.NotContains(t, value, "plaintext", key)
		}
		for _, key := range []string{"key", "note"} {
			e, _, err := s.Get(ctx, key, nil)
			require.NoError(t, err)
			require.Equal(t, payload, string(e.Payload))
		}
		claimed, err := s.Claim(ctx, tier.Claim{Partition: p, Queue: "q", Worker: "w", Lease: time.Minute, Max: 1})
		require.NoError(t, err)
		require.Equal(t, payload, string(claimed.Records[0].Payload))
		require.NoError(t, client.FlushAll(ctx).Err())
	}
}

func TestAnEntryOpensOnlyAsItWasSealed(t *testing.T) {
	t.Parallel()
	_, client := single(t)
	keys := Sealing{Keys: []SealingKey{{"one", secret(1)}}}
	s := openSealed(t, client, keys)
	var reported []string
	s.OnRefusal(func(err error) { reported = append(reported, tier.KindOf(err)) })
	fill(t, s, "mine", "my page")
	ctx := within(t, 5*time.Second)
	in := func(key string) string { return s.names.entry(s.partitionOfKey(key), "v1", key) }
	value, err := client.Get(ctx, in("mine")).Bytes()
	require.NoError(t, err)

	longer, err := decodeSealed(value, s.sealer, s.entryContext("mine"))
	require.NoError(t, err)
	longer.freshUntil += 1_000_000
	sealedLonger := encodeEnvelope(nil, &longer)
	at, was := binary.LittleEndian.Uint32(sealedLonger[4+len(longer.id):]), binary.LittleEndian.Uint32(value[4+len(longer.id):])
	sealedLonger = sealEnvelope(slices.Concat(sealedLonger[:at], value[was:len(value)-envelopeSum]))
	sealedLonger[3+len(longer.id)] = value[3+len(longer.id)]
	sealedLonger = sealEnvelope(sealedLonger[:len(sealedLonger)-envelopeSum])

	for name, c := range map[string]struct {
		key   string
		value []byte
		kind  string
	}{
		"copied to another key": {"yours", value, errSealBroken.Error()},
		"with a longer life":    {"mine", sealedLonger, errSealBroken.Error()},
		"not sealed":            {"mine", encodeEnvelope(nil, &longer), errUnsealed.Error()},
		"with another key": {
			"mine", encodeSealed(nil, &longer, sealerOf(t, Sealing{Keys: []SealingKey{{"two", secret(2)}}}), s.entryContext("mine")), "sealed with another key",
		},
		"with another secret of the same name": {
			"mine", encodeSealed(nil, &longer, sealerOf(t, Sealing{Keys: []SealingKey{{"one", secret(2)}}}), s.entryContext("mine")), errSealBroken.Error(),
		},
	} {
		reported = nil
		require.NoError(t, client.Set(ctx, in(c.key), c.value, time.Minute).Err())
		e, _, err := s.Get(ctx, c.key, nil)
		require.NoError(t, err, name)
		require.Equal(t, tier.Entry{}, e, name)
		require.Equal(t, []string{c.kind}, reported, name)
	}
	require.NoError(t, client.Set(ctx, in("mine"), value, time.Minute).Err())
	e, _, err := s.Get(ctx, "mine", nil)
	require.NoError(t, err)
	require.Equal(t, "my page", string(e.Payload))

	unsealed := open(t, client, layout("v1"))
	reported = nil
	unsealed.OnRefusal(func(err error) { reported = append(reported, tier.KindOf(err)) })
	e, _, err = unsealed.Get(ctx, "mine", nil)
	require.NoError(t, err)
	require.Empty(t, e.ID)
	require.Equal(t, []string{errNoSealing.Error()}, reported)

	keys.AcceptUnsealed = true
	accepts := openSealed(t, client, keys)
	require.NoError(t, client.Set(ctx, in("mine"), encodeEnvelope(nil, &longer), time.Minute).Err())
	e, _, err = accepts.Get(ctx, "mine", nil)
	require.NoError(t, err)
	require.Equal(t, "my page", string(e.Payload))
}

func TestEachBitOfASealedPayloadCounts(t *testing.T) {
	s := sealerOf(t, Sealing{Keys: []SealingKey{{"one", secret(1)}}})
	context := sealContext("entry", "key")
	sealed := s.seal([]byte("before"), []byte("plain"), context)
	require.Equal(t, "before", string(sealed[:6]))
	sealed = sealed[6:]
	require.Len(t, sealed, s.overhead()+len("plain"))
	plain, err := s.open(sealed, context)
	require.NoError(t, err)
	require.Equal(t, "plain", string(plain))

	for i := range len(sealed) {
		for bit := range 8 {
			changed := bytes.Clone(sealed)
			changed[i] ^= 1 << bit
			_, err := s.open(changed, context)
			require.Error(t, err, "byte %d, bit %d", i, bit)
		}
		_, err := s.open(sealed[:i], context)
		require.Error(t, err, "%d bytes", i)
	}
	_, err = s.open(sealed, sealContext("entryk", "ey"))
	require.ErrorIs(t, err, errSealBroken)
	require.NotEqual(t, s.seal(nil, []byte("plain"), context), s.seal(nil, []byte("plain"), context))
}

func TestAnotherSaltFollowsManyValues(t *testing.T) {
	s := sealerOf(t, Sealing{Keys: []SealingKey{{"one", secret(1)}}})
	first := s.seal(nil, []byte("a"), nil)
	s.left = 0 // as after sealsPerSalt values
	second := s.seal(nil, []byte("b"), nil)
	salt := func(b []byte) []byte { return b[5 : 5+saltBytes] }
	require.NotEqual(t, salt(first), salt(second))
	for want, sealed := range map[string][]byte{"a": first, "b": second} {
		plain, err := s.open(sealed, nil)
		require.NoError(t, err)
		require.Equal(t, want, string(plain))
	}
	for i := range maxDerived + 1 { // keys of foreign salts take no more room than this
		foreign := bytes.Clone(first)
		binary.LittleEndian.PutUint32(foreign[5:], uint32(i))
		_, err := s.open(foreign, nil)
		require.ErrorIs(t, err, errSealBroken)
	}
	require.LessOrEqual(t, len(s.derived), maxDerived)
}

func TestSealingThatCannotWorkIsRefused(t *testing.T) {
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
	defer client.Close()
	good := SealingKey{"one", secret(1)}
	for want, s := range map[string]Sealing{
		"Sealing.Keys: 0 keys; 1 to 16 are allowed":                    {},
		"Sealing.Keys: 17 keys; 1 to 16 are allowed":                   {Keys: slices.Repeat([]SealingKey{good}, 17)},
		`Sealing.Keys[0].ID: ""; 1 to 32 letters, digits, hyphens`:     {Keys: []SealingKey{{"", secret(1)}}},
		`Sealing.Keys[1].ID: "a b"; 1 to 32 letters, digits`:           {Keys: []SealingKey{good, {"a b", secret(1)}}},
		"Sealing.Keys[0].Secret: 8 bytes; 32 are required":             {Keys: []SealingKey{{"one", []byte("password")}}},
		`Sealing.Keys[1].ID: "one" is the ID of an earlier key`:        {Keys: []SealingKey{good, good}},
		fmt.Sprintf("Sealing.Keys[0].ID: %q", strings.Repeat("x", 33)): {Keys: []SealingKey{{strings.Repeat("x", 33), secret(1)}}},
	} {
		_, err := New(client, Seal(s)).Open(within(t, time.Second), layout("v1"))
		require.ErrorIs(t, err, tier.ErrUnusable)
		require.ErrorContains(t, err, want)
	}
}

func FuzzOpenSealed(f *testing.F) {
	s := sealerOf(f, Sealing{Keys: []SealingKey{{"one", secret(1)}}})
	f.Add(s.seal(nil, []byte("plain"), nil))
	f.Add([]byte{sealMark})
	f.Add([]byte{sealMark, 255})
	f.Fuzz(func(t *testing.T, data []byte) {
		given := bytes.Clone(data)
		plain, err := s.open(data, nil)
		require.Equal(t, given, data)
		if err != nil {
			unknown := (*unknownSealError)(nil)
			require.True(t, errors.Is(err, errSealBroken) || errors.Is(err, errUnsealed) || errors.As(err, &unknown), "%v", err)
			return
		}
		again, err := s.open(s.seal(nil, plain, nil), nil)
		require.NoError(t, err)
		require.Equal(t, plain, again)
	})
}

// BenchmarkSealing is the time that sealing adds to an entry of 1 KiB.
func BenchmarkSealing(b *testing.B) {
	s := sealerOf(b, Sealing{Keys: []SealingKey{{"one", secret(1)}}})
	context := sealContext("entry", "ns", "v1", "key")
	e := sampleEnvelope(1024)
	for name, seals := range map[string]*sealer{"plain": nil, "sealed": s} {
		value := encodeSealed(nil, &e, seals, context)
		b.Run("encode/"+name, func(b *testing.B) {
			for b.Loop() {
				encodeSealed(nil, &e, seals, context)
			}
		})
		b.Run("decode/"+name, func(b *testing.B) {
			for b.Loop() {
				if _, err := decodeSealed(value, seals, context); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
