package main

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/larderhq/larder/echocache"
)

func echoFramework() framework {
	return framework{
		name: "Echo",
		larder: func(s *site) (app, error) {
			return echoApp(s, echocache.Cache(s.cache, "product", "product:{id}", "catalog")), nil
		},
		bare: func(s *site) (app, error) { return echoApp(s), nil },
	}
}

func echoApp(s *site, cached ...echo.MiddlewareFunc) app {
	e := echo.New()
	e.GET("/p/:id", func(c echo.Context) error {
		s.runs.Add(1)
		h := c.Response().Header()
		for _, f := range s.fields {
			h.Set(f[0], f[1])
		}
		c.Response().WriteHeader(http.StatusOK)
		_, err := c.Response().Write(s.body)
		return err
	}, cached...)
	e.GET("/probe/:id", func(c echo.Context) error {
		p := s.probed(c.Param("id"), c.QueryString(), c.Request().Header.Get("Accept-Language"))
		for _, f := range p.fields {
			c.Response().Header().Add(f[0], f[1])
		}
		c.Response().WriteHeader(p.status)
		_, err := c.Response().Write([]byte(p.body))
		return err
	}, cached...)
	return netApp{e}
}
