package plan

import (
	"testing"
	"time"

	"github.com/Masterminds/semver/v3"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// constraint is a Range as the configuration has it.
type constraint struct {
	text string
	c    *semver.Constraints
}

func (c constraint) Contains(v component.Version) bool { return c.c.Check(v.Semver()) }
func (c constraint) String() string                    { return c.text }

func rng(text string) Range {
	c, err := semver.NewConstraint(text)
	if err != nil {
		panic(err)
	}
	return constraint{text, c}
}

var now = time.Date(2026, 11, 24, 2, 0, 0, 0, time.UTC)

func ver(s string) component.Version { return component.MustParseVersion(s) }

// comp makes an installed component; releases are given in any order.
func comp(name string, role component.Role, current string, releases ...string) Installed {
	c := &component.Component{
		Name: name, Role: role,
		Source: component.Source{Type: component.SourceGitHub, Repo: "example/" + name},
		Asset:  "{name}-{version}.{os}-{arch}.tar.gz",
	}
	in := Installed{Component: c}
	if current != "" {
		in.Current = ver(current)
	}
	for i, r := range releases {
		in.Releases = append(in.Releases, component.Release{
			Version: ver(r), Tag: "v" + r,
			PublishedAt: time.Date(2024, 12, 28-i%28, 0, 0, 0, 0, time.UTC),
			NotesURL:    "https://example.com/" + name + "/releases/tag/v" + r,
			Assets:      []component.Asset{{Name: name + "-" + r + ".linux-amd64.tar.gz", Size: 1_000_000}},
		})
	}
	return in
}

func input(installed ...Installed) Input {
	return Input{Installed: installed, Now: now, OS: "linux", Arch: "amd64"}
}

// specification is the example in docs/specification.md, section 10.
func specification() Input {
	prom := comp("prometheus", component.RoleDatastore, "2.48.1", "2.49.0", "2.48.1", "2.48.0")
	prom.Releases[0].PublishedAt = time.Date(2024, 12, 15, 10, 0, 0, 0, time.UTC)
	prom.Releases[0].Assets[0].Size = 98_000_000
	loki := comp("loki", component.RoleDatastore, "2.9.3", "2.9.4", "2.9.3")
	loki.Releases[0].PublishedAt = time.Date(2024, 12, 18, 10, 0, 0, 0, time.UTC)
	loki.Releases[0].Assets[0].Size = 137_000_000
	node := comp("node_exporter", component.RoleExporter, "1.7.0", "1.8.0", "1.7.0")
	node.Releases[0].PublishedAt = time.Date(2024, 12, 20, 10, 0, 0, 0, time.UTC)
	node.Releases[0].Assets[0].Size = 10_000_000
	in := input(prom, loki, node, comp("alertmanager", component.RoleAlerting, "0.26.0", "0.26.0"))
	in.Rules = []Rule{{Component: "prometheus", When: rng("2.49.x"), Other: "alertmanager", Needs: rng(">=0.26.0")}}
	in.Estimate = func(name string) time.Duration {
		return map[string]time.Duration{"node_exporter": 5 * time.Second, "prometheus": 20 * time.Second}[name]
	}
	return in
}

func make1(t *testing.T, in Input) *Plan {
	t.Helper()
	p, err := Make(in)
	if err != nil {
		t.Fatalf("Make: %v", err)
	}
	return p
}

func targets(p *Plan) map[string]string {
	out := map[string]string{}
	for _, s := range p.Steps() {
		out[s.Component] = s.To.String()
	}
	return out
}

func find(t *testing.T, r CheckReport, name string) Candidate {
	t.Helper()
	for _, c := range r.Components {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("%s is not in the report", name)
	return Candidate{}
}
