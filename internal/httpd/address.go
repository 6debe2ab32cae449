package httpd

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
)

// resolve turns HOST:PORT into an address to listen on and tells whether only this
// host can reach it. A name must lead to this host alone for that, and what is
// listened on is the address that was looked at, not the name once more.
func resolve(ctx context.Context, listen string) (address string, local bool, err error) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", false, &RefusedError{
			Message: fmt.Sprintf("--listen=%s: want HOST:PORT, such as 127.0.0.1:9099: %v", listen, err), Hint: "observability-upgrade serve --help",
		}
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", false, &RefusedError{Message: fmt.Sprintf("--listen=%s: %q is no port, want 0 to 65535", listen, port), Hint: "observability-upgrade serve --help"}
	} else if host == "" {
		return net.JoinHostPort("", strconv.FormatUint(n, 10)), false, nil // every address of this host
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return listen, ip.Unmap().IsLoopback(), nil
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return "", false, &RefusedError{Message: fmt.Sprintf("--listen=%s: %v", listen, err), Hint: "give an address, such as --listen=127.0.0.1:" + port}
	}
	local = len(ips) > 0
	best := ips[0]
	for _, ip := range ips {
		local = local && ip.Unmap().IsLoopback()
		if ip.Unmap().Is4() && !best.Unmap().Is4() {
			best = ip
		}
	}
	return net.JoinHostPort(best.Unmap().String(), port), local, nil
}

// isLocal reports whether only this host can reach a listener.
func isLocal(a net.Addr) bool {
	switch a := a.(type) {
	case *net.TCPAddr:
		ip, ok := netip.AddrFromSlice(a.IP)
		return ok && ip.Unmap().IsLoopback()
	case *net.UnixAddr:
		return true // the modes of its file say who
	}
	return false
}
