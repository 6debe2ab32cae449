package httpd

import (
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// hosts are the names by which this host may ask for a listener of its own.
func hosts(listen string, a net.Addr) []string {
	out := []string{"localhost", "127.0.0.1", "::1"}
	for _, address := range []string{listen, a.String()} {
		if host, _, err := net.SplitHostPort(address); err == nil && host != "" {
			out = append(out, host)
		}
	}
	return out
}

// onlyFor refuses requests for other names: a browser of this host could be led
// here by a name of somebody else's, whose pages could then read the answers (DNS
// rebinding).
func onlyFor(hosts []string, logger *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isFor(hosts, r.Host) {
			logger.Warn("a request for another host is refused", "host", r.Host, "from", r.RemoteAddr)
			http.Error(w, "This is not the host that was asked for; ask for localhost.", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// isFor reports whether the Host of a request, with or without a port, is one of
// hosts.
func isFor(hosts []string, host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	} else if inner, ok := strings.CutPrefix(host, "["); ok {
		name, _ = strings.CutSuffix(inner, "]")
	}
	name = strings.TrimSuffix(name, ".")
	return slices.ContainsFunc(hosts, func(h string) bool {
		a, errA := netip.ParseAddr(h)
		b, errB := netip.ParseAddr(name)
		return strings.EqualFold(h, name) || errA == nil && errB == nil && a.Unmap() == b.Unmap()
	})
}
