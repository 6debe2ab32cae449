package notify

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// userAgent names this program to servers.
const userAgent = "observability-upgrade"

// client makes requests for one channel. It keeps no connection, goes by the usual
// proxy variables, and follows no redirect.
func client(conf *tls.Config) *http.Client {
	return &http.Client{
		Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, TLSClientConfig: conf, ForceAttemptHTTP2: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// request sends a body to an address and wants a 2xx. Errors tell the host, and no
// more of the address.
func request(ctx context.Context, c *http.Client, method, address string, body []byte, header http.Header) error {
	u, err := url.Parse(address)
	if err != nil {
		return permanent(errors.New("its address is none"))
	}
	where := fmt.Sprintf("%s to %s", method, u.Host)
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return permanent(fmt.Errorf("%s: %w", where, withoutURL(err)))
	}
	req.Header = header
	if host := header.Get("Host"); host != "" {
		req.Host = host
	}
	resp, err := c.Do(req)
	if err != nil {
		return fmt.Errorf("%s: %w", where, cause(ctx, withoutURL(err)))
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if resp.StatusCode/100 == 2 {
		return nil // what else it says does not matter
	}
	if err != nil {
		said = nil
	}
	return fmt.Errorf("%s: %w", where, fromStatus(resp, excerpt(said), time.Now()))
}
