package httpcache

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
)

// Some APIs read by POST: GraphQL, searches with a question that is too long for a URL. A
// route whose Reads selects such a request treats it as a QUERY (RFC 10008): its content
// and what describes that are part of the identity. RFC 9110 section 9.3.3 leaves the
// responses of other POSTs to the handler. Conditions have another meaning for POST (section
// 13.1.2): neither the cache nor its validation uses any.

// lineOf returns the request line of a request. The method of a POST that reads is QUERY.
func (rt *routeSnapshot) lineOf(ex Exchange) Line {
	line := ex.Line()
	if line.Method == http.MethodPost && rt.reads != nil && line.HasBody && rt.postReads(ex) {
		line.Method, line.posted = methodQuery, true
	}
	return line
}

// postReads reports whether a POST reads. A POST whose content is longer than the class's
// MaxEntryBytes writes, since nobody has looked at it.
func (rt *routeSnapshot) postReads(ex Exchange) bool {
	reader, ok := ex.(ContentReader)
	if !ok {
		return false
	}
	content, ok := reader.Content(rt.class.MaxEntryBytes)
	return ok && len(content) > 0 && rt.reads(ex, content)
}

// GraphQLQuery reports whether content is a GraphQL request over HTTP that only reads: a
// JSON object whose "query" is a document of queries and fragments. It returns false for a
// document with a mutation or a subscription, also beside a query, for a batch (a JSON
// array), and for a persisted query, which has no document: only the server knows what that
// does. It is meant for the field Reads of a Route.
func GraphQLQuery(content []byte) bool {
	doc, ok := graphQLDocument(content)
	return ok && queriesOnly(doc)
}

// graphQLDocument returns the member "query" of a JSON object. Parsers differ on which of
// several members of that name they take, and on whether its case counts: ok is false then.
func graphQLDocument(content []byte) (doc string, ok bool) {
	if !json.Valid(content) {
		return "", false
	}
	d := json.NewDecoder(bytes.NewReader(content))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return "", false
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return "", false
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return "", false
		}
		if member, _ := name.(string); !strings.EqualFold(member, "query") {
			continue
		} else if member != "query" || ok || value[0] != '"' || json.Unmarshal(value, &doc) != nil {
			return "", false
		}
		ok = true
	}
	return doc, ok
}

// queriesOnly reports whether a GraphQL document (October 2021, section 2) has a query, and
// no definition that is anything else than a query or a fragment. A document that it cannot
// follow is not one.
func queriesOnly(doc string) bool {
	queries, depth := false, 0
	for doc != "" {
		switch c := doc[0]; {
		case c == '#':
			end := strings.IndexAny(doc, "\r\n")
			if end < 0 {
				end = len(doc)
			}
			doc = doc[end:]
		case c == '"':
			rest, ok := afterString(doc)
			if !ok {
				return false
			}
			doc = rest
		case c == '{' || c == '(' || c == '[':
			queries = queries || c == '{' && depth == 0
			depth++
			doc = doc[1:]
		case c == '}' || c == ')' || c == ']':
			if depth--; depth < 0 {
				return false
			}
			doc = doc[1:]
		case nameByte(c):
			n := 1
			for n < len(doc) && nameByte(doc[n]) {
				n++
			}
			if name := doc[:n]; depth == 0 && (name == "mutation" || name == "subscription") {
				return false
			}
			doc = doc[n:]
		default:
			doc = doc[1:]
		}
	}
	return queries && depth == 0
}

func nameByte(c byte) bool {
	return c == '_' || '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z'
}

// afterString returns what follows the string, or block string, at the beginning of a document.
func afterString(doc string) (rest string, ok bool) {
	const block = `"""`
	if body, ok := strings.CutPrefix(doc, block); ok {
		for {
			end := strings.Index(body, block)
			if end < 0 {
				return "", false
			}
			if end == 0 || body[end-1] != '\\' {
				return body[end+len(block):], true
			}
			body = body[end+len(block):] // \""" stands for three quotation marks
		}
	}
	for i := 1; i < len(doc); i++ {
		switch doc[i] {
		case '\\':
			i++
		case '"':
			return doc[i+1:], true
		case '\n', '\r':
			return "", false
		}
	}
	return "", false
}
