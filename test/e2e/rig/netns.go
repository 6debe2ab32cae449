package rig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// addNetns makes a network namespace that has only its loopback interface.
func addNetns(ctx context.Context, name string) error {
	if _, err := host(ctx, "ip", "netns", "add", name); err != nil {
		return err
	}
	_, err := host(ctx, "ip", "-netns", name, "link", "set", "lo", "up")
	return err
}

// deleteNetns is idempotent. Interfaces inside vanish with the namespace.
func deleteNetns(ctx context.Context, name string) error {
	if _, err := os.Stat("/run/netns/" + name); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	_, err := host(ctx, "ip", "netns", "delete", name)
	return err
}

// inNetns calls f on a thread that is in the network namespace: sockets that f
// makes belong to it for good.
func inNetns(name string, f func() error) (err error) {
	target, err := os.Open("/run/netns/" + name)
	if err != nil {
		return err
	}
	defer target.Close()
	runtime.LockOSThread()
	own, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer own.Close()
	if err := unix.Setns(int(target.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter the network of %s: %w", name, err)
	}
	err = f()
	if back := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); back != nil {
		// The thread stays locked, and so ends with this goroutine instead of
		// serving others in the wrong network.
		return errors.Join(err, fmt.Errorf("leave the network of %s: %w", name, back))
	}
	runtime.UnlockOSThread()
	return err
}

// numeric replaces localhost: looking names up would happen on other threads,
// outside the namespace.
func numeric(addr string) (string, error) {
	name, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", err
	}
	if name == "localhost" {
		name = "127.0.0.1"
	}
	if name != "" && net.ParseIP(name) == nil {
		return "", fmt.Errorf("%s: only addresses and localhost are reachable in a container's network", addr)
	}
	return net.JoinHostPort(name, port), nil
}

func dialIn(ctx context.Context, netns, network, addr string) (conn net.Conn, err error) {
	if addr, err = numeric(addr); err != nil {
		return nil, err
	}
	err = inNetns(netns, func() error {
		conn, err = (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, network, addr)
		return err
	})
	return conn, err
}

func listenIn(ctx context.Context, netns, network, addr string) (l net.Listener, err error) {
	if addr, err = numeric(addr); err != nil {
		return nil, err
	}
	err = inNetns(netns, func() error {
		l, err = (&net.ListenConfig{}).Listen(ctx, network, addr)
		return err
	})
	return l, err
}

func clientIn(netns string) *http.Client {
	return &http.Client{
		Timeout: 15 * time.Second,
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				return dialIn(ctx, netns, network, addr)
			},
			DisableKeepAlives: true,
		},
	}
}

// Dial connects from inside the container's network. The host must be an address
// or localhost.
func (c *Container) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	return dialIn(ctx, c.Name, network, addr)
}

// Listen listens inside the container's network, while this process serves: a
// release server or a receiver of notifications for one container. It outlives
// PowerOff. The caller closes it.
func (c *Container) Listen(ctx context.Context, network, addr string) (net.Listener, error) {
	return listenIn(ctx, c.Name, network, addr)
}

// HTTP returns a client that connects from inside the container's network. It
// keeps no connections, and gives up after 15 seconds.
func (c *Container) HTTP() *http.Client { return clientIn(c.Name) }

// Get fetches a URL from inside the container's network.
func (c *Container) Get(ctx context.Context, url string) (status int, body []byte, err error) {
	return get(ctx, c.HTTP(), url)
}

func get(ctx context.Context, client *http.Client, url string) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, err
	}
	res, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return res.StatusCode, body, err
}

// WaitHTTP fetches a URL until ok says yes; a nil ok wants status 200. When ctx
// ends first, the error shows the last answer. Give it a ctx with a deadline.
func (c *Container) WaitHTTP(ctx context.Context, url string, ok func(status int, body []byte) bool) error {
	if ok == nil {
		ok = func(status int, _ []byte) bool { return status == http.StatusOK }
	}
	last := "never asked"
	err := poll(ctx, func() bool {
		status, body, err := c.Get(ctx, url)
		if err != nil {
			if ctx.Err() == nil {
				last = err.Error()
			}
			return false
		}
		last = fmt.Sprintf("status %d: %s", status, strings.TrimSpace(string(body[:min(len(body), 500)])))
		return ok(status, body)
	})
	if err != nil {
		return fmt.Errorf("container %s: %s did not answer as wanted: %w; last: %s", c.Name, url, err, last)
	}
	return nil
}
