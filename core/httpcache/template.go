package httpcache

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode"

	"github.com/larderhq/larder/core"
	"github.com/larderhq/larder/core/internal/naming"
)

// template is a tag with parameters of the route, "product:{id}", "file:{*}", and the identity
// of the request, "cart:{identity}".
type template struct {
	text     string
	params   []string // names
	lits     []string // len(params)+1
	personal bool     // it names the identity
}

// identityParam is the name of the identity in a template.
const identityParam = "identity"

// maxParam is the longest parameter that stands in a tag as it is. A longer one,
// and one with control characters, is replaced by its SHA-256.
const maxParam = 128

func parseTemplate(text string) (template, error) {
	text = strings.Clone(text)
	t := template{text: text}
	bad := func(allowed string) (template, error) {
		return t, &core.ConfigError{Field: "tag", Value: text, Allowed: allowed}
	}
	if text == "" || len(text) > core.MaxKeyBytes || naming.HasControl(text) {
		return bad(fmt.Sprintf("1 to %d bytes without control characters", core.MaxKeyBytes))
	}
	if name := routerParam(text); name != "" {
		return bad(fmt.Sprintf("a parameter as {%s}, not :%s", name, name))
	}
	rest := text
	for {
		open := strings.IndexAny(rest, "{}")
		if open < 0 {
			t.lits = append(t.lits, rest)
			if t.personal && !t.separatesIdentity() {
				return bad("a separator such as : between {identity} and another parameter")
			}
			return t, nil
		}
		end := strings.IndexAny(rest[open+1:], "{}")
		if rest[open] == '}' || end < 0 || rest[open+1+end] == '{' {
			return bad("each { closed by a }")
		}
		name := rest[open+1 : open+1+end]
		if name == "" {
			return bad("a parameter's name, or *, between { and }")
		}
		if bare := strings.TrimSuffix(name, "..."); bare != name || name == "$" {
			return bad(fmt.Sprintf("a parameter's name without the pattern's suffix, for example {%s}", cmp.Or(strings.Trim(bare, "$"), "id")))
		}
		t.lits = append(t.lits, rest[:open])
		t.params = append(t.params, name)
		t.personal = t.personal || name == identityParam
		rest = rest[open+end+2:]
	}
}

// separatesIdentity reports whether a byte that no identity has in a tag stands between the
// identity and each of its neighbours. Two identities could otherwise form one tag.
func (t template) separatesIdentity() bool {
	for i, name := range t.params[1:] {
		if between := t.lits[i+1]; (name == identityParam || t.params[i] == identityParam) && url.QueryEscape(between) == between {
			return false
		}
	}
	return true
}

// routerParam returns the name of a parameter in the notation of Echo, Gin and Fiber, such as id in
// "product::id" or "items/:id". A template with it would be one tag for all requests.
func routerParam(text string) string {
	for at, r := range text {
		if r != ':' || at > 0 && !strings.ContainsRune(":/", rune(text[at-1])) {
			continue
		}
		name := text[at+1:]
		if end := strings.IndexFunc(name, func(r rune) bool { return r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) }); end >= 0 {
			name = name[:end]
		}
		if name != "" && !unicode.IsDigit(rune(name[0])) {
			return name
		}
	}
	return ""
}

// resolve returns the tag for a request of an identity, or the name of a parameter that the
// request does not have.
func (t template) resolve(ex Exchange, identity string) (tag, missing string) {
	if len(t.params) == 0 {
		return t.text, ""
	}
	var b strings.Builder
	for i, name := range t.params {
		if name == identityParam {
			b.WriteString(t.lits[i])
			b.WriteString(identityInTag(identity))
			continue
		}
		v, ok := ex.Param(name)
		if !ok || v == "" {
			return "", name
		}
		if len(v) > maxParam || naming.HasControl(v) {
			sum := sha256.Sum256([]byte(v))
			v = "sha256-" + hex.EncodeToString(sum[:])
		}
		b.WriteString(t.lits[i])
		b.WriteString(v)
	}
	b.WriteString(t.lits[len(t.params)])
	if b.Len() > core.MaxKeyBytes {
		sum := sha256.Sum256([]byte(b.String()))
		return "sha256-" + hex.EncodeToString(sum[:]), ""
	}
	return b.String(), ""
}

// identityInTag returns an identity as it stands in tags: escaped as in a query, so that no identity
// holds the separator of a template and no two are equal. A long one is replaced by its SHA-256
// behind an =, which no escaped identity has.
func identityInTag(identity string) string {
	escaped := url.QueryEscape(identity)
	if len(escaped) > maxParam {
		sum := sha256.Sum256([]byte(identity))
		return "sha256=" + hex.EncodeToString(sum[:])
	}
	return escaped
}

// parseTemplates parses the tags of a route. identified says that the route has an Identity.
func parseTemplates(texts []string, identified bool) ([]template, error) {
	if len(texts) > core.MaxTagsPerEntry/2 {
		return nil, &core.ConfigError{Field: "tags", Value: len(texts), Allowed: fmt.Sprintf("at most %d on a route", core.MaxTagsPerEntry/2)}
	}
	list := make([]template, len(texts))
	for i, text := range texts {
		var err error
		if list[i], err = parseTemplate(text); err != nil {
			return nil, err
		}
		if list[i].personal && !identified {
			return nil, &core.ConfigError{
				Field: "tag", Value: list[i].text,
				Allowed: "{identity} on a route with an Identity: CachePerUser, InvalidatePerUser, or the field Identity of Route and WriteRoute",
			}
		}
	}
	return list, nil
}

// resolveAll returns the names under which entries carry the tags.
func resolveAll(list []template, ex Exchange, identity string) (tags []string, missing string) {
	tags = make([]string, len(list))
	for i, t := range list {
		tag, missing := t.resolve(ex, identity)
		if missing != "" {
			return nil, missing
		}
		tags[i] = naming.Tag(tag)
	}
	return tags, ""
}

// personal reports whether a template names the identity.
func personal(list []template) bool {
	return slices.ContainsFunc(list, func(t template) bool { return t.personal })
}
