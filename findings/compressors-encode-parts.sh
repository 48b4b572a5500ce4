#!/usr/bin/env bash
# Five compression middlewares of Go encode the answer to a range request, one leaves
# it plain, and one hides the Range field from the handler. http.ServeContent answers `Range: bytes=100-299` with 206 and 200
# bytes of the plain content; a middleware that then adds Content-Encoding: gzip
# leaves Content-Range and the validator as they are. Both count bytes of the
# encoded content (RFC 9110, sections 8.4 and 14.4), so that the client cannot put
# such a part together with another.
#
# Versions: see the go get lines. Seen: echo, gin, chi, gorilla and Fiber encode;
# gzhttp does not; httpcompression answers 200. The script fails if that changes.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir"
cat > main.go <<'GO'
package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/CAFxX/httpcompression"
	"github.com/gin-contrib/gzip"
	"github.com/gin-gonic/gin"
	chi "github.com/go-chi/chi/v5/middleware"
	"github.com/gofiber/fiber/v2"
	"github.com/gofiber/fiber/v2/middleware/adaptor"
	"github.com/gofiber/fiber/v2/middleware/compress"
	"github.com/gorilla/handlers"
	"github.com/klauspost/compress/gzhttp"
	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"
)

var file = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("ETag", `"v1"`)
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(strings.Repeat("0123456789", 1000)))
})

func request() *http.Request {
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Accept-Encoding", "gzip")
	r.Header.Set("Range", "bytes=100-2099")
	return r
}

func show(name string, status int, h http.Header) {
	fmt.Printf("%s: %d, Content-Range: %s, Content-Encoding: %s, ETag: %s\n",
		name, status, h.Get("Content-Range"), h.Get("Content-Encoding"), h.Get("ETag"))
}

func serve(name string, h http.Handler) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, request())
	show(name, w.Code, w.Result().Header)
}

func main() {
	e := echo.New()
	e.Use(middleware.Gzip())
	e.GET("/", echo.WrapHandler(file))
	serve("echo", e)

	gin.SetMode(gin.ReleaseMode)
	g := gin.New()
	g.Use(gzip.Gzip(gzip.DefaultCompression))
	g.GET("/", gin.WrapH(file))
	serve("gin", g)

	serve("chi", chi.Compress(5)(file))
	serve("gorilla", handlers.CompressHandler(file))
	serve("gzhttp", gzhttp.GzipHandler(file))
	all, err := httpcompression.DefaultAdapter()
	if err != nil {
		panic(err)
	}
	serve("httpcompression", all(file))

	app := fiber.New()
	app.Use(compress.New())
	app.Get("/", adaptor.HTTPHandler(file))
	resp, err := app.Test(request(), -1)
	if err != nil {
		panic(err)
	}
	show("fiber", resp.StatusCode, resp.Header)
}
GO
go mod init finding >/dev/null 2>&1
go get github.com/labstack/echo/v4@v4.15.0 github.com/gin-gonic/gin@v1.11.0 github.com/gin-contrib/gzip@v1.2.3 github.com/go-chi/chi/v5@v5.2.5 \
	github.com/gorilla/handlers@v1.5.2 github.com/klauspost/compress@v1.18.0 github.com/CAFxX/httpcompression@v0.0.9 github.com/gofiber/fiber/v2@v2.52.12 >/dev/null 2>&1
go mod tidy >/dev/null 2>&1
go run . | sort | tee out
diff out - <<'WANT'
chi: 206, Content-Range: bytes 100-2099/10000, Content-Encoding: gzip, ETag: "v1"
echo: 206, Content-Range: bytes 100-2099/10000, Content-Encoding: gzip, ETag: "v1"
fiber: 206, Content-Range: bytes 100-2099/10000, Content-Encoding: gzip, ETag: "v1"
gin: 206, Content-Range: bytes 100-2099/10000, Content-Encoding: gzip, ETag: "v1"
gorilla: 206, Content-Range: bytes 100-2099/10000, Content-Encoding: gzip, ETag: "v1"
gzhttp: 206, Content-Range: bytes 100-2099/10000, Content-Encoding: , ETag: "v1"
httpcompression: 200, Content-Range: , Content-Encoding: gzip, ETag: "v1"
WANT
