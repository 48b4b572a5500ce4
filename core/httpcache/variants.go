package httpcache

import (
	"slices"
	"time"

	"github.com/larderhq/larder/core/internal/local"
)

// addVariant puts a variant into the resource's index. The index outlives the
// responses that have varied. A response that did not vary does not prolong it:
// what a resource once varied on is forgotten when no such response is left.
func (rt *routeSnapshot) addVariant(resource string, r *response, d *decision) {
	now := rt.engine.Now()
	var next *index
	var gone []variant
	var keep int64
	rt.engine.Amend(resource, func(old local.Lasting, until int64) (local.Lasting, int64) {
		ix, _ := old.(*index)
		if ix == nil {
			ix = &index{}
		}
		next, gone = ix.with(r.vary, variant{key: r.key, own: true}, rt.class.HTTP.MaxVariants)
		said := slices.Contains(d.vary, acceptEncoding) && !d.implied
		next.implied = !said && (ix.implied || !ix.has(acceptEncoding)) && next.has(acceptEncoding)
		if !ix.Covers(next) || next.published == nil {
			next.published = &published{}
		}
		keep = until
		if life := &d.lifetime; len(d.vary) > 0 || keep == 0 {
			keep = max(keep, now+int64(max(life.Fresh+max(life.Stale, life.Fallback), time.Minute)))
		}
		return next, keep
	})
	rt.drop(gone)
	if next != nil {
		rt.publish(resource, next, now, keep)
	}
}

// publish puts the lists of an index into the shared tier, unless that keeps them for as
// long as the variants already. It keeps them a quarter longer, so that not each variant
// prolongs them.
func (rt *routeSnapshot) publish(resource string, ix *index, now, keep int64) {
	until := ix.published.until.Load()
	longer := keep + (keep-now)/4
	if until >= keep || !ix.published.until.CompareAndSwap(until, longer) {
		return
	}
	rt.engine.Learn(resource, ix, time.Duration(longer-now), func(ok bool) {
		if !ok { // the next variant tries again
			ix.published.until.CompareAndSwap(longer, 0)
		}
	})
}

// adopt counts a variant that has come from the shared tier.
func (rt *routeSnapshot) adopt(resource string, en *local.Entry) {
	r, ok := en.Value.(*response)
	if !ok || r.part != nil || r.key == resource {
		return
	}
	var gone []variant
	rt.engine.Amend(resource, func(old local.Lasting, until int64) (local.Lasting, int64) {
		ix, _ := old.(*index)
		if ix == nil || slices.ContainsFunc(ix.variants, func(v variant) bool { return v.key == r.key }) {
			return nil, 0
		}
		next, rest := ix.with(ix.lists[0], variant{key: r.key}, rt.class.HTTP.MaxVariants)
		next.implied, gone = ix.implied, rest
		return next, until
	})
	rt.drop(gone)
}

// drop removes variants beyond the bound. The variants of another instance stay in the
// shared tier: that instance counts them.
func (rt *routeSnapshot) drop(gone []variant) {
	var own []string
	for _, v := range gone {
		if v.own {
			own = append(own, v.key)
			continue
		}
		rt.engine.Drop(v.key)
	}
	rt.engine.Forget(own)
}
