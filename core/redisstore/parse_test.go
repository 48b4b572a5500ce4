package redisstore

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/tier"
)

func TestMalformedHintsAreIgnored(t *testing.T) {
	for _, payload := range []string{
		"", "L", "L1", "L2" + "1:w1:k", "L11:w", "L11:w1:k1:k", "L11:w0:", "L11:w9:k", "L11:w-1:k", "L11:w:k", "L1x", "L1:",
		"L11:w99999999999999999999:k", "L11:i1:01:11:k1:01:t", "L11:i1:x1:11:k1:01:t1:b", "L11:i1:01:91:k1:01:t1:b",
		"L11:i1:01:01:k1:01:t1:b", "L11:i1:01:81:k1:01:t1:b", "L11:i1:01:61:k1:01:t1:b", "L11:i", "L11:i1:0", "L11:i1:31:21:k1:01:t1:b1:2", "L11:i1:31:21:k1:01:t1:b1:91:l1:01:u1:t",
	} {
		require.Empty(t, parseHints(payload), "%q", payload)
	}
	require.Equal(t, []tier.Hint{{Wake: "k"}}, parseHints("L11:w1:k"))
	first := tier.Hint{Partition: 3, Item: tier.Logged{
		Item: tier.Item{Kind: tier.Tag, Value: "k"}, Position: tier.Position{ID: "0", Token: "t"}, Before: "b",
	}}
	require.Equal(t, []tier.Hint{first}, parseHints("L11:i1:31:21:k1:01:t1:b"))
	second := tier.Hint{Partition: 3, Item: tier.Logged{
		Item: tier.Item{Kind: tier.Key, Value: ""}, Position: tier.Position{ID: "1", Token: "u"}, Before: "t",
	}}
	require.Equal(t, []tier.Hint{first, second}, parseHints("L11:i1:31:21:k1:01:t1:b1:10:1:11:u1:t"))
}

func TestAnUnknownLogItemIsAnError(t *testing.T) {
	logOf := func(kind, value string) *reply {
		return newReply([]any{int64(1), int64(0), []any{kind, value, "1-0", "t", "b"}})
	}
	for _, item := range []struct{ kind, value, why string }{
		{"8", "k", "kind 8"}, {"0", "k", "kind 0"}, {"x", "k", "kind 0"}, {"6", "1:soon:w:k", "no intent"},
	} {
		_, err := readLog(logOf(item.kind, item.value))
		require.ErrorIs(t, err, errReply)
		require.ErrorContains(t, err, item.why)
	}
	l, err := readLog(logOf("6", "1:5:w:k"))
	require.NoError(t, err)
	require.Len(t, l.Items, 1)
}

func FuzzHints(f *testing.F) {
	f.Add("L11:w1:k")
	f.Add("L11:i1:31:21:k1:01:t1:b1:10:1:11:u1:t")
	f.Fuzz(func(t *testing.T, payload string) {
		for _, h := range parseHints(payload) {
			if h.Wake == "" {
				require.NoError(t, h.Item.Check())
			}
			require.Less(t, len(h.Wake)+len(h.Item.Value)+len(h.Item.Token)+len(h.Item.Before), len(payload))
		}
	})
}

func TestSlotsOfANode(t *testing.T) {
	epoch, own, err := ownSlots("a 127.0.0.1:1@2,host master - 0 1 1 connected 9\n" +
		"b 127.0.0.1:3@4 myself,master - 0 0 2 connected 0-7 9 [8->-a] [10-<-a]\n")
	require.NoError(t, err)
	require.Equal(t, "2", epoch)
	require.Equal(t, []string{"0-7", "9", "[8->-a]", "[10-<-a]"}, own)
	for _, c := range []struct {
		is       string
		from, to int
		moving   bool
	}{{"0-7", 0, 7, false}, {"9", 9, 9, false}, {"[8->-a]", 8, 8, true}, {"[10-<-a]", 10, 10, true}} {
		from, to, moving, err := slotRange(c.is)
		require.NoError(t, err)
		require.Equal(t, []any{c.from, c.to, c.moving}, []any{from, to, moving})
	}
	for _, nonsense := range []string{"", "x", "-", "1-x", "[", "[x->-a]"} {
		_, _, _, err := slotRange(nonsense)
		require.ErrorIs(t, err, errReply, nonsense)
	}
	_, _, err = ownSlots("a 127.0.0.1:1@2 master - 0 1 1 connected 9\n")
	require.ErrorIs(t, err, errReply)
}

func TestNamesOfEntries(t *testing.T) {
	n := newNames("app*", "v1")
	for key, name := range map[string]string{"k": "k", "k\x1fgzip": "k", "k\x1fa\x1fb": "k", "": "", "{a}:e:": "{a}:e:"} {
		got, ok := n.nameOf(n.entry(7, "v:1", key))
		require.True(t, ok)
		require.Equal(t, name, got)
	}
	for _, other := range []string{"", "app*", "app*:{07}:e:", "app*:{07}:e:v1", "app*:{07}:l:v1\x1fk", "app*:{007}:e:v1\x1fk", "appx:{07}:e:v1\x1fk"} {
		_, ok := n.nameOf(other)
		require.False(t, ok, other)
	}
	require.Equal(t, `app\*:{??}:e:*`, n.entries("*"))
	require.Equal(t, `app\*:{??}:e:*`+"\x1f"+`user:*`, n.entries("user:*"))
}

func TestHowManyKeysAServerSaysThatItHas(t *testing.T) {
	require.EqualValues(t, 17, keysOf("keys=17,expires=2,avg_ttl=0"))
	for _, none := range []string{"", "keys=", "keys=x,expires=1", "keys=-1", "x"} {
		require.Zero(t, keysOf(none), none)
	}
}

func TestDurationsAreNeverCutToNothing(t *testing.T) {
	for d, want := range map[time.Duration]int64{
		0: 0, 1: 1, time.Millisecond: 1, time.Millisecond + 1: 2, -time.Second: -1000, math.MaxInt64: 9223372036855,
	} {
		require.Equal(t, want, ms(d))
	}
	require.Equal(t, time.Second, span(1000))
	require.Zero(t, span(-1))
	require.Positive(t, span(math.MaxInt64))
}

func TestAFillAfterItsLimitIsRefused(t *testing.T) {
	_, client := single(t)
	s := open(t, client, layout("v1"))
	ctx := within(t, 5*time.Second)
	for _, limit := range []int64{-1, 1} {
		l, err := s.Acquire(ctx, "k", "", nil, time.Minute)
		require.NoError(t, err)
		f := fillOf(s, l, "x")
		f.NotAfter = limit
		stored, err := s.Fill(ctx, l, f)
		require.NoError(t, err)
		require.False(t, stored)
	}
}

func TestBegunIsTheTimeInAnErasToken(t *testing.T) {
	for token, want := range map[string]int64{
		"":                                    0,
		"nonce":                               0,
		"nonce.12":                            0,
		"nonce.12.1700000000123456":           1700000000123456,
		"nonce.12.1700000000123456.3":         1700000000123456,
		"a.name/program.7.1700000000123456.1": 1700000000123456,
		"a.b.c.d":                             0,
		".1700000000123456":                   1700000000123456,
		"1.2.99999999999999999999999999":      0,
	} {
		require.Equal(t, want, begunAt(token), "%q", token)
	}
}
