package httpcache

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestGraphQLQueriesAreToldFromMutations(t *testing.T) {
	for doc, reads := range map[string]bool{
		`{ a }`:                                                     true,
		`query { a }`:                                               true,
		`query Q($x: [Int!]) { a(x: $x) { b } }`:                    true,
		"# mutation\nquery { a }":                                   true,
		"# mutation\rquery { a }":                                   true,
		`query { a(s: "mutation { b }") }`:                          true,
		`query { a(s: """ mutation " \""" { """) }`:                 true,
		`query { mutation subscription }`:                           true, // names of fields
		`fragment F on T { mutation } query { ...F }`:               true,
		"\ufeffquery{a}":                                            true,
		`query ($s: String = "mutation") @d(x: "subscription") {a}`: true,

		``:                                 false,
		`# query { a }`:                    false,
		`fragment F on T { a }`:            true, // the server refuses it: it has no operation
		`mutation { a }`:                   false,
		`mutation M { a }`:                 false,
		`subscription { a }`:               false,
		`query Q { a } mutation M { b }`:   false,
		`mutation M { b } query Q { a }`:   false,
		`query { a(s: "\"") } mutation{b}`: false,
		`query { a(s: """\""" """) } mutation { b }`: false,
		"query { a } # x\nmutation { b }":            false,
		`query { a(s: "`:                             false,
		`query { a(s: """`:                           false,
		"query { a(s: \"\n\") }":                     false,
		`query { a`:                                  false,
		`query } {`:                                  false,
		`query,mutation{a}`:                          false,
		`query mutation { a }`:                       false, // the name of the operation, to be on the safe side
	} {
		content, err := json.Marshal(map[string]any{"query": doc, "variables": map[string]any{"x": "mutation"}})
		require.NoError(t, err)
		require.Equal(t, reads, GraphQLQuery(content), "%s", doc)
	}
	for _, content := range []string{
		"", "null", "{}", `[{"query":"{a}"}]`, `{"query":null}`, `{"query":1}`, `{"query":"{a}"`, `{"query":"{a}"} x`,
		`{"extensions":{"persistedQuery":{"version":1,"sha256Hash":"x"}}}`, "query { a }", `{"query":"{a}","query":"mutation{a}"}`,
		`{"query":"{a}","QUERY":"mutation{a}"}`, `{"query":"mutation{a}","Query":"{a}"}`, `{"query":"mutation{a}","query":"{a}"}`,
	} {
		require.False(t, GraphQLQuery([]byte(content)), "%s", content)
	}
}

// FuzzGraphQLQuery puts a mutation behind documents of queries: it is found wherever it stands outside of strings and
// comments.
func FuzzGraphQLQuery(f *testing.F) {
	f.Add(`{ a }`)
	f.Add(`query Q($x: [Int!] = [1]) { a(s: """ " \""" """) }`)
	f.Add("# x\nquery { a }")
	f.Fuzz(func(t *testing.T, doc string) {
		if !queriesOnly(doc) || strings.Contains(doc, "#") {
			return
		}
		require.False(t, queriesOnly(doc+" mutation { a }"))
		require.False(t, queriesOnly("mutation { a } "+doc))
		require.True(t, queriesOnly(doc+" { a }"))
	})
}
