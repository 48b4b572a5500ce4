package fast

import (
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/valyala/fasthttp"

	"github.com/larderhq/larder/core/httpcache"
)

type response = fasthttp.ResponseHeader

func field(mode httpcache.Mode, name string, values ...string) httpcache.Field {
	return httpcache.Field{Name: name, Values: values, Mode: mode}
}

const (
	set          = httpcache.Set
	add          = httpcache.Append
	absent       = httpcache.Absent
	plain        = "text/plain; charset=utf-8"
	json         = "application/json"
	contentType  = fasthttp.HeaderContentType
	cacheControl = fasthttp.HeaderCacheControl
)

func TestOwn(t *testing.T) {
	for name, c := range map[string]struct {
		outer, handler func(h *response)
		empty          bool // no content
		own            []httpcache.Field
	}{
		"nothing": {empty: true, own: []httpcache.Field{}},
		"sorted, canonical, all lines in order": {
			handler: func(h *response) {
				h.Add("x-b", "2")
				h.Add("X-B", "1")
				h.Set("ETAG", `"e"`)
				h.Set(contentType, json)
			},
			own: []httpcache.Field{field(set, contentType, json), field(set, "Etag", `"e"`), field(set, "X-B", "2", "1")},
		},
		"names as they come": {
			handler: func(h *response) {
				h.DisableNormalizing()
				h.Add("cache-control", "no-store")
				h.Add("Cache-Control", "private")
			},
			empty: true,
			own:   []httpcache.Field{field(set, cacheControl, "no-store", "private")},
		},
		"outer left alone": {
			outer: func(h *response) { h.Set("X-Outer", "1"); h.Set(contentType, json); h.SetServer("s") },
			own:   []httpcache.Field{},
		},
		"replaced": {
			outer:   func(h *response) { h.Add("X", "1"); h.Add("X", "2"); h.Set(contentType, plain) },
			handler: func(h *response) { h.Del("X"); h.Set("X", "2"); h.Set(contentType, json) },
			own:     []httpcache.Field{field(set, contentType, json), field(set, "X", "2")},
		},
		"lines added": {
			outer:   func(h *response) { h.Add("Link", "1"); h.Set(contentType, json) },
			handler: func(h *response) { h.Add("Link", "2"); h.Add("Link", "3") },
			own:     []httpcache.Field{field(add, "Link", "2", "3")},
		},
		"added to the line, as c.Append and fasthttp do": {
			outer: func(h *response) { h.Set("Vary", "Origin"); h.Set("Link", "1"); h.Set(contentType, json) },
			handler: func(h *response) {
				h.Set("Vary", "Origin, Accept")
				h.Set("Link", "1,2")
			},
			own: []httpcache.Field{field(add, "Link", "2"), field(add, "Vary", "Accept")},
		},
		"removed": {
			outer:   func(h *response) { h.Set("B", "1"); h.Set("Y", "1") },
			handler: func(h *response) { h.Del("B"); h.Del("Y"); h.Set(contentType, json); h.Set("X", "1") },
			own: []httpcache.Field{
				field(httpcache.Remove, "B"), field(set, contentType, json), field(set, "X", "1"), field(httpcache.Remove, "Y"),
			},
		},
		"type removed, no content": {
			outer:   func(h *response) { h.Set(contentType, json) },
			handler: func(h *response) { h.Del(contentType) },
			empty:   true,
			own:     []httpcache.Field{field(httpcache.Remove, contentType)},
		},
		"default type":           {own: []httpcache.Field{field(absent, contentType, plain)}},
		"default type, unseen":   {empty: true, own: []httpcache.Field{}},
		"default type, stated":   {handler: func(h *response) { h.Set(contentType, plain) }, own: []httpcache.Field{field(set, contentType, plain)}},
		"default type, by outer": {outer: func(h *response) { h.Set(contentType, plain) }, own: []httpcache.Field{}},
		"default type in place of outer's": {
			outer:   func(h *response) { h.Set(contentType, json) },
			handler: func(h *response) { h.Del(contentType) },
			own:     []httpcache.Field{field(set, contentType, plain)},
		},
		"no type": {
			handler: func(h *response) { h.SetNoDefaultContentType(true) },
			own:     []httpcache.Field{{Name: contentType}},
		},
		"no type in the whole app": {
			outer: func(h *response) { h.SetNoDefaultContentType(true) },
			own:   []httpcache.Field{},
		},
		"fasthttp's own": {
			handler: func(h *response) {
				h.Set("Date", "then")
				h.Set("Content-Length", "100")
				h.SetContentLength(-1)
			},
			empty: true,
			own:   []httpcache.Field{},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var h, before response
			if c.outer != nil {
				c.outer(&h)
			}
			h.CopyTo(&before)
			if c.handler != nil {
				c.handler(&h)
			}
			require.Equal(t, c.own, newHeader(&h, &before, !c.empty).Own())
		})
	}
}

func TestHeaderValues(t *testing.T) {
	var h, before response
	h.Set("Server", "s")
	h.CopyTo(&before)
	h.Set("cache-control", "no-store")
	c := fiberCookie("a", "1")
	h.SetCookie(c)
	h.Add("Set-Cookie", "b=2")
	h.SetConnectionClose()
	require.NoError(t, h.AddTrailer("X-Sum"))
	v := newHeader(&h, &before, true)
	h.Reset() // it is a copy
	for name, want := range map[string][]string{
		"Cache-Control": {"no-store"}, "Set-Cookie": {"a=1", "b=2"}, "Connection": {"close"},
		"Trailer": {"X-Sum"}, "Server": {"s"}, "Content-Type": {plain},
		"Content-Length": nil, "Transfer-Encoding": nil, "Date": nil,
	} {
		require.Equal(t, want, v.Values(name), name)
	}
}

func fiberCookie(key, value string) *fasthttp.Cookie {
	c := new(fasthttp.Cookie)
	c.SetKey(key)
	c.SetValue(value)
	return c
}

func TestSetFields(t *testing.T) {
	for name, c := range map[string]struct {
		outer  func(h *response)
		fields []httpcache.Field
		want   map[string][]string
	}{
		"set": {
			outer:  func(h *response) { h.Add("X", "1"); h.Add("X", "2") },
			fields: []httpcache.Field{field(set, "X", "3", "4")},
			want:   map[string][]string{"X": {"3", "4"}},
		},
		"append": {
			outer:  func(h *response) { h.Add("X", "1") },
			fields: []httpcache.Field{field(add, "X", "3", "4"), field(add, "Y", "5")},
			want:   map[string][]string{"X": {"1", "3", "4"}, "Y": {"5"}},
		},
		"absent": {
			outer:  func(h *response) { h.Add("X", "1") },
			fields: []httpcache.Field{field(absent, "X", "2"), field(absent, "Y", "3")},
			want:   map[string][]string{"X": {"1"}, "Y": {"3"}},
		},
		"default type after outer's": {
			outer:  func(h *response) { h.SetContentType(json) },
			fields: []httpcache.Field{field(absent, contentType, plain)},
			want:   map[string][]string{contentType: {json}},
		},
		"default type where the app has none": {
			outer:  func(h *response) { h.SetNoDefaultContentType(true) },
			fields: []httpcache.Field{field(absent, contentType, plain)},
			want:   map[string][]string{contentType: {plain}},
		},
		"no type": {
			outer:  func(h *response) { h.SetContentType(json) },
			fields: []httpcache.Field{{Name: contentType}},
			want:   map[string][]string{contentType: nil},
		},
		"removed": {
			outer:  func(h *response) { h.Set("X", "1"); h.Set(contentType, json) },
			fields: []httpcache.Field{field(httpcache.Remove, contentType), field(httpcache.Remove, "X")},
			want:   map[string][]string{"X": nil, contentType: {plain}},
		},
		"length": {
			fields: []httpcache.Field{field(set, "Content-Length", "7"), field(set, "Content-Length", "8")},
			want:   map[string][]string{"Content-Length": {"8"}},
		},
		"length where there is none": {
			outer:  func(h *response) { h.SetStatusCode(204) },
			fields: []httpcache.Field{field(set, "Content-Length", "0")},
			want:   map[string][]string{"Content-Length": {""}}, // fasthttp for none
		},
	} {
		t.Run(name, func(t *testing.T) {
			var h response
			if c.outer != nil {
				c.outer(&h)
			}
			setFields(&h, c.fields)
			for name, want := range c.want {
				var got []string
				for _, v := range h.PeekAll(name) {
					got = append(got, string(v))
				}
				require.Equal(t, want, got, name)
			}
		})
	}
}
