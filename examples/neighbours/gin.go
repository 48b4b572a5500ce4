package main

import (
	"crypto/rand"
	"io"
	"net/http"
	"time"

	"github.com/gin-contrib/cors"
	"github.com/gin-contrib/gzip"
	"github.com/gin-contrib/requestid"
	"github.com/gin-contrib/secure"
	"github.com/gin-contrib/sessions"
	"github.com/gin-contrib/sessions/cookie"
	"github.com/gin-contrib/timeout"
	"github.com/gin-gonic/gin"
	"go.opentelemetry.io/contrib/instrumentation/github.com/gin-gonic/gin/otelgin"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/gincache"
)

// ginSite is the shop in Gin.
func ginSite(front, behind []gin.HandlerFunc) build {
	return func(s *shop, cache *core.Cache) (string, func(), error) {
		gin.SetMode(gin.ReleaseMode)
		r := gin.New()
		r.Use(front...)
		var show, update []gin.HandlerFunc
		if cache != nil {
			show = append(show, gincache.Cache(cache, "page", "product:{id}"))
			update = append(update, gincache.Invalidate(cache, "product:{id}"))
		}
		show = append(append(show, behind...), func(c *gin.Context) {
			content, ok := s.show(c.Param("id"), c.GetHeader(greetingField))
			status := http.StatusOK
			if !ok {
				status = http.StatusNotFound
			}
			c.Data(status, "application/json", []byte(content))
		})
		update = append(append(update, behind...), func(c *gin.Context) {
			s.update()
			c.Status(http.StatusNoContent)
		})
		r.GET("/p/:id", show...)
		r.PUT("/p/:id", update...)
		return serve(r)
	}
}

func ofGin(m gin.HandlerFunc) func() gin.HandlerFunc { return func() gin.HandlerFunc { return m } }

func ginNeighbours() []neighbour[gin.HandlerFunc] {
	origins := []string{originA, originB}
	return []neighbour[gin.HandlerFunc]{
		{name: "gin-contrib/gzip", use: ofGin(gzip.Gzip(gzip.DefaultCompression))},
		{name: "gin-contrib/cors", use: ofGin(cors.New(cors.Config{AllowOrigins: origins, AllowMethods: []string{"GET", "PUT"}}))},
		{name: "gin-contrib/sessions", use: sessionsOfGin},
		{name: "gin-contrib/timeout", use: ofGin(timeout.New(timeout.WithTimeout(time.Minute)))},
		{name: "gin-contrib/requestid", use: ofGin(requestid.New()), behind: differing("X-Request-Id of another visitor", frozen)},
		{name: "gin-contrib/secure", use: ofGin(secure.New(secure.Config{FrameDeny: true, ContentTypeNosniff: true, IENoOpen: true}))},
		{name: "gin.Recovery", use: ofGin(gin.Recovery())},
		{name: "gin.Logger", use: ofGin(gin.LoggerWithWriter(io.Discard))},
		{name: "otelgin", use: ofGin(otelgin.Middleware("shop"))},
		{name: "a body logger", use: ofGin(bodyLogger)},
	}
}

func sessionsOfGin() gin.HandlerFunc {
	use := sessions.Sessions("shop", cookie.NewStore([]byte("a key of thirty-two bytes, or so")))
	return func(c *gin.Context) {
		use(c)
		if c.Request.URL.RawQuery != "v" {
			return
		}
		sess := sessions.Default(c)
		greeting, ok := sess.Get("greeting").(string)
		if !ok {
			greeting = rand.Text()
			sess.Set("greeting", greeting)
			if err := sess.Save(); err != nil {
				_ = c.AbortWithError(http.StatusInternalServerError, err)
				return
			}
		}
		c.Request.Header.Set(greetingField, greeting)
	}
}

// copyWriter is the writer of the body loggers that are passed around for Gin.
type copyWriter struct {
	gin.ResponseWriter
	copied int
}

func (w *copyWriter) Write(b []byte) (int, error) {
	w.copied += len(b)
	return w.ResponseWriter.Write(b)
}

func bodyLogger(c *gin.Context) {
	c.Writer = &copyWriter{ResponseWriter: c.Writer}
	c.Next()
}
