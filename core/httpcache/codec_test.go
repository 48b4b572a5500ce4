package httpcache

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/httpcache/internal/field"
)

func TestValuesAreTheSameAfterEncodingAndDecoding(t *testing.T) {
	for name, value := range map[string]any{
		"smallest response": &response{status: 200, body: []byte{}},
		"response": &response{
			status: 301, own: 4,
			validators:     validators{initialAge: 7, etag: `"x"`, lastModified: time.Unix(1700000000, 0).UTC(), date: time.Unix(1700000001, 0).UTC()},
			reuse:          reuse{forError: time.Minute, validate: true, strict: true, forAuthorized: true, forCookies: true},
			identification: identification{tags: []string{"t:a", "g:b"}, vary: []string{"Accept", "Accept-Encoding"}, key: "k\x1f\x00\xff"},
			body:           []byte(strings.Repeat("body\x00", 1000)),
			fields: []Field{
				{Name: "Link", Values: []string{"<a>", "<b>"}, Mode: Append},
				{Name: "Last-Modified", Values: []string{"Tue, 14 Nov 2023 22:13:20 GMT"}},
				{Name: "Date", Values: []string{"Tue, 14 Nov 2023 22:13:21 GMT"}},
				{Name: "Server", Mode: Remove}, {Name: "Empty", Values: []string{""}}, {Name: "Link", Values: []string{"<c>"}, Mode: Join},
			},
		},
		"old response": &response{status: 999, validators: validators{initialAge: math.MaxInt64}, body: []byte("x")},
		"part":         &response{status: 206, part: &partial{Span: field.Span{First: 3, Last: 5}, whole: 10, asked: "bytes=3-5"}, body: []byte("abc")},
		"encoded": func() *response {
			r := &response{
				status: 200, body: []byte("abc"), validators: validators{etag: `"x"`},
				coded:  &encodings{encoded: []encodedBody{{coding: "zstd", body: []byte("z")}, {coding: "gzip", body: []byte("g")}}},
				fields: []Field{{Name: "Etag", Values: []string{`"x"`}}, {Name: "Content-Length", Values: []string{"3"}}},
			}
			r.read()
			r.describeEncoded()
			return r
		}(),
		"index":         &index{lists: [][]string{{"A", "Accept", "B"}, {"A", "B"}, {"Accept"}}},
		"implied index": &index{lists: [][]string{{"Accept-Encoding"}}, implied: true},
		"mark":          uncacheable{},
	} {
		t.Run(name, func(t *testing.T) {
			payload, ok := codec{}.Encode(value)
			require.True(t, ok)
			if r, is := value.(*response); is {
				r.born = 42
				r.read()
			}
			got, size, ok := codec{}.Decode(payload, 42)
			require.True(t, ok)
			require.Equal(t, value, got)
			if r, is := value.(*response); is {
				require.Equal(t, r.size(), size)
			}
			for n := range len(payload) {
				if r, is := value.(*response); is && n >= len(payload)-len(r.body) {
					break // a shorter body is another value: the tier's checksum sees to that
				}
				_, _, ok := codec{}.Decode(payload[:n], 0)
				require.False(t, ok, "cut to %d bytes", n)
			}
		})
	}
	_, ok := codec{}.Encode("another")
	require.False(t, ok)
}

func TestAMalformedIndexIsNotDecoded(t *testing.T) {
	payload, _ := codec{}.Encode(&index{lists: [][]string{{"A"}}, variants: []variant{{key: "v"}}})
	require.Equal(t, "l\x00\x01\x01\x01A", string(payload))
	for _, other := range []string{
		string(payload) + "e", string(payload) + "\x00", "l\x02\x01\x01\x01A", "l\x00\x00", "l\x01\x00",
		"i\x01\x01\x01A\x01\x01v", "i\x01\x01\x01A\x01\x01ve", "l\x00\x09" + strings.Repeat("\x01\x01A", 9),
	} {
		_, _, ok := codec{}.Decode([]byte(other), 0)
		require.False(t, ok, "%q", other)
	}
}

func FuzzDecodeValue(f *testing.F) {
	for _, v := range []any{
		&response{status: 200, validators: validators{etag: "e"}, identification: identification{key: "k", vary: []string{"A"}}, fields: []Field{{Name: "A", Values: []string{"b"}}}, body: []byte("body")},
		&index{lists: [][]string{{"A"}}}, &index{lists: [][]string{{"A", "B"}, {"A"}, nil}, implied: true}, uncacheable{},
	} {
		payload, _ := codec{}.Encode(v)
		f.Add(payload)
	}
	f.Add([]byte("i\x01\x01\x01A\x01\x01ve"))
	f.Add([]byte("l\x01\x01\x01\x01Ae"))
	f.Add([]byte("r\x00\xc8\x01\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))
	f.Fuzz(func(t *testing.T, payload []byte) {
		value, _, ok := codec{}.Decode(payload, 7)
		if !ok {
			return
		}
		again, ok := codec{}.Encode(value)
		require.True(t, ok)
		same, _, ok := codec{}.Decode(again, 7)
		require.True(t, ok)
		require.Equal(t, value, same)
	})
}
