package health

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

const (
	requestTimeout = 5 * time.Second
	maxBody        = 16 << 20
)

// answer is what a component said.
type answer struct {
	status int
	kind   string // media type
	body   []byte
}

func (a answer) ok() bool { return a.status >= 200 && a.status <= 299 }

// isPage reports whether the answer is a page for people, which programs give
// that answer 200 on any path.
func (a answer) isPage() bool {
	return strings.HasPrefix(a.kind, "text/html") || bytes.HasPrefix(bytes.ToLower(bytes.TrimSpace(a.body[:min(len(a.body), 64)])), []byte("<"))
}

// refused reports an answer that asks for credentials.
func (a answer) refused() bool {
	return a.status == http.StatusUnauthorized || a.status == http.StatusForbidden
}

// request is one question.
type request struct {
	method  string
	url     string
	headers map[string]string
	body    string
}

// client makes the HTTP client of one component: no proxy, as local services
// need none, and no kept connections, as a probe must meet the process that
// listens now.
func (p *Prober) client(c component.Client) (*http.Client, error) {
	if p.HTTP != nil {
		return p.HTTP, nil
	}
	t := &http.Transport{DisableKeepAlives: true, Proxy: nil}
	if c.CA != "" || c.Cert != "" || c.ServerName != "" {
		conf := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName}
		if c.CA != "" {
			certs, err := p.pem("client.ca", c.CA)
			if err != nil {
				return nil, err
			}
			conf.RootCAs = x509.NewCertPool()
			if !conf.RootCAs.AppendCertsFromPEM(certs) {
				return nil, fmt.Errorf("client.ca: %s holds no PEM certificate", c.CA)
			}
		}
		if c.Cert != "" {
			cert, err := p.pem("client.cert", c.Cert)
			if err != nil {
				return nil, err
			}
			key, err := p.pem("client.key", c.Key)
			if err != nil {
				return nil, err
			}
			pair, err := tls.X509KeyPair(cert, key)
			if err != nil {
				return nil, fmt.Errorf("client.cert: %w", err)
			}
			conf.Certificates = []tls.Certificate{pair}
		}
		t.TLSClientConfig = conf
	}
	// A redirect to a page to log in is no answer of the address asked for.
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &http.Client{Transport: t, CheckRedirect: stay}, nil
}

// pem reads a file of certificates or a key. Where a ${SECRET:NAME} stands in its
// place, that is the PEM text itself; one in a path is a part of it.
func (p *Prober) pem(key, path string) ([]byte, error) {
	text, err := p.expand(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	if strings.HasPrefix(strings.TrimSpace(text), "-----BEGIN ") {
		return []byte(text), nil
	}
	data, err := os.ReadFile(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return data, nil
}

// secretError says that a secret or a variable cannot be had.
type secretError struct{ err error }

func (e *secretError) Error() string { return e.err.Error() }

// Unwrap is the cause.
func (e *secretError) Unwrap() error { return e.err }

// expand reads the secrets in a text, at the moment they are needed.
func (p *Prober) expand(text string) (string, error) {
	if p.Expand == nil || !strings.Contains(text, "$") {
		return text, nil
	}
	out, err := p.Expand(text)
	if err != nil {
		err = &secretError{err}
	}
	return out, err
}

// spared reports whether an error leaves a check undecided: it is about a secret,
// and this prober does without those that cannot be had.
func (p *Prober) spared(err error) bool {
	var e *secretError
	return p.SpareSecrets && errors.As(err, &e)
}

// silentError says that a question was put and no whole answer came.
type silentError struct{ err error }

func (e *silentError) Error() string { return e.err.Error() }

// Unwrap is the cause.
func (e *silentError) Unwrap() error { return e.err }

// ask sends one request with the component's credentials.
func (p *Prober) ask(ctx context.Context, c component.Client, q request) (answer, error) {
	client, err := p.client(c)
	if err != nil {
		return answer{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if q.method == "" {
		q.method = http.MethodGet
	}
	req, err := http.NewRequestWithContext(ctx, q.method, q.url, strings.NewReader(q.body))
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("User-Agent", "observability-upgrade")
	for name, value := range q.headers {
		if value, err = p.expand(value); err != nil {
			return answer{}, err
		}
		req.Header.Set(name, value)
	}
	if err := p.authorize(req, c); err != nil {
		return answer{}, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, &silentError{err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	switch {
	case err != nil:
		err = &silentError{err}
	case len(body) > maxBody:
		err = fmt.Errorf("the answer is longer than %d MiB", maxBody>>20)
	}
	return answer{status: resp.StatusCode, kind: resp.Header.Get("Content-Type"), body: body}, err
}

func (p *Prober) authorize(req *http.Request, c component.Client) error {
	if c.Bearer != "" {
		token, err := p.expand(c.Bearer)
		if err != nil {
			return fmt.Errorf("client.bearer: %w", err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if c.Username != "" {
		name, err := p.expand(c.Username)
		if err != nil {
			return fmt.Errorf("client.username: %w", err)
		}
		password, err := p.expand(c.Password)
		if err != nil {
			return fmt.Errorf("client.password: %w", err)
		}
		req.SetBasicAuth(name, password)
	}
	return nil
}

// Post sends an empty POST, as reload and snapshot addresses want it, and
// returns the status and the body of the answer.
func (p *Prober) Post(ctx context.Context, c component.Client, url string) (status int, body []byte, err error) {
	a, err := p.ask(ctx, c, request{method: http.MethodPost, url: url})
	if err != nil {
		err = plainHTTPError(err)
	}
	return a.status, a.body, err
}

func plainHTTPError(err error) error {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return errors.New("connection refused: nothing listens there")
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("no answer within %s", requestTimeout)
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return op
	}
	return err
}

func firstLine(b []byte) string {
	line, _, _ := bytes.Cut(bytes.TrimSpace(b), []byte("\n"))
	return string(line[:min(len(line), 120)])
}
