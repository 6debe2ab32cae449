package upstream

import (
	"context"
	"crypto/x509"
	"net/http/httptrace"
	"net/url"
	"sync"
	"time"
)

// meet lets the first request to a host make its connection alone: where it speaks
// HTTP/2, all others go through that one, and else each of them would have made one of
// its own by then. They wait until the first is written or has failed, or patience is
// over. met must be called when the request has ended.
//
// Without TLS there is no HTTP/2, and nobody waits.
func (c *Client) meet(ctx context.Context, u *url.URL) (with context.Context, met func()) {
	if u.Scheme != "https" {
		return ctx, func() {}
	}
	c.mu.Lock()
	ready, others := c.met[origin(u)]
	if !others {
		ready = make(chan struct{})
		c.met[origin(u)] = ready
	}
	c.mu.Unlock()
	if others {
		patience := time.NewTimer(c.patience)
		defer patience.Stop()
		select {
		case <-ready:
		case <-patience.C:
		case <-ctx.Done():
		}
		return ctx, func() {}
	}
	once := sync.OnceFunc(func() { close(ready) })
	// The certificates that the system trusts are read once, which takes a while: it
	// need not begin when the server has shown its own.
	var roots sync.WaitGroup
	roots.Go(func() { _, _ = x509.SystemCertPool() }) // verifying reports what is wrong with them
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteRequest: func(httptrace.WroteRequestInfo) { once() },
	}), func() { once(); roots.Wait() }
}
