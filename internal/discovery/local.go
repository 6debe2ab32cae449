package discovery

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"
)

// resolveTimeout is how long the name of one address may take to look up.
const resolveTimeout = 2 * time.Second

// here knows what this host is called and which addresses are its own.
type here struct {
	hostname string
	local    func(addr string) bool
}

func (o Options) whereabouts(ctx context.Context) (*here, error) {
	h := &here{hostname: o.Hostname, local: o.Local}
	if h.hostname == "" {
		var err error
		if h.hostname, err = os.Hostname(); err != nil {
			return nil, fmt.Errorf("find this host's name: %w", err)
		}
	}
	if h.local != nil {
		return h, nil
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("find this host's addresses: %w", err)
	}
	own := map[netip.Addr]bool{}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			own[p.Addr().Unmap()] = true
		}
	}
	h.local = func(addr string) bool { return h.isLocal(ctx, own, addr) }
	return h, nil
}

// isLocal looks a name up when it is not this host's own; a name that cannot be
// looked up is another host's.
func (h *here) isLocal(ctx context.Context, own map[netip.Addr]bool, addr string) bool {
	is := func(text string) bool {
		ip, err := netip.ParseAddr(text)
		return err == nil && (ip.IsLoopback() || own[ip.Unmap().WithZone("")])
	}
	if is(addr) || h.named(addr) || unspecific(addr) {
		return true
	}
	if _, err := netip.ParseAddr(addr); err == nil || addr == "" {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	found, _ := net.DefaultResolver.LookupHost(ctx, addr)
	for _, f := range found {
		if is(f) {
			return true
		}
	}
	return false
}

// named reports whether a name is this host's; of two names one may be short.
func (h *here) named(name string) bool {
	a, b := strings.ToLower(strings.TrimSuffix(name, ".")), strings.ToLower(strings.TrimSuffix(h.hostname, "."))
	if a == "" || b == "" || a == "localhost" {
		return false
	}
	shortA, _, longA := strings.Cut(a, ".")
	shortB, _, longB := strings.Cut(b, ".")
	return a == b || shortA == shortB && longA != longB
}

// unspecific reports whether an address means "the host itself", whichever that
// is, so that it does not say which host.
func unspecific(addr string) bool {
	if ip, err := netip.ParseAddr(addr); err == nil {
		return ip.Unmap().IsLoopback() || ip.IsUnspecified()
	}
	return addr == "" || strings.EqualFold(strings.TrimSuffix(addr, "."), "localhost")
}
