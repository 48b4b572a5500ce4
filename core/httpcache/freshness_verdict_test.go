package httpcache

import (
	"net/http"
	"slices"
	"time"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/httpcache/internal/field"
)

// verdict is what the model makes of a response. Times count from when the
// response came.
type verdict struct {
	store    bool
	fresh    time.Duration // for how long; negative: it was stale already
	age      time.Duration // how old it was
	stale    time.Duration // how long after that it is answered while it is refreshed
	fallback time.Duration // and in place of an error

	mustValidate bool // before any use
	strict       bool // once it is stale
	part         bool
	validator    bool // there is something to validate it by
}

// judge is sections 4.2.3 and 4.2.4 and RFC 5861.
func (o *drawn) judge() (v verdict) {
	cc := o.directives()
	lifetime, stated, timed := o.lifetime()
	v.validator = (field.Valid(o.etag) || o.lastModified.valid) && !o.class.HTTP.NoValidation
	v.part, v.mustValidate = o.status == http.StatusPartialContent, cc.whole("no-cache")
	_, sMaxAge := cc.seconds("s-maxage")
	v.strict = v.mustValidate || cc.forbids("must-revalidate") || cc.forbids("proxy-revalidate") || sMaxAge

	if o.ageThere && !o.ageBroken {
		v.age = time.Duration(o.age) * time.Second
	}
	// On purpose: what is not stated is the cache's own, and counts from when the
	// response came. Whole seconds, as Date has no others.
	if stated && o.date.there && o.date.valid {
		v.age = max(v.age, between(o.date.at, o.now).Truncate(time.Second))
	}
	// On purpose: no lifetime is longer than a year, so that of an age no more counts.
	year := func(d time.Duration) time.Duration { return max(-core.MaxDuration, min(d, core.MaxDuration)) }
	v.fresh = year(year(lifetime) - year(v.age))
	if v.mustValidate || o.ageBroken {
		v.fresh = min(v.fresh, 0) // On purpose: section 5.1 would ignore a malformed Age
	}
	// On purpose: what is stale from the beginning is worth storing only to validate
	// it, and then no failure; what says no-cache and nothing else, only where a
	// lifetime could be guessed, and no part.
	guessable := slices.Contains(heuristically, o.status) && !v.part
	toValidate := v.validator && o.status < 500 && (timed || v.mustValidate && guessable)
	v.store = o.mayStore() && (timed && v.fresh > 0 || toValidate)

	v.age += o.delay
	if stated {
		v.fresh -= o.delay // On purpose: also where Date shows the delay already
	}
	if v.strict {
		return v
	}
	v.stale, v.fallback = o.class.StaleWhileRevalidate, o.class.StaleIfError
	if (o.status == http.StatusNotFound || o.status == http.StatusGone) && !stated {
		v.stale, v.fallback = 0, 0 // the class's windows are not for what is not there
	}
	if n, ok := cc.seconds("stale-while-revalidate"); ok {
		v.stale = min(time.Duration(n)*time.Second, core.MaxDuration)
	}
	if n, ok := cc.seconds("stale-if-error"); ok {
		v.fallback = min(time.Duration(n)*time.Second, core.MaxDuration)
	}
	return v
}

// asked is the Cache-Control of a later request, as far as the class honours it.
type asked struct {
	cc     []directive
	pragma bool
	class  core.Class
}

func (q *asked) honoured() (l directiveList) {
	honours := func(name string) bool {
		list := q.class.HTTP.RequestDirectives
		for _, n := range list {
			if n == name {
				return true
			}
		}
		return list == nil
	}
	cc := q.cc
	if cc == nil && q.pragma {
		cc = []directive{{name: "no-cache"}}
	}
	for _, d := range cc {
		if honours(d.name) {
			l.list = append(l.list, d)
		}
	}
	return l
}

// answers reports whether the stored response may be answered without validation
// at the time t: section 4, section 5.2.1 and RFC 5861.
func (v *verdict) answers(t time.Duration, q *asked) bool {
	cc := q.honoured()
	if v.mustValidate || cc.whole("no-cache") {
		return false
	}
	if n, ok := cc.seconds("min-fresh"); ok && v.fresh-t < time.Duration(n)*time.Second {
		return false // On purpose: also beside a max-stale
	}
	isFresh := t < v.fresh // section 4.2
	maxAge, aged := cc.seconds("max-age")
	_, wanted := cc.seconds("min-fresh")
	young := !aged || v.age+t <= time.Duration(maxAge)*time.Second
	if isFresh && young {
		return true
	}
	if !isFresh && v.strict { // section 4.2.4
		return false
	}
	// On purpose: a max-age of the request is a shorter lifetime, so that max-stale
	// is how far beyond that, too.
	over := t - v.fresh
	if aged {
		over = max(over, v.age+t-time.Duration(maxAge)*time.Second)
	}
	limit, limited := time.Duration(0), false
	anything := false
	for _, d := range cc.named("max-stale") {
		if d.form == bare {
			anything = true
			continue
		}
		n, _ := directiveList{list: []directive{d}}.seconds("max-stale")
		if s := time.Duration(n) * time.Second; !limited || s < limit {
			limit, limited = s, true
		}
	}
	switch {
	case limited && over <= limit, anything && !limited:
		return true
	case aged, wanted: // section 5.2.1.1: without max-stale nothing stale is wanted
		return false
	}
	// On purpose: max-stale does not shorten the response's own window.
	return t < v.fresh+v.stale
}

// replacesError reports whether it stands in for an error at the time t: RFC 5861
// section 4, and the window of section 3, in which errors are not seen at all. On
// purpose a part never does.
func (v *verdict) replacesError(t time.Duration) bool {
	window := max(v.stale, v.fallback)
	return !v.strict && !v.part && window > 0 && t < v.fresh+window
}
