package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/fibercache"
)

// extensionMethods are those that Fiber refuses by default, of the registry at
// https://www.iana.org/assignments/http-methods, and M-SEARCH, of UPnP.
var extensionMethods = []string{
	"ACL", "BASELINE-CONTROL", "BIND", "CHECKIN", "CHECKOUT", "COPY", "LABEL", "LINK", "LOCK", "M-SEARCH", "MERGE",
	"MKACTIVITY", "MKCALENDAR", "MKCOL", "MKREDIRECTREF", "MKWORKSPACE", "MOVE", "ORDERPATCH", "PROPFIND", "PROPPATCH",
	"QUERY", "REBIND", "REPORT", "SEARCH", "UNBIND", "UNCHECKOUT", "UNLINK", "UNLOCK", "UPDATE", "UPDATEREDIRECTREF",
	"VERSION-CONTROL",
}

func newFiber(o *origin, cache *core.Cache) Server {
	app := fiber.New(fiber.Config{
		DisableStartupMessage:     true,
		DisableDefaultContentType: true,             // none is made up where the origin has stated none
		ReadTimeout:               30 * time.Second, // also how long Shutdown may wait for an idle connection
		RequestMethods:            append(slices.Clone(fiber.DefaultMethods), extensionMethods...),
	})
	app.Use(fibercache.Cache(cache, className), func(c *fiber.Ctx) error {
		if err := o.forward(c); err != nil {
			slog.Warn("proxy: the origin does not answer", "method", c.Method(), "path", c.Path(), "error", err)
			// Nothing has been sent, so that a body that broke off ends like this, too.
			return fiber.NewError(http.StatusBadGateway)
		}
		return nil
	})
	return fiberServer{app}
}

// fiberServer gives Fiber the method names of http.Server.
type fiberServer struct{ app *fiber.App }

func (s fiberServer) Serve(l net.Listener) error         { return s.app.Listener(l) }
func (s fiberServer) Shutdown(ctx context.Context) error { return s.app.ShutdownWithContext(ctx) }

// forwardTimeout bounds a request to the origin, its body included.
const forwardTimeout = time.Minute

// forward is what httputil.ReverseProxy does for net/http, without streams and
// without 1xx, which fasthttp cannot send.
func (o *origin) forward(c *fiber.Ctx) error {
	ctx, cancel := context.WithTimeout(c.UserContext(), forwardTimeout)
	defer cancel()
	req, err := o.request(ctx, c)
	if err != nil {
		return err
	}
	resp, err := o.transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err // it is shorter than it claimed to be
	}

	c.Status(resp.StatusCode)
	removeHopByHop(resp.Header)
	header := &c.Response().Header
	for name, values := range resp.Header {
		if name == fiber.HeaderContentLength && req.Method != http.MethodHead {
			continue // fasthttp counts
		}
		for _, v := range values {
			header.Add(name, v)
		}
	}
	c.Response().SetBodyRaw(body)
	return nil
}

// request is the one that the origin gets: the client's, the host included.
func (o *origin) request(ctx context.Context, c *fiber.Ctx) (*http.Request, error) {
	target, err := url.ParseRequestURI(c.OriginalURL())
	if err != nil {
		return nil, err
	}
	u := o.url.JoinPath() // a copy
	u.Path, u.RawPath = strings.TrimSuffix(o.url.Path, "/")+target.Path, ""
	if target.RawPath != "" || o.url.RawPath != "" {
		u.RawPath = strings.TrimSuffix(o.url.EscapedPath(), "/") + target.EscapedPath()
	}
	u.RawQuery = joinQuery(o.url.RawQuery, target.RawQuery)
	// Fiber's values are valid only during the request; the transport may keep them for a
	// moment longer.
	content := bytes.NewReader(bytes.Clone(c.Request().Body()))
	req, err := http.NewRequestWithContext(ctx, strings.Clone(c.Method()), u.String(), content)
	if err != nil {
		return nil, err
	}
	c.Request().Header.VisitAll(func(name, value []byte) { req.Header.Add(string(name), string(value)) })
	req.Host = string(c.Request().Host())
	req.Header.Del(fiber.HeaderHost)
	req.Header.Del(fiber.HeaderContentLength)
	removeHopByHop(req.Header)
	if _, stated := req.Header["User-Agent"]; !stated {
		req.Header["User-Agent"] = nil // Go's own is not the client's
	}
	return req, nil
}

// removeHopByHop removes what concerns one connection only: RFC 9110 section 7.6.1.
func removeHopByHop(h http.Header) {
	for _, line := range h["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			h.Del(textproto.TrimString(name))
		}
	}
	for _, name := range []string{
		"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer",
		"Transfer-Encoding", "Upgrade",
	} {
		h.Del(name)
	}
}
