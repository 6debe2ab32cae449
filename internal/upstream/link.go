package upstream

import (
	"fmt"
	"net/url"
	"strings"
)

// nextLink returns the target of rel="next" in a Link header (RFC 8288), "" when
// there is none.
func nextLink(header string) string {
	for rest := header; ; {
		open := strings.IndexByte(rest, '<')
		if open < 0 {
			return ""
		}
		rest = rest[open+1:]
		target, after, ok := strings.Cut(rest, ">")
		if !ok {
			return ""
		}
		var params string
		params, rest = cutUnquoted(after, ',')
		for params != "" {
			var p string
			p, params = cutUnquoted(params, ';')
			name, value, _ := strings.Cut(p, "=")
			if !strings.EqualFold(strings.TrimSpace(name), "rel") {
				continue
			}
			for rel := range strings.FieldsSeq(strings.Trim(strings.TrimSpace(value), `"`)) {
				if strings.EqualFold(rel, "next") {
					return strings.TrimSpace(target)
				}
			}
		}
	}
}

// cutUnquoted splits at the first separator outside double quotes.
func cutUnquoted(s string, sep byte) (before, after string) {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && quoted:
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == sep && !quoted:
			return s[:i], s[i+1:]
		}
	}
	return s, ""
}

// nextURL resolves a next link. A page at another host is refused: half a list
// must not pass for the whole.
func nextURL(current, link string) (string, error) {
	cur, err := url.Parse(current)
	if err != nil {
		return "", fmt.Errorf("address %q: %w", current, err)
	}
	next, err := cur.Parse(link)
	if err != nil {
		return "", fmt.Errorf("link to the next page: %w", err)
	}
	if !sameOrigin(cur, next) {
		return "", fmt.Errorf("the next page is at another host, %s: not followed", origin(next))
	}
	next.User = cur.User
	return next.String(), nil
}
