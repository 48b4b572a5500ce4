package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// peer is a cache of others.
type peer struct {
	name    string
	module  string
	setting string // beyond its README; "": none
	open    func(*site) (app, error)
}

// framework has the contenders of one framework.
type framework struct {
	name   string
	larder func(*site) (app, error) // nil: there is no adapter
	bare   func(*site) (app, error)
	peers  []peer
}

func frameworks() []framework {
	return []framework{netHTTP(), ginFramework(), echoFramework(), fiberV2(), fiberV3()}
}

// contender is one row of a table.
type contender struct {
	name    string
	module  string // "" for handlers without a cache
	setting string
	app     app
	site    *site
	differs string // from the handler, in its answers
}

// Names of contenders.
const (
	ours = "Larder"
	same = "same"
	bare = "bare"
)

// contenders opens the contenders of a framework for bodies of a size, with the page in each
// cache. The last one is "bare", and "same" is before it where Larder has an adapter. close
// ends them.
func contenders(f framework, size int, peers bool) (list []contender, close func() error, err error) {
	var sites []*site
	close = func() error {
		var errs []error
		for _, s := range sites {
			errs = append(errs, s.close())
		}
		return errors.Join(errs...)
	}
	add := func(c contender, fields [][2]string, open func(*site) (app, error)) (err error) {
		s := newSite(size, fields)
		sites = append(sites, s)
		if c.name == ours {
			if err := s.open(); err != nil {
				return err
			}
		}
		if c.app, err = open(s); err != nil {
			return err
		}
		c.site = s
		list = append(list, c)
		if c.name == same || c.name == bare {
			return nil
		}
		return c.fill(s)
	}
	reference := handlerFields()
	if f.larder != nil {
		if err := add(contender{name: ours}, handlerFields(), f.larder); err != nil {
			return nil, close, err
		}
		reference = fieldsOf(list[0].app.get(pageTarget))
	}
	if peers {
		for _, p := range f.peers {
			if err := add(contender{name: p.name, module: p.module, setting: p.setting}, handlerFields(), p.open); err != nil {
				return nil, close, fmt.Errorf("%s: %w", p.name, err)
			}
		}
	}
	if f.larder != nil {
		if err := add(contender{name: same}, reference, f.bare); err != nil {
			return nil, close, err
		}
	}
	if err := add(contender{name: bare}, handlerFields(), f.bare); err != nil {
		return nil, close, err
	}
	handler := list[len(list)-1].app
	for i := range list {
		if c := &list[i]; c.name != same && c.name != bare {
			c.differs = strings.Join(differences(c.app, handler), "; ")
		}
	}
	return list, close, nil
}

// fill requests the page until it is in the contender's cache.
func (c *contender) fill(s *site) error {
	for range 2 {
		c.app.get(pageTarget)
	}
	runs := s.runs.Load()
	if a := c.app.get(pageTarget); s.runs.Load() != runs || !bytes.Equal(a.body, s.body) {
		return fmt.Errorf("%s: the third request is no hit, or has another body: status %d, %v, %d bytes", c.name, a.status, a.fields, len(a.body))
	}
	return nil
}

// differences lists where the answers of a cache differ from those of its handler.
func differences(cache, handler app) (list []string) {
	list = append(list, changed(cache.get(pageTarget), handler.get(pageTarget))...)
	again := func(name string) (cached, right answer) {
		target := "/probe/" + name
		cache.get(target)
		return cache.get(target), handler.get(target)
	}
	if a, b := again("status"); a.status != b.status {
		list = append(list, fmt.Sprintf("%d becomes %d", b.status, a.status))
	}
	if a, b := again("lines"); !slices.Equal(a.fields["Link"], b.fields["Link"]) {
		list = append(list, "a repeated field is cut or joined")
	}
	cache.get("/probe/query?id=1")
	if a := cache.get("/probe/query?id=2"); string(a.body) != "id=2" {
		list = append(list, "the query is ignored")
	}
	cache.get("/probe/vary", "Accept-Language", "de")
	if a := cache.get("/probe/vary", "Accept-Language", "fr"); string(a.body) != "fr" {
		list = append(list, "`Vary` is ignored")
	}
	if replaysCookie(cache) {
		list = append(list, "a client gets another's `Set-Cookie`")
	}
	return list
}

// replaysCookie reports whether a client gets the cookie of an earlier one.
func replaysCookie(cache app) bool {
	first := cache.get("/probe/cookie").fields.Get("Set-Cookie")
	return cache.get("/probe/cookie").fields.Get("Set-Cookie") == first
}

// herdSize is the number of concurrent requests for a page that is not cached.
const herdSize = 1000

// herd sends concurrent requests for a page that is not cached and whose handler takes a tenth
// of a second, and returns how often the handler ran.
func (c *contender) herd() int64 {
	var all sync.WaitGroup
	begin := make(chan struct{})
	for range herdSize {
		all.Go(func() {
			<-begin
			c.app.get("/probe/slow")
		})
	}
	close(begin)
	all.Wait()
	return c.site.herd.Load()
}

// changed lists how an answer of a cache differs from the handler's.
func changed(a, b answer) (list []string) {
	if a.status != b.status {
		list = append(list, fmt.Sprintf("status %d", a.status))
	}
	if !bytes.Equal(a.body, b.body) {
		list = append(list, "another body")
	}
	var added []string
	for _, name := range slices.Sorted(maps.Keys(a.fields)) {
		if _, there := b.fields[name]; !there && name != "Content-Length" {
			added = append(added, "`"+name+"`")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(b.fields)) {
		switch values := a.fields[name]; {
		case values == nil && (name == "Date" || http.CanonicalHeaderKey(name) == "Server"):
		case values == nil:
			list = append(list, "without `"+name+"`")
		case !slices.Equal(values, b.fields[name]) && name != "Date":
			list = append(list, "another `"+name+"`")
		}
	}
	if added != nil {
		list = append(list, "adds "+strings.Join(added, ", "))
	}
	return list
}
