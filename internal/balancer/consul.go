package balancer

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/observability-upgrade/observability-upgrade/internal/certificate"
	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// consul puts a service into maintenance mode, after which Consul does not give
// it out any more: https://developer.hashicorp.com/consul/api-docs/agent/service.
type consul struct {
	address, token, id string
	http               *http.Client
}

func newConsul(b component.Balancer, server string, o Options) (*consul, error) {
	c := &consul{address: strings.TrimSuffix(b.Address, "/"), token: b.Token, id: server, http: o.HTTP}
	if o.Expand != nil && b.Token != "" {
		var err error
		if c.token, err = o.Expand(b.Token); err != nil {
			return nil, fmt.Errorf("balancer.token: %w", err)
		}
	}
	if b.CA != "" {
		roots, err := certificate.Authorities("balancer.ca", component.Vars{Root: o.Root.Prefix()}.Path(b.CA))
		if err != nil {
			return nil, err
		}
		c.http = &http.Client{Transport: &http.Transport{
			DisableKeepAlives: true, Proxy: nil, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		}}
	}
	return c, nil
}

func (c *consul) ask(ctx context.Context, method, path string, out any) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, c.address+path, nil)
	if err != nil {
		return 0, err
	}
	if c.token != "" {
		req.Header.Set("X-Consul-Token", c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, fmt.Errorf("the Consul agent at %s: %w", c.address, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	if err != nil {
		return 0, fmt.Errorf("the Consul agent at %s: %w", c.address, err)
	}
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusNotFound {
		return resp.StatusCode, fmt.Errorf("the Consul agent at %s answered %d to %s: %.200q", c.address, resp.StatusCode, path, strings.TrimSpace(string(body)))
	}
	if out != nil && resp.StatusCode == http.StatusOK {
		if err := json.Unmarshal(body, out); err != nil {
			return resp.StatusCode, fmt.Errorf("the Consul agent at %s answered %.100q to %s, expected JSON: %w", c.address, body, path, err)
		}
	}
	return resp.StatusCode, nil
}

type consulCheck struct{ CheckID, Status, Notes, ServiceID string }

func (c *consul) State(ctx context.Context) (State, error) {
	st := State{Sessions: -1, Others: -1, Up: true, Admitted: true}
	var svc struct{ Service string }
	code, err := c.ask(ctx, http.MethodGet, "/v1/agent/service/"+url.PathEscape(c.id), &svc)
	if err != nil {
		return st, err
	}
	if code == http.StatusNotFound {
		return st, c.unknown()
	}
	var checks map[string]consulCheck
	if _, err := c.ask(ctx, http.MethodGet, "/v1/agent/checks", &checks); err != nil {
		return st, err
	}
	st.Detail = "passing"
	var own, node string // maintenance, which Detail tells of before a check that fails: Admit goes by it
	for _, ch := range checks {
		switch {
		case ch.CheckID == "_service_maintenance:"+c.id:
			own = "maintenance: " + ch.Notes
		case ch.CheckID == "_node_maintenance":
			node = "node maintenance: " + ch.Notes
		case ch.ServiceID == c.id && ch.Status == "critical":
			st.Up, st.Detail = false, ch.CheckID+" is critical"
		}
	}
	if why := cmp.Or(own, node); why != "" {
		st.Admitted, st.Detail = false, why
	}
	var entries []struct {
		Service struct{ ID string }
	}
	if _, err := c.ask(ctx, http.MethodGet, "/v1/health/service/"+url.PathEscape(svc.Service)+"?passing=1", &entries); err != nil {
		return st, err
	}
	st.Others = 0
	for _, e := range entries {
		if e.Service.ID != c.id {
			st.Others++
		}
	}
	return st, nil
}

func (c *consul) unknown() error {
	return &refusedError{fmt.Errorf("the Consul agent at %s has no service with the ID %s", c.address, c.id)}
}

func (c *consul) maintenance(ctx context.Context, on bool) error {
	q := url.Values{"enable": {fmt.Sprint(on)}}
	if on {
		q.Set("reason", Reason)
	}
	code, err := c.ask(ctx, http.MethodPut, "/v1/agent/service/maintenance/"+url.PathEscape(c.id)+"?"+q.Encode(), nil)
	if err == nil && code == http.StatusNotFound {
		err = c.unknown()
	}
	return err
}

func (c *consul) Drain(ctx context.Context) error {
	st, err := c.State(ctx)
	if err != nil || !st.Admitted {
		return err
	}
	return c.maintenance(ctx, true)
}

// Admit ends a maintenance of this program's; another's, or the whole node's, is left
// alone.
func (c *consul) Admit(ctx context.Context) error {
	st, err := c.State(ctx)
	if err != nil || st.Admitted {
		return err
	}
	if st.Detail != "maintenance: "+Reason {
		return &NotOursError{Server: c.id, State: st.Detail}
	}
	if err := c.maintenance(ctx, false); err != nil {
		return err
	}
	if st, err = c.State(ctx); err == nil && !st.Admitted {
		return &NotOursError{Server: c.id, State: st.Detail}
	}
	return err
}
