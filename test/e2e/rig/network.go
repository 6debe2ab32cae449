package rig

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"
)

// Network connects containers: a bridge in a network namespace of its own,
// without any way to the machine's network. It is safe for concurrent use.
type Network struct {
	c    *Container // name and lock only; there is nothing to boot
	mu   sync.Mutex
	used int
}

// GatewayIP is the address of the bridge: what Network.Listen serves is reached
// there. Containers count up from 10.99.0.2.
const GatewayIP = "10.99.0.1"

// StartNetwork makes a network; it is removed at the end of the test.
func (k *Kit) StartNetwork(ctx context.Context, t testing.TB) *Network {
	t.Helper()
	n := &Network{c: &Container{kit: k, t: t, log: k.log}}
	t.Cleanup(n.c.destroy)
	if err := n.create(ctx); err != nil {
		t.Fatalf("create a network: %v", err)
	}
	return n
}

func (n *Network) create(ctx context.Context) error {
	if err := n.c.reserve(); err != nil {
		return err
	}
	if err := addNetns(ctx, n.c.Name); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"link", "add", "br0", "type", "bridge"},
		{"address", "add", GatewayIP + "/24", "dev", "br0"},
		{"link", "set", "br0", "up"},
	} {
		if _, err := host(ctx, "ip", append([]string{"-netns", n.c.Name}, args...)...); err != nil {
			return err
		}
	}
	return nil
}

// attach gives a container's namespace an interface eth0 on the bridge.
func (n *Network) attach(ctx context.Context, container string) (string, error) {
	n.mu.Lock()
	n.used++
	number := n.used + 1
	n.mu.Unlock()
	if number > 254 {
		return "", fmt.Errorf("network %s is full", n.c.Name)
	}
	ip := fmt.Sprintf("10.99.0.%d", number)
	for _, args := range [][]string{
		{"-netns", n.c.Name, "link", "add", container, "type", "veth", "peer", "name", "eth0", "netns", container},
		{"-netns", n.c.Name, "link", "set", container, "master", "br0", "up"},
		{"-netns", container, "address", "add", ip + "/24", "dev", "eth0"},
		{"-netns", container, "link", "set", "eth0", "up"},
	} {
		if _, err := host(ctx, "ip", args...); err != nil {
			return "", err
		}
	}
	return ip, nil
}

// Cut unplugs a container from the network, or plugs it in again.
func (n *Network) Cut(ctx context.Context, c *Container, cut bool) error {
	state := "up"
	if cut {
		state = "down"
	}
	_, err := host(ctx, "ip", "-netns", n.c.Name, "link", "set", c.Name, state)
	return err
}

// Listen listens in the network's own namespace, usually at GatewayIP, while
// this process serves. The caller closes it.
func (n *Network) Listen(ctx context.Context, network, addr string) (net.Listener, error) {
	return listenIn(ctx, n.c.Name, network, addr)
}

// HTTP returns a client that connects from the bridge.
func (n *Network) HTTP() *http.Client { return clientIn(n.c.Name) }
