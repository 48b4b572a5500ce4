// Package fibercache caches the responses of handlers of fiber.
package fibercache
import _ "github.com/gofiber/fiber/v2"
