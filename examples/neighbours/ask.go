package main

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

// step is one request of a script.
type step struct {
	name    string
	method  string
	path    string
	fields  []string // name, value, …
	visitor string   // whose cookies are sent and kept; "": no cookies

	// validate sends the last ETag of the path at this site as If-None-Match.
	validate bool
}

// answer is a site's answer to a step.
type answer struct {
	status  int
	fields  http.Header
	content string // after Content-Encoding has been taken off
	encoded bool
	part    bool   // a part of the encoded content that this site gave before
	err     string // a broken answer: the content cannot be read or decoded
}

// client asks one site the steps of a script, in order.
type client struct {
	site    *site
	http    *http.Client
	etags   map[string]string
	encoded map[string]string            // by path, the last whole content as it was encoded
	cookies map[string]map[string]string // by visitor and name
}

func newClient(s *site) *client {
	return &client{
		site: s,
		http: &http.Client{
			Transport:     &http.Transport{DisableCompression: true},
			Timeout:       20 * time.Second,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		etags:   map[string]string{},
		encoded: map[string]string{},
		cookies: map[string]map[string]string{},
	}
}

func (c *client) close() { c.http.CloseIdleConnections() }

func (c *client) ask(st step) answer {
	r, err := c.request(st)
	if err != nil {
		return answer{err: err.Error()}
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return answer{err: err.Error()}
	}
	defer func() { _ = resp.Body.Close() }()
	a := answer{status: resp.StatusCode, fields: resp.Header}
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		a.err = "content breaks off: " + err.Error()
		return a
	}
	c.keep(st, resp)
	if resp.ContentLength >= 0 {
		a.fields.Set("Content-Length", fmt.Sprint(resp.ContentLength))
	}
	coding := resp.Header.Get("Content-Encoding")
	a.encoded = coding != ""
	if len(raw) == 0 {
		return a
	}
	if whole := c.encoded[st.path]; a.encoded && a.status == http.StatusPartialContent && len(whole) >= 1300 && string(raw) == whole[100:1300] {
		a.part = true
		return a
	}
	if a.encoded && a.status == http.StatusOK {
		c.encoded[st.path] = string(raw)
	}
	plain, err := decode(coding, raw)
	if err != nil {
		a.err = "content does not decode: " + err.Error()
		return a
	}
	a.content = string(plain)
	return a
}

func (c *client) request(st step) (*http.Request, error) {
	r, err := http.NewRequest(st.method, c.site.url+st.path, http.NoBody)
	if err != nil {
		return nil, err
	}
	for i := 0; i+1 < len(st.fields); i += 2 {
		r.Header.Add(st.fields[i], st.fields[i+1])
	}
	if tag := c.etags[st.path]; st.validate && tag != "" {
		r.Header.Set("If-None-Match", tag)
	}
	for name, value := range c.cookies[st.visitor] {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	return r, nil
}

// keep remembers the validator and the cookies of an answer.
func (c *client) keep(st step, resp *http.Response) {
	if tag := resp.Header.Get("ETag"); tag != "" && resp.StatusCode == http.StatusOK {
		c.etags[st.path] = tag
	}
	if st.visitor == "" {
		return
	}
	if c.cookies[st.visitor] == nil {
		c.cookies[st.visitor] = map[string]string{}
	}
	for _, k := range resp.Cookies() {
		c.cookies[st.visitor][k.Name] = k.Value
	}
}

// decode removes one content coding. Trailing bytes after the encoded content are an error.
func decode(coding string, raw []byte) ([]byte, error) {
	in := bytes.NewReader(raw)
	var r io.Reader
	switch coding {
	case "":
		return raw, nil
	case "gzip":
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, err
		}
		z.Multistream(false)
		r = z
	case "deflate":
		r = flate.NewReader(in)
	case "br":
		r = brotli.NewReader(in)
	case "zstd":
		z, err := zstd.NewReader(in)
		if err != nil {
			return nil, err
		}
		defer z.Close()
		r = z
	default:
		return nil, fmt.Errorf("unknown coding %q", coding)
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	if in.Len() > 0 {
		return nil, fmt.Errorf("%d bytes behind the encoded content", in.Len())
	}
	if len(plain) > 2 && plain[0] == 0x1f && plain[1] == 0x8b {
		return nil, fmt.Errorf("a second coding under one Content-Encoding: %s", coding)
	}
	return plain, nil
}
