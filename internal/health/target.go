package health

import (
	"slices"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/service"
)

// Spec is what a component must answer and do: the parts of its definition that
// probes need, placeholders expanded, secrets not. It fits the journal, so that
// recovery can prove health without the definition.
type Spec struct {
	Health     component.Health `json:"health"`
	Client     component.Client `json:"client,omitzero"`
	Functional []component.Test `json:"functional,omitempty"`
}

// NewSpec takes the spec from a definition.
func NewSpec(c *component.Component, vars component.Vars) Spec {
	vars = vars.WithURL(c.Health)
	s := Spec{Health: c.Health, Client: NewClient(c, vars), Functional: ExpandTests(c.Functional, vars)}
	for _, text := range []*string{&s.Health.URL, &s.Health.MetricsURL, &s.Health.Startup.URL} {
		*text = vars.Expand(*text)
	}
	return s
}

// NewClient takes the client from a definition, its files where --root puts them.
func NewClient(c *component.Component, vars component.Vars) component.Client {
	client := c.Client
	client.CA, client.Cert, client.Key = vars.Path(client.CA), vars.Path(client.Cert), vars.Path(client.Key)
	return client
}

// ExpandTests returns the tests with their placeholders expanded.
func ExpandTests(tests []component.Test, vars component.Vars) []component.Test {
	out := slices.Clone(tests)
	for i, t := range out {
		if t.HTTP != nil {
			h := *t.HTTP
			h.URL, h.Body = vars.Expand(h.URL), vars.Expand(h.Body)
			if h.ForEach != nil {
				each := *h.ForEach
				each.URL = vars.Expand(each.URL)
				h.ForEach = &each
			}
			out[i].HTTP = &h
		}
		if t.PromQL != nil {
			q := *t.PromQL
			q.URL, q.Query = vars.Expand(q.URL), vars.Expand(q.Query)
			out[i].PromQL = &q
		}
		if t.TCP != nil {
			out[i].TCP = &component.TCPTest{Address: vars.Expand(t.TCP.Address)}
		}
		if t.Exec != nil {
			out[i].Exec = &component.ExecTest{Command: vars.ExpandAll(t.Exec.Command), Match: t.Exec.Match}
		}
	}
	return out
}

// Target is what to probe on one component.
type Target struct {
	Component  string
	Instance   string // of several; may be empty
	Service    service.Service
	Executable string // path the running process must have been started from; "" = any
	Spec       Spec
	Version    component.Version // the version it must report; zero = any
	// Mend is the command to type where what runs is not what is installed; empty
	// in a run, which mends by itself.
	Mend    string
	Timeout time.Duration // how long it may take to become ready
	// Measure is how long the use of processors is watched for; 0 = not at all.
	// Await measures while it watches the component settle.
	Measure time.Duration

	// Restarts is how often the unit had been restarted by itself before what is
	// proved; a start by hand counts from zero, a reload does not.
	Restarts int

	// Excused names checks that failed before the upgrade as well: where they
	// still do, that is a warning, as the new version is not to blame.
	Excused []string
}

// NewTarget builds the target of a component from its definition. vars expand
// the placeholders; timeout holds where the definition sets none.
func NewTarget(c *component.Component, svc service.Service, vars component.Vars, timeout time.Duration) Target {
	t := Target{Component: c.Name, Instance: vars.Instance, Service: svc, Spec: NewSpec(c, vars), Timeout: timeout}
	if d := c.Health.Timeout; d > 0 {
		t.Timeout = d.Std()
	}
	return t
}

// inRun reports whether a run asks, rather than a person who wants to know.
func (t Target) inRun() bool { return t.Mend == "" }

// mend is what to add to the text of a check that a restart would mend.
func (t Target) mend() string {
	if t.Mend == "" {
		return ""
	}
	return "; type: " + t.Mend
}

// hasService reports whether the definition names anything that runs: a unit or a
// command line.
func (t Target) hasService() bool { return t.Service.Unit != "" || len(t.Service.Command) > 0 }

// settle is how long the component must stay healthy with one process.
func (t Target) settle() time.Duration { return t.Spec.Health.Settle.Std() }
