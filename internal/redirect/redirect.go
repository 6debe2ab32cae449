// Package redirect tells which redirects are followed when something is fetched
// from a server that may be hostile, or may have been taken over.
//
// Encryption is never given up on the way, only http and https are spoken, and no
// other host leads to this one: its loopback interface and its link have services
// that trust whoever reaches them, such as a cloud's at 169.254.169.254, and what
// they answer would come into our messages. A server of this host, such as a
// mirror or a proxy, may lead to others of it. Private networks are not
// refused: mirrors keep their files there.
package redirect

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// RefusedError is a redirect that is not followed.
type RefusedError struct {
	From, To string // scheme, host and port
	Reason   string
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("%s redirects to %s: refused, %s", e.From, e.To, e.Reason)
}

// lookUpTime bounds how long the addresses of a name are looked up.
const lookUpTime = 5 * time.Second

// Check judges one redirect, from the address that answered to the one it names.
// A name is looked up; one that cannot be is let pass, as nothing can be fetched
// from it, or only by a proxy that looks it up itself. The error is a RefusedError.
func Check(ctx context.Context, from, to *url.URL) error {
	refuse := func(reason string) error {
		return &RefusedError{From: place(from), To: place(to), Reason: reason}
	}
	switch {
	case from.Scheme == "https" && to.Scheme != "https":
		return refuse("it drops the encryption")
	case to.Scheme != "https" && to.Scheme != "http":
		return refuse("only http and https are spoken")
	case strings.EqualFold(from.Hostname(), to.Hostname()):
		return nil
	case here(ctx, to.Hostname()) && !here(ctx, from.Hostname()):
		return refuse("it leads from another host to this one")
	}
	return nil
}

func place(u *url.URL) string { return u.Scheme + "://" + u.Host }

// here reports whether a host is this one, or a service of the link.
func here(ctx context.Context, host string) bool {
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	if name == "localhost" || strings.HasSuffix(name, ".localhost") { // RFC 6761, 6.3
		return true
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return own(addr)
	}
	ctx, cancel := context.WithTimeout(ctx, lookUpTime)
	defer cancel()
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return false
	}
	for _, addr := range found {
		if own(addr) {
			return true
		}
	}
	return false
}

// cloud6 is where Amazon's metadata service answers over IPv6, which is no address
// of the link.
var cloud6 = netip.MustParseAddr("fd00:ec2::254")

func own(addr netip.Addr) bool {
	addr = addr.WithZone("").Unmap()
	return addr.IsLoopback() || addr.IsLinkLocalUnicast() || addr.IsUnspecified() || addr == cloud6
}
