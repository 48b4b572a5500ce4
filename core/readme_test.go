package core_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every Go block of the README stands in an example that the tests run.
func TestREADMEBlocksAreExamples(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(string(readme), -1)
	require.NotEmpty(t, blocks)

	files, err := filepath.Glob("../*/example_test.go")
	require.NoError(t, err)
	var examples strings.Builder
	for _, f := range append(files, "redisstore/example_test.go") {
		text, err := os.ReadFile(f)
		require.NoError(t, err)
		examples.WriteString(squeeze(string(text)))
	}
	for _, b := range blocks {
		require.Contains(t, examples.String(), squeeze(b[1]), "this block of the README is in no example_test.go:\n%s", b[1])
	}
}

// squeeze makes layout not count.
func squeeze(s string) string { return strings.Join(strings.Fields(s), " ") + " " }
