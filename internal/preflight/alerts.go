package preflight

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/health"
)

// Gate is the alert gate: nothing is upgraded while one of its queries gives a
// result. It guards upgrades alone; rollback and recovery never ask it.
type Gate struct {
	URL     string // of a Prometheus, without /api
	Queries []string
	OnError component.CheckStatus // when it cannot be asked: CheckFail or CheckWarn
}

const (
	maxGateAnswer = 16 << 20
	maxNamed      = 5 // alerts named in a message
)

func (c *checker) gateError() component.CheckStatus {
	if c.Gate == nil || c.Gate.OnError == "" {
		return component.CheckFail
	}
	return c.Gate.OnError
}

// silentGate is what silence counts as. That of the only component in the plan
// is itself the reason to repair it.
func (c *checker) silentGate() component.CheckStatus {
	if _, own := c.ownGate(); own {
		return component.CheckWarn
	}
	return c.gateError()
}

// checkAlerts asks all queries of the gate.
func (c *checker) checkAlerts(ctx context.Context) finding {
	if c.Gate == nil {
		return found(skipped(AlertGate, "", "none is configured"))
	}
	var checks []component.Check
	for _, q := range c.Gate.Queries {
		series, err := c.query(ctx, q)
		next := "curl -G " + c.Gate.URL + "/api/v1/query --data-urlencode 'query=" + q + "'"
		switch {
		case err != nil:
			check := fail(AlertGate, "", next, "%s: expected an answer to `%s`, found: %v", c.Gate.URL, q, plainError(err))
			check.Status = c.gateError()
			checks = append(checks, check)
		case len(series) > 0:
			checks = append(checks, fail(AlertGate, "", next, "`%s`: expected nothing, found %s", q, nameSeries(series)))
		}
	}
	if len(checks) == 0 {
		return found(ok(AlertGate, "", "no query of %s gives a result", c.Gate.URL))
	}
	if slices.ContainsFunc(checks, func(ch component.Check) bool { return ch.Status == component.CheckFail }) && c.repairsGate(ctx) {
		for i := range checks {
			checks[i].Status = component.CheckWarn
			checks[i].Detail += "; it does not stand in the way of repairing the component that answers it"
		}
	}
	return found(checks...)
}

// repairsGate reports whether the plan is about nothing but the unhealthy
// component that the gate's address belongs to: what it says is not to be
// trusted, and the way out must not be blocked.
func (c *checker) repairsGate(ctx context.Context) bool {
	t, own := c.ownGate()
	return own && c.Prober != nil && !c.Prober.Once(ctx, t).Healthy
}

// ownGate is the probe of the plan's only component, where that answers the
// gate.
func (c *checker) ownGate() (health.Target, bool) {
	if c.Gate == nil || len(c.steps) != 1 || c.Target == nil {
		return health.Target{}, false
	}
	t, err := c.Target(c.steps[0].in)
	return t, err == nil && (sameServer(c.Gate.URL, t.Spec.Health.URL) || sameServer(c.Gate.URL, t.Spec.Health.MetricsURL))
}

// sameServer compares host and port; every name of this host's loopback counts
// as one.
func sameServer(a, b string) bool {
	ha, hb := serverOf(a), serverOf(b)
	return ha != "" && ha == hb
}

func serverOf(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return ""
	}
	host, port := strings.ToLower(u.Hostname()), u.Port()
	if ip := net.ParseIP(host); host == "localhost" || ip != nil && ip.IsLoopback() {
		host = "localhost"
	}
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(host, port)
}

// gateAnswer is the answer of /api/v1/query:
// https://prometheus.io/docs/prometheus/latest/querying/api/#instant-queries
type gateAnswer struct {
	Status string `json:"status"`
	Error  string `json:"error"`
	Data   struct {
		Type   string          `json:"resultType"`
		Result json.RawMessage `json:"result"`
	} `json:"data"`
}

type series struct {
	Labels map[string]string `json:"metric"`
}

func (c *checker) query(ctx context.Context, q string) ([]series, error) {
	address := strings.TrimRight(c.Gate.URL, "/") + "/api/v1/query?query=" + url.QueryEscape(q)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "observability-upgrade")
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxGateAnswer))
	if err != nil {
		return nil, err
	}
	return decodeGate(resp.StatusCode, body)
}

// decodeGate is the series of an answer.
func decodeGate(code int, body []byte) ([]series, error) {
	var a gateAnswer
	decodeErr := json.Unmarshal(body, &a)
	switch {
	case decodeErr == nil && a.Status == "error":
		return nil, fmt.Errorf("%d: %s", code, a.Error)
	case code != http.StatusOK:
		return nil, fmt.Errorf("it answered %d, expected 200", code)
	case decodeErr != nil:
		return nil, fmt.Errorf("it is no answer of Prometheus: %w", decodeErr)
	case a.Status != "success":
		return nil, fmt.Errorf("it is no answer of Prometheus: status is %q", a.Status)
	case a.Data.Type != "vector" && a.Data.Type != "matrix":
		return nil, fmt.Errorf("the query gives a %q, want a vector: one series for each alert", a.Data.Type)
	}
	var list []series
	if err := json.Unmarshal(a.Data.Result, &list); err != nil {
		return nil, fmt.Errorf("it is no answer of Prometheus: %w", err)
	}
	if list == nil { // a null says nothing of what fires
		return nil, errors.New("it is no answer of Prometheus: it holds no result")
	}
	return list, nil
}

// nameSeries names alerts by their labels, the first few of them in a fixed
// order.
func nameSeries(list []series) string {
	names := make([]string, 0, len(list))
	for _, s := range list {
		names = append(names, s.name())
	}
	slices.Sort(names)
	out := strings.Join(names[:min(len(names), maxNamed)], ", ")
	if n := len(names) - maxNamed; n > 0 {
		out += fmt.Sprintf(" and %d more", n)
	}
	return out
}

// name is the alert's name, or the metric's, with the labels that tell it from
// others.
func (s series) name() string {
	name := s.Labels["alertname"]
	if name == "" {
		name = s.Labels["__name__"]
	}
	var labels []string
	for _, k := range slices.Sorted(maps.Keys(s.Labels)) {
		if k != "alertname" && k != "__name__" && k != "alertstate" {
			labels = append(labels, fmt.Sprintf("%s=%q", k, s.Labels[k]))
		}
	}
	return name + "{" + strings.Join(labels, ",") + "}"
}
