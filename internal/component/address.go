package component

import (
	"net"
	"strconv"
	"strings"
)

// At is a component's health as seen on another host and port; 0 keeps the port. Addresses of another port than the main one (health.url, or metrics_url
// where there is none) keep theirs: it belongs to another listener of the same
// host. Nil when the component has no address to put there.
func (h Health) At(host string, port int) *Health {
	main := h.URL
	if main == "" {
		main = h.MetricsURL
	}
	if main == "" {
		return nil
	}
	h.URL, h.MetricsURL, h.Startup.URL = moved(h.URL, main, host, port), moved(h.MetricsURL, main, host, port), moved(h.Startup.URL, main, host, port)
	return &h
}

// moved is an address on another host; the port is another only where it was that
// of main.
func moved(raw, main, host string, port int) string {
	if raw == "" {
		return ""
	}
	if PortOf(raw) != PortOf(main) {
		return replaceHost(raw, host, 0)
	}
	return replaceHost(raw, host, port)
}

// SplitAddress cuts an address around its host and port. It works on the text, since
// an address of a definition may hold placeholders, which net/url would escape.
func SplitAddress(raw string) (before, host, port, after string) {
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

// PortOf is the port of an address, that of its scheme where it names none.
func PortOf(raw string) string {
	before, _, port, _ := SplitAddress(raw)
	switch {
	case port != "":
		return port
	case strings.HasPrefix(before, "https:"):
		return "443"
	}
	return "80"
}

func replaceHost(raw, host string, port int) string {
	before, _, old, after := SplitAddress(raw)
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
