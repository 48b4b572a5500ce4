#!/usr/bin/env bash
# Two caches of Go derive the key of an entry from a struct, and give the value of one
# struct to another. gocache accepts any value as a key, and its README uses a struct;
# it prints the struct with fmt, which separates fields by a space, and hashes that text.
# sturdyc's PermutatedKey joins the fields with "-", and its documentation promises a
# unique key. A reader expects that structs which differ (==) have keys that differ.
#
# Seen with gocache v4.2.0 and sturdyc v1.1.5: {"red wine", "oak"} finds what
# {"red", "wine oak"} stored; {"dark-red", "oak"} finds what {"dark", "red-oak"} stored;
# the slices {"a b"} and {"a", "b"}, and {"a,b"} and {"a", "b"}, have one key too. It hurts
# a cache of searches, whose parameters are texts with spaces, commas and hyphens: a
# search is answered with the result of another one. The script fails if that changes.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir"
cat > main.go <<'GO'
package main

import (
	"context"
	"fmt"
	"time"

	gocache "github.com/eko/gocache/lib/v4/cache"
	store "github.com/eko/gocache/store/go_cache/v4"
	memory "github.com/patrickmn/go-cache"
	"github.com/viccon/sturdyc"
)

type wine struct{ Color, Cask string }

type query struct{ Words []string }

func main() {
	ctx := context.Background()

	keeper := gocache.New[string](store.NewGoCache(memory.New(time.Minute, time.Minute)))
	put := func(key any) {
		if err := keeper.Set(ctx, key, fmt.Sprintf("%q", key)); err != nil {
			panic(err)
		}
	}
	put(wine{"red", "wine oak"})
	found, err := keeper.Get(ctx, wine{"red wine", "oak"})
	fmt.Printf("gocache: %q finds %s, %v\n", wine{"red wine", "oak"}, found, err)
	put(query{[]string{"a", "b"}})
	found, err = keeper.Get(ctx, query{[]string{"a b"}})
	fmt.Printf("gocache: %q finds %s, %v\n", query{[]string{"a b"}}, found, err)

	client := sturdyc.New[string](100, 1, time.Minute, 10)
	load := func(key any) string {
		value, err := client.GetOrFetch(ctx, client.PermutatedKey("p", key),
			func(context.Context) (string, error) { return fmt.Sprintf("%q", key), nil })
		if err != nil {
			panic(err)
		}
		return value
	}
	load(wine{"dark", "red-oak"})
	fmt.Printf("sturdyc: %q finds %s\n", wine{"dark-red", "oak"}, load(wine{"dark-red", "oak"}))
	load(query{[]string{"a", "b"}})
	fmt.Printf("sturdyc: %q finds %s\n", query{[]string{"a,b"}}, load(query{[]string{"a,b"}}))
}
GO
go mod init finding >/dev/null 2>&1
go get github.com/eko/gocache/lib/v4@v4.2.0 github.com/eko/gocache/store/go_cache/v4@v4.2.2 \
	github.com/patrickmn/go-cache@v2.1.0 github.com/viccon/sturdyc@v1.1.5 >/dev/null 2>&1
go mod tidy >/dev/null 2>&1
go run . | tee out
diff out - <<'WANT'
gocache: {"red wine" "oak"} finds {"red" "wine oak"}, <nil>
gocache: {["a b"]} finds {["a" "b"]}, <nil>
sturdyc: {"dark-red" "oak"} finds {"dark" "red-oak"}
sturdyc: {["a,b"]} finds {["a" "b"]}
WANT
