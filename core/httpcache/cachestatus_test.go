package httpcache

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The places in the source where a reason is named: as a result, an argument or a value.
var reasonLiteral = regexp.MustCompile(`(?:\bno\(|return [^"]*, |return |reason = |detail: |false, |fwdBypass, |(?:Streamed|Oversized|incomplete|handlerError|disabled|setCookie)\s+= |Refusal = )"([a-z]+(?:-[a-z]+)*)"`)

// notReasons are words at such places that are no reasons.
var notReasons = []string{"gzip", "zstd", "identity", "private", "public"}

func TestEachDetailOfCacheStatusIsDocumented(t *testing.T) {
	text, err := os.ReadFile("CACHE-STATUS.md")
	require.NoError(t, err)
	table := string(text)
	reasons := 0
	for _, file := range []string{"policy.go", "freshness.go", "identity.go", "query.go", "serve.go", "load.go", "status.go", "exchange.go", "credentials.go", "../internal/local/load.go"} {
		source, err := os.ReadFile(filepath.FromSlash(file))
		require.NoError(t, err)
		for _, m := range reasonLiteral.FindAllStringSubmatch(string(source), -1) {
			if slices.Contains(notReasons, m[1]) {
				continue
			}
			reasons++
			require.True(t, strings.Contains(table, "`"+m[1]+"`"), "%s names %q, which the table lacks", file, m[1])
		}
	}
	require.Greater(t, reasons, 35, "the expression finds the reasons")
}
