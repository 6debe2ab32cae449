package config

import "strings"

// AlertGate refuses upgrades while one of its queries gives a result:
//
//	alert_gate:
//	  url: "http://localhost:9090"
//	  queries: ['ALERTS{alertstate="firing",severity="critical"}']
//	  on_error: fail
type AlertGate struct {
	URL     string   `yaml:"url"`      // of a Prometheus, without /api
	Queries []string `yaml:"queries"`  // PromQL; without any: the critical alerts that fire
	OnError string   `yaml:"on_error"` // warn | fail, when it cannot be asked; empty: fail
}

// firingCritical is the query of a gate that names none. Prometheus keeps a
// series ALERTS for each pending and firing alert:
// https://prometheus.io/docs/prometheus/latest/configuration/alerting_rules/#inspecting-alerts-during-runtime
// This program's own alerts that an upgrade ends do not stand in its way.
const firingCritical = `ALERTS{alertstate="firing",severity="critical",alertname!~"ComponentVersionVulnerable|UpgradeFailed"}`

// complete fills in what the file leaves out.
func (g *AlertGate) complete() {
	if g == nil {
		return
	}
	g.URL = strings.TrimRight(g.URL, "/")
	if len(g.Queries) == 0 {
		g.Queries = []string{firingCritical}
	}
	if g.OnError == "" {
		g.OnError = "fail"
	}
}

func (v *validator) alertGate(g *AlertGate) {
	if g == nil {
		return
	}
	path := []any{"alert_gate", "url"}
	if g.URL == "" {
		v.fail([]any{"alert_gate"}, `url is not given; want the address of a Prometheus such as "http://localhost:9090"`)
	} else if err := checkURL(g.URL); err != nil {
		v.fail(path, "%s %v", v.quote(path, showURL(g.URL)), err)
	}
	for i, q := range g.Queries {
		if strings.TrimSpace(q) == "" {
			v.fail([]any{"alert_gate", "queries", i}, "the query is empty")
		}
	}
	if g.OnError != "" {
		v.oneOf([]any{"alert_gate", "on_error"}, g.OnError, "warn", "fail")
	}
}
