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
	Reads    func(r R, content []byte) bool
}

// WriteRouteConfig is the WriteRoute of an adapter, as RouteConfig is its Route.
type WriteRouteConfig[R any] struct {
	Cache    *core.Cache
	Class    string
	Tags     []string
	Identity func(R) (id string, ok bool)
}

// RouteMiddleware returns a framework's middleware for a cached route, or a
// *core.ConfigError. request returns the framework's request of an exchange that the
// adapter has made, and wrap makes the middleware that calls serve for each request.
func RouteMiddleware[R, M any](c RouteConfig[R], request func(Exchange) R, wrap func(serve func(Exchange) error) M) (M, error) {
	config := Config{Cache: c.Cache, Class: c.Class, Tags: c.Tags, Identity: ofExchange(c.Identity, request)}
	if c.Skip != nil {
		config.Skip = func(ex Exchange) bool { return c.Skip(request(ex)) }
	}
	if c.Reads != nil {
		config.Reads = func(ex Exchange, content []byte) bool { return c.Reads(request(ex), content) }
	}
	rt, err := NewRoute(config)
	if err != nil {
		var none M
		return none, err
	}
	return wrap(rt.Serve), nil
}

// WriteMiddleware returns a framework's middleware for an invalidating route, or a
// *core.ConfigError. request and wrap are as in RouteMiddleware.
func WriteMiddleware[R, M any](c WriteRouteConfig[R], request func(Exchange) R, wrap func(serve func(Exchange) error) M) (M, error) {
	iv, err := NewInvalidator(WriteConfig{Cache: c.Cache, Class: c.Class, Tags: c.Tags, Identity: ofExchange(c.Identity, request)})
	if err != nil {
		var none M
		return none, err
	}
	return wrap(iv.Serve), nil
}

// ofExchange makes of a function of a framework's request one of an exchange.
func ofExchange[R any](identity func(R) (string, bool), request func(Exchange) R) func(Exchange) (string, bool) {
	if identity == nil {
		return nil
	}
	return func(ex Exchange) (string, bool) { return identity(request(ex)) }
}

// PerUser returns the Identity of a route that must have one. It panics with a
// *core.ConfigError if that is nil.
func PerUser[R any](identity func(R) (id string, ok bool)) func(R) (id string, ok bool) {
	if identity == nil {
		panic(&core.ConfigError{Field: "identity", Value: nil, Allowed: "a function that returns the user of a request"})
	}
	return identity
}

// Must returns a middleware, or panics with the error that making it has returned.
func Must[M any](middleware M, err error) M {
	if err != nil {
		panic(err)
	}
	return middleware
}
