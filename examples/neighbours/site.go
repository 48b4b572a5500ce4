package main

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/larderhq/larder/core"
)

// shop is the data of a site's handlers: one product whose text changes with every
// PUT, and nothing else. It counts the runs of the handler that shows it.
type shop struct {
	mu      sync.Mutex
	version int
	runs    int
}

// greetingField is the request field in which session middleware names the visitor to the
// handler. The handler prints it, so that the test sees a page that reaches another visitor.
const greetingField = "X-Session-Greeting"

// text is 4 kB that no compressor halves. The encoded content is thus long enough for a
// range request.
var text = func() string {
	var b strings.Builder
	for i := range 64 {
		fmt.Fprintf(&b, "%x", sha256.Sum256([]byte{byte(i)}))
	}
	return b.String()
}()

// show returns the content of a product, 4 kB of JSON, and whether there is one.
func (s *shop) show(id, greeting string) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runs++
	if id != "1" {
		return `{"error":"not found"}`, false
	}
	return fmt.Sprintf(`{"id":%q,"version":%d,"greeting":%q,"text":%q}`, id, s.version, greeting, text), true
}

func (s *shop) update() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
}

func (s *shop) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.runs
}

// site is one running server and its data.
type site struct {
	url  string
	shop *shop
	stop func()
}

// build starts a site; without a cache the lines of Larder are left out.
type build func(s *shop, cache *core.Cache) (url string, stop func(), err error)

func start(b build, cached bool) (*site, error) {
	s := &shop{version: 1}
	var cache *core.Cache
	if cached {
		var err error
		cache, err = core.New(core.Options{Classes: core.Classes{"page": {TTL: time.Minute, NegativeTTL: time.Minute}}})
		if err != nil {
			return nil, err
		}
	}
	url, stop, err := b(s, cache)
	if err != nil {
		if cache != nil {
			_ = cache.Close()
		}
		return nil, err
	}
	return &site{url: url, shop: s, stop: func() {
		stop()
		if cache != nil {
			_ = cache.Close()
		}
	}}, nil
}
