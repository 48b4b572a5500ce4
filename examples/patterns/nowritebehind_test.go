//go:build !writebehind

package patterns

import (
	"errors"

	"github.com/redis/go-redis/v9"
)

var (
	writeBehind maker // nil: not compared

	errNoWriteBehind = errors.New("needs the build tag writebehind")
)

func newWriteBehind(*redis.Client, Database) (shop, error) { return nil, errNoWriteBehind }

func (w *world) flush(shop) error { return errNoWriteBehind }
