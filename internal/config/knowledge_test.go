package config

import (
	"strings"
	"testing"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// The built-in knowledge is well formed, every entry names its source, and the
// administrator's file comes before it.
func TestKnowledge(t *testing.T) {
	k := Knowledge()
	if len(k.Paths) == 0 || len(k.OneWay) == 0 || len(k.Blacklist) == 0 || len(k.Compatibility) == 0 || len(k.Channels) == 0 {
		t.Fatalf("%+v", k)
	}
	sourced := func(what, reason, reference string) {
		t.Helper()
		if reason == "" || !strings.HasPrefix(reference, "https://") {
			t.Errorf("%s: reason %q, reference %q", what, reason, reference)
		}
	}
	for name, rules := range k.Compatibility {
		for when, others := range rules {
			for other, n := range others {
				sourced(name+" "+when+" needs "+other, n.Reason, n.Reference)
			}
		}
	}
	for name, list := range k.Paths {
		for _, p := range list {
			sourced(name+" to "+p.To, p.Reason, p.Reference)
		}
	}
	for name, list := range k.OneWay {
		for _, e := range list {
			sourced(name+" to "+e.To, e.Reason, e.Reference)
		}
	}
	for _, b := range k.Blacklist {
		sourced(b.Component+" "+b.Version, b.Reason, b.Reference)
	}
	for name, lines := range k.Channels {
		for line, c := range lines {
			sourced(name+" "+line, "-", c.Reference)
		}
	}
	if r, err := ParseRange(k.Channels["prometheus"]["lts"].Versions); err != nil || !r.Contains(component.MustParseVersion("3.5.3")) || r.Contains(component.MustParseVersion("3.6.0")) {
		t.Errorf("prometheus lts: %v, %v", r, err)
	}
}

func TestMatrixOverKnowledge(t *testing.T) {
	root := newRoot(t)
	m, err := LoadMatrix(root)
	if err != nil {
		t.Fatal(err)
	}
	m.Add(Knowledge())
	if m.Paths["prometheus"][0].From != ">=2.55.0" {
		t.Errorf("without a file: %+v", m.Paths)
	}
	write(t, root.Matrix(), `
compatibility:
  prometheus:
    ">=3.0.0": {alertmanager: ">=0.25.0"}
    "2.49.x": {alertmanager: {needs: ">=0.26.0", reason: because}}
paths:
  prometheus: [{to: ">=3.0.0", from: ">=2.53.0", reason: ours}]
blacklist: [{component: prometheus, version: "2.48.0"}]
channels: {loki: {stable: {versions: 3.x}}}
`, 0o644)
	if m, err = LoadMatrix(root); err != nil {
		t.Fatal(err)
	}
	m.Add(Knowledge())
	if p := m.Paths["prometheus"]; len(p) != 1 || p[0].Reason != "ours" {
		t.Errorf("paths: %+v", p)
	}
	if got := m.Compatibility["prometheus"]; got[">=3.0.0"]["alertmanager"].Needs != ">=0.25.0" || got["2.49.x"]["alertmanager"].Reason != "because" {
		t.Errorf("compatibility: %+v", got)
	}
	if len(m.OneWay["grafana"]) == 0 || len(m.Blacklist) != 1+len(Knowledge().Blacklist) || m.Channels["prometheus"]["lts"].Versions == "" || m.Channels["loki"]["stable"].Versions != "3.x" {
		t.Errorf("what the file says nothing of is lost: %+v", m)
	}
	write(t, root.Matrix(), "compatibility: {prometheus: {2.x: {alertmanager: {need: 1}}}}\n", 0o644)
	if _, err := LoadMatrix(root); err == nil || !strings.Contains(err.Error(), `did you mean "needs"`) {
		t.Errorf("%v", err)
	}
}
