package plan

import (
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

func TestSpecificationExample(t *testing.T) {
	p := make1(t, specification())
	want := map[string]string{"prometheus": "2.49.0", "loki": "2.9.4", "node_exporter": "1.8.0"}
	if got := targets(p); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	var names []string
	for _, s := range p.Steps() {
		names = append(names, s.Component)
	}
	if got := strings.Join(names, " "); got != "node_exporter loki prometheus" {
		t.Errorf("order %s", got)
	}
	if len(p.Phases) != 2 || p.Phases[0].Name != "Exporters" || p.Phases[1].Name != "Data Stores" || p.Phases[1].Number != 2 {
		t.Errorf("phases %+v", p.Phases)
	}
	if p.EstimatedSeconds != 40 || p.DownloadBytes != 245_000_000 || p.Phases[1].EstimatedSeconds != 35 {
		t.Errorf("%d s, %d bytes", p.EstimatedSeconds, p.DownloadBytes)
	}
	if len(p.Held) != 0 || len(p.Warnings) != 0 {
		t.Errorf("held %v, warnings %v", p.Held, p.Warnings)
	}
	if all := p.AllPhases(); len(all) != 6 || all[5].Number != 6 || len(all[5].Steps) != 0 {
		t.Errorf("all phases: %+v", all)
	}
}

func TestRules(t *testing.T) {
	prom := func() Installed {
		return comp("prometheus", component.RoleDatastore, "2.48.1", "2.49.0", "2.48.2", "2.48.1")
	}
	alert := func(cur string, rel ...string) Installed {
		return comp("alertmanager", component.RoleAlerting, cur, rel...)
	}
	needs := Rule{"prometheus", rng("2.49.x"), "alertmanager", rng(">=0.26.0"), ""}
	lokiRules := []Rule{
		{"loki", rng("3.x"), "promtail", rng("3.x"), ""},
		{"loki", rng("2.9.x"), "promtail", rng("2.9.x"), ""},
	}
	tests := []struct {
		name    string
		in      Input
		want    map[string]string
		reasons map[string]string // of candidates in the report
		warn    string
	}{
		{
			"other on hold: next best",
			func() Input {
				in := input(prom(), alert("0.25.0", "0.26.0"))
				in.Rules, in.Holds = []Rule{needs}, []Hold{{Component: "alertmanager"}}
				return in
			}(),
			map[string]string{"prometheus": "2.48.2"},
			map[string]string{"prometheus": "prometheus 2.49.0 needs alertmanager >=0.26.0; alertmanager is 0.25.0 and on hold"},
			"",
		},
		{
			"other at its newest: held",
			func() Input {
				in := input(comp("prometheus", component.RoleDatastore, "2.48.1", "2.49.0"), alert("0.25.0", "0.25.0"))
				in.Rules = []Rule{needs}
				return in
			}(),
			map[string]string{},
			map[string]string{"prometheus": "alertmanager is 0.25.0, and upstream has nothing newer"},
			"",
		},
		{
			"other goes along",
			func() Input {
				in := input(prom(), alert("0.25.0", "0.26.0"))
				in.Rules = []Rule{needs}
				return in
			}(),
			map[string]string{"prometheus": "2.49.0", "alertmanager": "0.26.0"},
			nil, "",
		},
		{
			"other not installed",
			func() Input { in := input(prom()); in.Rules = []Rule{needs}; return in }(),
			map[string]string{"prometheus": "2.49.0"},
			nil, "",
		},
		{
			"other's version unknown",
			func() Input {
				in := input(comp("prometheus", component.RoleDatastore, "2.48.1", "2.49.0"), alert(""))
				in.Rules = []Rule{needs}
				return in
			}(),
			map[string]string{},
			map[string]string{"prometheus": "the installed version of alertmanager is not known"},
			"",
		},
		{
			"other not selected",
			func() Input {
				in := input(comp("prometheus", component.RoleDatastore, "2.48.1", "2.49.0"), alert("0.25.0", "0.26.0"))
				in.Rules, in.Selected = []Rule{needs}, []string{"prometheus"}
				return in
			}(),
			map[string]string{},
			map[string]string{"prometheus": "alertmanager is 0.25.0 and not selected"},
			"",
		},
		{
			"rule's component stays: other gives way",
			func() Input {
				in := input(comp("loki", component.RoleDatastore, "2.9.3", "2.9.3"), comp("promtail", component.RoleShipper, "2.9.3", "3.0.0", "2.9.8"))
				in.Rules = lokiRules
				return in
			}(),
			map[string]string{"promtail": "2.9.8"},
			map[string]string{"promtail": "loki 2.9.x needs promtail 2.9.x; loki is 2.9.3, and upstream has nothing newer"},
			"",
		},
		{
			"nothing is lowered in vain",
			func() Input {
				in := input(comp("loki", component.RoleDatastore, "2.9.3", "2.9.8"), comp("promtail", component.RoleShipper, "2.9.3", "3.0.0", "2.9.8"))
				in.Rules = lokiRules
				return in
			}(),
			map[string]string{"loki": "2.9.8", "promtail": "2.9.8"},
			nil, "",
		},
		{
			"both to the next major: no order is compatible in between",
			func() Input {
				in := input(comp("loki", component.RoleDatastore, "2.9.3", "3.0.0"), comp("promtail", component.RoleShipper, "2.9.3", "3.0.0"))
				in.Rules = lokiRules
				return in
			}(),
			map[string]string{},
			map[string]string{"loki": "loki 3.0.0 and promtail 3.0.0 would have to change at the same moment: loki 2.9.3 needs promtail 2.9.x, and loki 3.0.0 needs promtail 3.x"},
			"",
		},
		{
			"both to the next major, forced",
			func() Input {
				in := input(comp("loki", component.RoleDatastore, "2.9.3", "3.0.0"), comp("promtail", component.RoleShipper, "2.9.3", "3.0.0"))
				in.Rules, in.Force = lokiRules, true
				in.Pins = map[string]component.Version{"loki": ver("3.0.0"), "promtail": ver("3.0.0")}
				return in
			}(),
			map[string]string{"loki": "3.0.0", "promtail": "3.0.0"},
			nil, "",
		},
		{
			"a chain of rules ends at the one that cannot follow",
			func() Input {
				in := input(comp("loki", component.RoleDatastore, "2.9.3", "3.0.0"), comp("promtail", component.RoleShipper, "2.9.3", "3.0.0"),
					comp("grafana", component.RoleUI, "9.0.0", "10.0.0"))
				in.Rules = []Rule{lokiRules[0], {"promtail", rng(">=3.0.0"), "grafana", rng(">=10.0.0"), ""}}
				in.Holds = []Hold{{Component: "grafana"}}
				return in
			}(),
			map[string]string{},
			map[string]string{"loki": "loki 3.0.0 needs promtail 3.x; promtail >=3.0.0 needs grafana >=10.0.0; grafana is 9.0.0 and on hold"},
			"",
		},
		{
			"a detour through a version that the matrix asks for in between",
			func() Input {
				in := input(comp("loki", component.RoleDatastore, "1.0.0", "2.0.0", "3.0.0"), comp("promtail", component.RoleShipper, "1.0.0", "3.0.0"))
				in.Rules = []Rule{
					{"loki", rng("3.x"), "promtail", rng("3.x"), ""},
					{"promtail", rng("3.x"), "loki", rng(">=2.0.0"), ""},
				}
				return in
			}(),
			map[string]string{"loki": "3.0.0", "promtail": "3.0.0"},
			nil, "",
		},
		{
			"broken before: no new version that breaks it",
			func() Input {
				in := input(comp("loki", component.RoleDatastore, "2.9.3", "2.9.8"), comp("promtail", component.RoleShipper, "2.8.0", "2.8.0"))
				in.Rules = lokiRules
				return in
			}(),
			map[string]string{},
			map[string]string{"loki": "loki 2.9.8 needs promtail 2.9.x; promtail is 2.8.0, and upstream has nothing newer"},
			"",
		},
		{
			"broken before: the other may move on",
			func() Input {
				in := input(comp("loki", component.RoleDatastore, "2.9.3", "2.9.3"), comp("promtail", component.RoleShipper, "2.8.0", "2.8.5"))
				in.Rules = lokiRules
				return in
			}(),
			map[string]string{"promtail": "2.8.5"},
			nil, "this was so before the upgrade",
		},
		{
			"named version wins over a better one of another",
			func() Input {
				in := input(comp("loki", component.RoleDatastore, "2.9.3", "2.9.8"), comp("promtail", component.RoleShipper, "2.9.3", "3.0.0"))
				in.Rules, in.Selected = lokiRules, []string{"loki", "promtail"}
				in.Pins = map[string]component.Version{"loki": ver("2.9.8")}
				return in
			}(),
			map[string]string{"loki": "2.9.8"},
			map[string]string{"promtail": "loki 2.9.x needs promtail 2.9.x; loki goes to 2.9.8"},
			"",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := make1(t, tt.in)
			if got := targets(p); !maps.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
			r := Check(tt.in)
			for name, want := range tt.reasons {
				if c := find(t, r, name); !strings.Contains(c.Reason, want) {
					t.Errorf("%s: reason %q, want %q", name, c.Reason, want)
				} else if tt.want[name] == "" && c.Action != ActionBlocked {
					t.Errorf("%s: action %s", name, c.Action)
				}
			}
			if warn := strings.Join(p.Warnings, "\n"); !strings.Contains(warn, tt.warn) || tt.warn == "" && warn != "" {
				t.Errorf("warnings %q, want %q", warn, tt.warn)
			}
		})
	}
}

func TestOrder(t *testing.T) {
	e := comp("exp", component.RoleExporter, "1.0.0", "1.1.0")
	d1 := comp("db1", component.RoleDatastore, "1.0.0", "1.1.0")
	d2 := comp("db2", component.RoleDatastore, "1.0.0", "1.1.0")
	a := comp("alert", component.RoleAlerting, "1.0.0", "1.1.0")
	a2 := comp("alert2", component.RoleAlerting, "1.0.0", "1.1.0")
	u := comp("ui", component.RoleUI, "1.0.0", "1.0.0")
	order := func(in Input) string {
		t.Helper()
		var parts []string
		for _, ph := range make1(t, in).Phases {
			s := ph.Name + ":"
			for _, st := range ph.Steps {
				s += " " + st.Component
			}
			parts = append(parts, s)
		}
		return strings.Join(parts, "; ")
	}
	with := func(i Installed, deps ...string) Installed {
		c := *i.Component
		c.DependsOn = deps
		i.Component = &c
		return i
	}
	if got := order(input(a2, d2, e, a, d1, u)); got != "Exporters: exp; Data Stores: db1 db2; Alerting: alert alert2" {
		t.Error(got)
	}
	// A dependency wins over the roles, and a kind appears again.
	if got := order(input(a2, with(d2, "alert"), e, a, d1)); got != "Exporters: exp; Data Stores: db1; Alerting: alert alert2; Data Stores: db2" {
		t.Error(got)
	}
	// Dependencies reach through components that are not upgraded, and those
	// that are not installed do not count.
	if got := order(input(with(e, "ui", "nowhere"), with(u, "db1"), d1)); got != "Data Stores: db1; Exporters: exp" {
		t.Error(got)
	}
	// The matrix wins over the roles.
	in := input(d1, a)
	in.Rules = []Rule{{"db1", rng("1.1.x"), "alert", rng(">=1.1.0"), ""}}
	if got := order(in); got != "Alerting: alert; Data Stores: db1" {
		t.Error(got)
	}
	in = input(e, a)
	in.Rules = []Rule{{"alert", rng("1.0.x"), "exp", rng("1.0.x"), ""}}
	if got := order(in); got != "Alerting: alert; Exporters: exp" {
		t.Error(got)
	}
	// The matrix wins over dependencies too, and a person is told.
	ship := comp("ship", component.RoleShipper, "2.9.0", "3.2.0")
	store := comp("store", component.RoleDatastore, "2.9.0", "3.2.0")
	in = input(with(ship, "store"), store)
	in.Rules = []Rule{{"store", rng("3.x"), "ship", rng("3.x"), ""}}
	if got := order(in); got != "Shippers: ship; Data Stores: store" {
		t.Error(got)
	}
	if w := strings.Join(make1(t, in).Warnings, "\n"); !strings.Contains(w, "ship goes before store, which it depends on") {
		t.Errorf("warnings %q", w)
	}
	_, err := Make(input(with(e, "db1"), with(d1, "db2"), with(d2, "exp"), a))
	var cycle *CycleError
	if !errors.As(err, &cycle) || !strings.Contains(err.Error(), "db1 -> db2 -> exp -> db1") {
		t.Errorf("got %v", err)
	}
	if _, err := Make(input(with(e, "exp"))); !errors.As(err, &cycle) || len(cycle.Components) != 1 {
		t.Errorf("got %v", err)
	}
}

// TestDocuments compares the keys with those of docs/reference.md.
func TestDocuments(t *testing.T) {
	keys := func(v any) map[string]any {
		t.Helper()
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		m := map[string]any{}
		if err := json.Unmarshal(b, &m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	has := func(v any, names ...string) {
		t.Helper()
		m, ok := v.(map[string]any)
		if !ok {
			t.Fatalf("%v is no object", v)
		}
		for _, n := range names {
			if x, ok := m[n]; !ok || x == nil {
				t.Errorf("key %s is missing or null in %v", n, m)
			}
		}
	}
	in := specification()
	in.Holds = []Hold{{Component: "loki"}}
	p := keys(make1(t, in))
	has(p, "id", "phases", "held", "checks", "estimated_seconds", "download_bytes", "backup_path")
	phase := p["phases"].([]any)[0].(map[string]any)
	has(phase, "number", "name", "estimated_seconds", "steps")
	has(phase["steps"].([]any)[0], "component", "from", "to", "type", "asset", "download_bytes")
	has(p["held"].([]any)[0], "component", "current", "candidate", "reason")
	r := keys(Check(in))
	has(r, "checked_at", "components", "errors")
	has(r["components"].([]any)[0], "name", "current", "latest", "type", "release_date", "versions_behind", "action", "reason", "vulnerabilities")
	empty := keys(make1(t, Input{}))
	has(empty, "phases", "held", "checks")
	has(keys(Check(Input{})), "components", "errors")
}

func TestReversible(t *testing.T) {
	in := input(comp("grafana", component.RoleUI, "10.0.0", "11.0.0"))
	in.OneWay = []Edge{{"grafana", rng("<11.0.0"), rng(">=11.0.0"), "with-backup", "", ""}}
	in.Force = true
	if got := make1(t, in).Steps()[0].Reversible; got != "with-backup" {
		t.Error(got)
	}
	in.OneWay = append(in.OneWay, Edge{"grafana", rng("10.x"), rng("11.x"), "no", "", ""})
	if got := make1(t, in).Steps()[0].Reversible; got != "no" {
		t.Error(got)
	}
	if got := make1(t, specification()).Steps()[0].Reversible; got != "yes" {
		t.Error(got)
	}
}
