// Package freeport finds ports of this host for what is started later, or again and
// again.
package freeport

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Claim finds a port at which nothing listens. It is below those that the kernel
// gives to outgoing connections and to listeners that name none, one of which could
// take it while the service is down. Whoever else asks here, in any process, leaves it
// alone until the claim is closed: that is an abstract name (unix(7)).
func Claim() (port int, claim io.Closer, err error) {
	for range 100 {
		port = 20_000 + rand.IntN(12_000) //nolint:gosec // any free port; nobody gains by guessing it
		if claim, err = net.Listen("unix", fmt.Sprintf("@observability-upgrade-port-%d", port)); err != nil {
			continue
		}
		var l net.Listener
		if l, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			return port, claim, l.Close()
		}
		err = errors.Join(err, claim.Close())
	}
	return 0, nil, err
}

// Shut is an address of this host that refuses connections until it is closed: its
// port is bound, so that nobody else gets it, and nobody listens.
func Shut() (address string, bound io.Closer, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), "bound socket")
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return "", nil, errors.Join(os.NewSyscallError("bind", err), f.Close())
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return "", nil, errors.Join(os.NewSyscallError("getsockname", err), f.Close())
	}
	return fmt.Sprintf("127.0.0.1:%d", name.(*unix.SockaddrInet4).Port), f, nil
}
