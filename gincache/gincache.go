// Package gincache caches the responses of handlers of gin.
package gincache
import _ "github.com/gin-gonic/gin"
