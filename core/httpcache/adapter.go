package httpcache

import "github.com/larderhq/larder/core"

// RouteConfig is the Route of an adapter whose framework's requests have type R. An
// adapter's Route has the same fields, so that it converts to a RouteConfig.
type RouteConfig[R any] struct {
	Cache    *core.Cache
	Class    string
	Tags     []string
	Identity func(R) (id string, ok bool)
	Skip     func(R) bool
}

// WriteRouteConfig is the WriteRoute of an adapter.
type WriteRouteConfig struct {
	Cache *core.Cache
	Class string
	Tags  []string
}

// RouteMiddleware returns a framework's middleware for a cached route, or a
// *core.ConfigError. request returns the framework's request of an exchange that the
// adapter has made, and wrap makes the middleware that calls serve for each request.
func RouteMiddleware[R, M any](c RouteConfig[R], request func(Exchange) R, wrap func(serve func(Exchange) error) M) (M, error) {
	config := Config{Cache: c.Cache, Class: c.Class, Tags: c.Tags}
	if c.Identity != nil {
		config.Identity = func(ex Exchange) (string, bool) { return c.Identity(request(ex)) }
	}
	if c.Skip != nil {
		config.Skip = func(ex Exchange) bool { return c.Skip(request(ex)) }
	}
	rt, err := NewRoute(config)
	if err != nil {
		var none M
		return none, err
	}
	return wrap(rt.Serve), nil
}

// WriteMiddleware returns a framework's middleware for an invalidating route, or a
// *core.ConfigError. wrap is as in RouteMiddleware.
func WriteMiddleware[M any](c WriteRouteConfig, wrap func(serve func(Exchange) error) M) (M, error) {
	iv, err := NewInvalidator(c.Cache, c.Class, c.Tags)
	if err != nil {
		var none M
		return none, err
	}
	return wrap(iv.Serve), nil
}

// Must returns a middleware, or panics with the error that making it has returned.
func Must[M any](middleware M, err error) M {
	if err != nil {
		panic(err)
	}
	return middleware
}
