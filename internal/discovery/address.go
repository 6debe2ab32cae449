package discovery

import (
	"net"
	"strconv"
	"strings"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// healthAt is a component's health as seen on another host and port; 0 keeps the
// port. Addresses of another port than the main one (health.url, or metrics_url
// where there is none) keep theirs: it belongs to another listener of the same
// host. Nil when the component has no address to put there.
func healthAt(h component.Health, host string, port int) *component.Health {
	main := h.URL
	if main == "" {
		main = h.MetricsURL
	}
	if main == "" {
		return nil
	}
	move := func(raw string) string {
		if raw == "" {
			return ""
		}
		if portOf(raw) != portOf(main) {
			return replaceHost(raw, host, 0)
		}
		return replaceHost(raw, host, port)
	}
	h.URL, h.MetricsURL, h.Startup.URL = move(h.URL), move(h.MetricsURL), move(h.Startup.URL)
	return &h
}

// split cuts an address around its host and port. It works on the text, since
// an address of a definition may hold placeholders, which net/url would escape.
func split(raw string) (before, host, port, after string) {
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok {
		return raw, "", "", ""
	}
	before = scheme + "://"
	authority := rest
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority, after = rest[:i], rest[i:]
	}
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		before, authority = before+authority[:i+1], authority[i+1:]
	}
	host = authority
	if i := strings.LastIndexByte(authority, ':'); i > strings.LastIndexByte(authority, ']') {
		host, port = authority[:i], authority[i+1:]
	}
	return before, strings.Trim(host, "[]"), port, after
}

func portOf(raw string) string {
	before, _, port, _ := split(raw)
	switch {
	case port != "":
		return port
	case strings.HasPrefix(before, "https:"):
		return "443"
	}
	return "80"
}

func replaceHost(raw, host string, port int) string {
	before, _, old, after := split(raw)
	if port != 0 {
		old = strconv.Itoa(port)
	}
	if old == "" {
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		return before + host + after
	}
	return before + net.JoinHostPort(host, old) + after
}
