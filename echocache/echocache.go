// Package echocache caches the responses of handlers of echo.
package echocache
import _ "github.com/labstack/echo/v4"
