package redisstore

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/test/redisserver"
	"github.com/larderhq/larder/core/internal/tier"
)

const programFile = "invalidate.lua"

func TestProgramIsTheFileBesideThePackage(t *testing.T) {
	if os.Getenv("LARDER_WRITE") != "" {
		require.NoError(t, os.WriteFile(programFile, []byte(Program()), 0o644))
	}
	file, err := os.ReadFile(programFile)
	require.NoError(t, err)
	require.Equal(t, Program(), string(file), "write it anew: LARDER_WRITE=1 go test -run TestProgram ./core/redisstore")
}

// redisCLI runs the program as an operator does.
func redisCLI(t *testing.T, server *redisserver.Server, key string, args ...string) string {
	t.Helper()
	line := append([]string{"-p", strconv.Itoa(server.Port()), "--eval", programFile, key, ","}, args...)
	out, err := exec.CommandContext(within(t, 10*time.Second), "redis-cli", line...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return strings.TrimSpace(string(out))
}

func TestProgramInvalidatesAsTheCacheDoes(t *testing.T) {
	server, client := single(t)
	s := open(t, client, layout("v1"))
	newer := open(t, client, layout("v2"))
	heard := make(chan tier.Hint, 100)
	listening := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = s.Hints(ctx, func() { close(listening) }, func(h tier.Hint) { heard <- h })
	}()
	<-listening
	defer func() { cancel(); <-ended }()

	for _, test := range []struct {
		kind, value string
		item        tier.Item
		everywhere  bool
	}{
		{"key", "user:42", tier.Item{Kind: tier.Key, Value: "user:42"}, false},
		{"tag", "catalog", tier.Item{Kind: tier.Tag, Value: "t:catalog"}, false},
		{"path", "/a%20b", tier.Item{Kind: tier.Tag, Value: "p:/a b"}, false},
		{"path", "https://shop.example/items", tier.Item{Kind: tier.Tag, Value: "p:/items"}, false},
		{"pattern", "user:*", tier.Item{Kind: tier.All}, true},
		{"all", "", tier.Item{Kind: tier.All}, true},
	} {
		t.Run(test.kind+" "+test.value, func(t *testing.T) {
			key, tag := test.value, test.item.Value
			if test.kind != "key" {
				key = "page:" + test.kind + strconv.Itoa(len(test.value))
			}
			if test.item.Kind != tier.Tag {
				tag = "t:another"
			}
			fill(t, s, key, "old", tag)
			fill(t, newer, key, "old", tag)
			before := heads(t, s)
			require.Equal(t, "OK", redisCLI(t, server, "app:{00}:head", test.kind, test.value))

			after := heads(t, s)
			moved := 0
			for p := range after {
				if after[p].Position == before[p].Position {
					continue
				}
				moved++
				log, err := s.Log(within(t, time.Second), p, before[p].Position)
				require.NoError(t, err)
				require.True(t, log.Joined)
				require.Len(t, log.Items, 1)
				require.Equal(t, test.item, log.Items[0].Item)
				require.Equal(t, after[p].Position, log.Items[0].Position)
				h := <-heard
				for h.Wake != "" {
					h = <-heard
				}
				require.Equal(t, test.item, h.Item.Item)
			}
			if test.everywhere {
				require.Equal(t, len(after), moved)
			} else {
				require.Equal(t, 1, moved)
			}
			for _, in := range []*session{s, newer} {
				e, generations, err := in.Get(within(t, time.Second), key, []string{tag})
				require.NoError(t, err)
				switch test.item.Kind {
				case tier.Key:
					require.Empty(t, e.ID)
				case tier.Tag:
					require.Empty(t, generations[0])
				default:
					for _, pe := range e.Eras {
						require.NotEqual(t, pe.Era, after[pe.Partition].Era)
					}
				}
			}
		})
	}
}

func TestProgramSaysWhatIsWrong(t *testing.T) {
	server, client := single(t)
	require.Contains(t, redisCLI(t, server, "app:{00}:head", "tag", "x"), "no cache of this namespace")
	open(t, client, layout("v1"))
	for _, test := range []struct{ key, kind, value, want string }{
		{"app", "tag", "x", "the first key must be like"},
		{"app:{00}:head", "tags", "x", "the kind is one of"},
		{"app:{00}:head", "tag", "", "1 to 1024 bytes"},
		{"app:{00}:head", "tag", "a\nb", "no control characters"},
		{"app:{00}:head", "path", "items", "a path begins with /"},
		{"app:{00}:head", "path", "/items?page=1", "no ?"},
	} {
		require.Contains(t, redisCLI(t, server, test.key, test.kind, test.value), test.want)
	}
	require.Contains(t, redisCLI(t, server, "app:{00}:head", "tag", "x", "soon"), "milliseconds")
}

func TestProgramInAClusterSaysWhichKeyItNeeds(t *testing.T) {
	t.Parallel()
	_, client := threeByThree(t)
	s := open(t, client, layout("v1"))
	p := s.partitionOf("t:catalog")
	right := s.names.head(p)
	run := func(key string) (any, error) {
		return client.Eval(within(t, 5*time.Second), Program(), []string{key}, "tag", "catalog").Result()
	}
	_, err := run(s.names.head((p + 1) % 4))
	require.ErrorContains(t, err, right)
	fill(t, s, "page", "old", "t:catalog")
	reply, err := run(right)
	require.NoError(t, err)
	require.Equal(t, "OK", reply)
	generations, err := s.Generations(within(t, time.Second), []string{"t:catalog"})
	require.NoError(t, err)
	require.Equal(t, []string{""}, generations)
}

func TestDurationsInScriptsAreThoseOfTheProgram(t *testing.T) {
	for _, test := range []struct {
		file, text string
		of         time.Duration
	}{
		{"capture", "LIFE, REFRESH, SOON = %d, ", generationLives},
		{"capture", "= 691200000, %d, 3600000", generationRefresh},
		{"capture", "'PX', '%d'", generationLives},
		{"capture", "'PEXPIRE', gen, '%d'", generationLives},
		{"acquire", "now - noted > %d then", versionNoted},
	} {
		require.Contains(t, source(test.file), fmt.Sprintf(test.text, test.of.Milliseconds()))
	}
}
