package discovery

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// maxAnswer bounds what is read of a store's answer, in bytes.
const maxAnswer = 16 << 20

// consulEntry is one element of the answer to /v1/health/service/NAME, as far as
// it is used.
type consulEntry struct {
	Node    *consulNode
	Service *consulService
}

type consulNode struct{ Node, Address string }

type consulService struct {
	ID      string
	Address string
	Port    int
	Meta    map[string]string
}

// consul asks an agent for all instances of the service, those that fail their
// checks included: they are upgraded too.
func (f *finder) consul(ctx context.Context) ([]component.Instance, error) {
	u, err := url.Parse(f.in.Address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("instances.address %q is not an http or https URL; want the agent's, such as http://127.0.0.1:8500", f.in.Address)
	}
	u = u.JoinPath("v1", "health", "service", url.PathEscape(f.in.Service))
	token, err := f.secret("token", f.in.Token)
	if err != nil {
		return nil, err
	}
	data, err := f.get(ctx, u, token)
	if err != nil {
		return nil, fmt.Errorf("ask Consul at %s: %w", u.Redacted(), err)
	}
	entries, err := decodeConsul(data)
	if err != nil {
		return nil, fmt.Errorf("answer of %s: %w", u.Redacted(), err)
	}
	out, err := f.consulInstances(entries)
	if err != nil {
		return nil, fmt.Errorf("service %s in Consul at %s: %w", f.in.Service, u.Redacted(), err)
	}
	return out, nil
}

// get asks once. Redirects are not followed: they would carry the token along.
func (f *finder) get(ctx context.Context, u *url.URL, token string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	if token != "" {
		req.Header.Set("X-Consul-Token", token)
	}
	client, err := f.client()
	if err != nil {
		return nil, err
	}
	next := "; type: curl -sS " + shellQuote(u.Redacted())
	resp, err := client.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) { // it repeats the address, which is named already
			err = ue.Err
		}
		var untrusted *tls.CertificateVerificationError
		switch {
		case ctx.Err() != nil:
			err = context.Cause(ctx)
		case errors.As(err, &untrusted):
			return nil, fmt.Errorf("%w; instances.ca must be the PEM file of who signed the agent's certificate", err)
		}
		return nil, fmt.Errorf("%w: is a Consul agent running there?%s", err, next)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case resp.StatusCode == http.StatusForbidden || resp.StatusCode == http.StatusUnauthorized:
		return nil, fmt.Errorf("%s (%s): instances.token must be that of a policy with service_prefix \"\" { policy = \"read\" } and node_prefix \"\" { policy = \"read\" }%s",
			resp.Status, excerpt(data), next+" -H \"X-Consul-Token: …\"")
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("answered %s (%s), expected 200 OK%s", resp.Status, excerpt(data), next)
	case err != nil:
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("the answer breaks off after %d bytes: %w", len(data), err)
	case len(data) > maxAnswer:
		return nil, fmt.Errorf("the answer is larger than %d MiB", maxAnswer>>20)
	case resp.Header.Get("X-Consul-Results-Filtered-By-ACLs") == "true":
		return nil, errors.New("instances.token may not see all of the answer (X-Consul-Results-Filtered-By-ACLs); " +
			"its policy needs service_prefix \"\" { policy = \"read\" } and node_prefix \"\" { policy = \"read\" }")
	}
	return data, nil
}

// client is the caller's, or a direct one. Where the definition has a CA, it is
// the only one that is trusted.
func (f *finder) client() (*http.Client, error) {
	out := http.Client{}
	transport := &http.Transport{DisableKeepAlives: true}
	if f.o.HTTP != nil {
		out = *f.o.HTTP
	}
	switch t := out.Transport.(type) {
	case nil:
		if f.o.HTTP == nil || f.in.CA != "" {
			out.Transport = transport
		}
	case *http.Transport:
		transport = t
	}
	if f.in.CA != "" {
		roots, err := f.authorities()
		if err != nil {
			return nil, err
		}
		transport = transport.Clone()
		transport.DisableKeepAlives = true // it lives for one request
		if transport.TLSClientConfig == nil {
			transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		transport.TLSClientConfig.RootCAs = roots
		out.Transport = transport
	}
	out.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &out, nil
}

// decodeConsul reads an answer. Fields that are not used may be anything.
func decodeConsul(data []byte) ([]consulEntry, error) {
	const want = "want Consul's list of {Node, Service, Checks}; is instances.address that of a Consul agent (its HTTP port, 8500)?"
	var out []consulEntry
	if err := json.Unmarshal(data, &out); err != nil {
		return nil, fmt.Errorf("%w: %s; %s", err, excerpt(data), want)
	}
	if out == nil {
		return nil, fmt.Errorf("is null; %s", want)
	}
	for i, e := range out {
		switch {
		case e.Node == nil || e.Service == nil:
			return nil, fmt.Errorf("element %d has no Node or no Service; %s", i, want)
		case e.Service.ID == "":
			return nil, fmt.Errorf("element %d (node %q) has no Service.ID; %s", i, e.Node.Node, want)
		case e.Service.Port < 0 || e.Service.Port > 65535:
			return nil, fmt.Errorf("service %q has port %d; want 0 to 65535", e.Service.ID, e.Service.Port)
		}
	}
	return out, nil
}

func (f *finder) consulInstances(entries []consulEntry) ([]component.Instance, error) {
	out := []component.Instance{}
	nodes := map[string]string{}
	for _, e := range entries {
		if other, twice := nodes[e.Service.ID]; twice {
			return nil, fmt.Errorf("two instances have the ID %q, on the nodes %q and %q; register each with an ID of its own", e.Service.ID, other, e.Node.Node)
		}
		nodes[e.Service.ID] = e.Node.Node
		i, err := f.consulInstance(e)
		if err != nil {
			return nil, err
		}
		out = append(out, i)
	}
	return out, nil
}

func (f *finder) consulInstance(e consulEntry) (component.Instance, error) {
	s := e.Service
	i := component.Instance{Name: s.ID, Service: s.Meta["unit"], Server: s.Meta["server"]}
	if err := checkName(i.Name); err != nil {
		return i, fmt.Errorf("the ID of a service on node %q: %w", e.Node.Node, err)
	}
	if err := checkUnit(i.Service); err != nil {
		return i, fmt.Errorf("%s: meta key unit: %w", i.Name, err)
	}
	isHere := f.runsHere(e)
	address := s.Address
	if address == "" || !isHere && unspecific(address) {
		address = e.Node.Address
	}
	if !validHost(address) {
		return i, fmt.Errorf("%s: its address %q is neither an IP address nor a host name", i.Name, address)
	}
	i.Health = f.c.Health.At(address, s.Port)
	if u := s.Meta["health_url"]; u != "" {
		if err := checkURL(u); err != nil {
			return i, fmt.Errorf("%s: meta key health_url: %w", i.Name, err)
		}
		if i.Health == nil {
			h := f.c.Health
			i.Health = &h
		}
		i.Health.URL = u
	}
	if isHere {
		if i.Service == "" {
			i.Service = f.c.Name + "@" + i.Name + ".service"
		}
		return i, nil
	}
	var err error
	i.Exec, err = f.exec(i.Name, address)
	return i, err
}

// runsHere decides by the service's own address where that says which host it
// is. Else, and where it is the node's, the node decides, by name or address.
func (f *finder) runsHere(e consulEntry) bool {
	if unspecific(e.Service.Address) || e.Service.Address == e.Node.Address {
		return f.here.named(e.Node.Node) || f.here.local(e.Node.Address)
	}
	return f.here.local(e.Service.Address)
}

// excerpt is the beginning of an answer, on one line.
func excerpt(data []byte) string {
	const most = 120
	s := strings.Join(strings.Fields(string(data[:min(len(data), 4*most)])), " ")
	if s == "" {
		return "empty answer"
	}
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "…"
	}
	return fmt.Sprintf("%q", s)
}

// shellQuote makes s one word of a shell command.
func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
