package histories_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/larderhq/larder/core"
)

const (
	minute = time.Minute
	hour   = time.Hour
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open opens a cache that is closed at the end of the test.
func open(t testing.TB, o core.Options) *core.Cache {
	t.Helper()
	o.Logger = slog.New(slog.DiscardHandler)
	c, err := core.New(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}
