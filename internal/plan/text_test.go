package plan

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s differs (-want +got); run with -update if that is meant:\n%s", path, diff)
	}
}

// troubled is a stack in which nearly everything has a reason.
func troubled() Input {
	prom := comp("prometheus", component.RoleDatastore, "2.48.1", "3.0.0", "2.55.1", "2.49.0", "2.48.1")
	node := comp("node_exporter", component.RoleExporter, "1.7.0", "1.8.0", "1.7.0")
	node.Failed = []Failed{{Version: ver("1.8.0"), Reason: "not ready within 60s", At: time.Date(2026, 11, 23, 3, 0, 0, 0, time.UTC)}}
	loki := comp("loki", component.RoleDatastore, "2.9.3", "3.0.0", "2.9.4", "2.9.3")
	alert := comp("alertmanager", component.RoleAlerting, "0.25.0", "0.26.0")
	graf := comp("grafana", component.RoleUI, "10.4.1", "11.0.0")
	black := comp("blackbox_exporter", component.RoleExporter, "0.24.0")
	black.Err = errors.New("GET https://api.github.com/repos/prometheus/blackbox_exporter/releases: 403 \x1b[31mrate limit exceeded\x1b[0m, try again after 02:41")
	nginx := comp("nginx", component.RoleProxy, "1.24.0")
	nginx.Excluded = "managed by the distribution's package manager; upgrade it there"
	in := input(prom, node, loki, alert, graf, black, nginx, comp("promtail", component.RoleShipper, "2.9.3", "2.9.3"))
	in.Installed[0].Releases[1].Assets[0].Size = 0
	in.Paths = []Path{{"prometheus", rng(">=3.0.0"), rng(">=2.55.0"), "the index format changed", "https://prometheus.io/docs/prometheus/3.0/migration/"}}
	in.OneWay = []Edge{{"grafana", rng("<11.0.0"), rng(">=11.0.0"), "with-backup", "the database is migrated", ""}}
	in.Holds = []Hold{{Component: "alertmanager", Reason: "freeze until the audit is over", Until: now.AddDate(0, 1, 0)}}
	in.Rules = []Rule{{"loki", rng("3.x"), "promtail", rng("3.x"), ""}}
	return in
}

// exposed is a stack with known vulnerabilities, and an unattended run that may go
// far to be rid of them.
func exposed() Input {
	in := specification()
	in.Installed[0] = vulnerable(in.Installed[0], "GO-2026-9001<2.49.0", "GO-2026-9002")
	in.Installed[0].Security.Reason = "GO-2026-9012 does not say in the numbers of releases which are affected"
	found := in.Installed[0].Security.Found
	found[0].Aliases, found[0].Severity = []string{"CVE-2026-9001", "GHSA-xxxx-yyyy-zzzz"}, "critical"
	found[0].Summary = "Remote read allows denial of service by a crafted payload that is not checked before memory is taken for it"
	found[1].Severity, found[1].Aliases, found[1].Summary = "unknown", nil, "\x1b[2Jan old user interface shows what it should not"
	in.Installed[0].Security.Found = append(found,
		Vulnerability{ID: "GO-2026-9101", Source: "dependency", Module: "golang.org/x/net", Version: "0.30.0"}, Vulnerability{ID: "GO-2026-9107", Source: "stdlib", Module: "stdlib", Version: "1.24.1"})
	offered := in.Installed[0].Security.Releases["2.49.0"]
	offered.State, offered.Found = SecurityAffected, found[1:2]
	in.Installed[0].Security.Releases["2.49.0"] = offered
	for i, s := range []Security{1: {State: SecurityNone}, 2: {State: SecurityUnknown, Reason: "no records"}, 3: {State: SecurityUnknown, Reason: "no records"}} {
		if i > 0 {
			in.Installed[i].Security = s
		}
	}
	in.Auto, in.DefaultPolicy = true, Policy{Level: PatchOnly, Security: "any"}
	in.Holds = []Hold{{Component: "prometheus", Range: rng("2.49.x"), Reason: "dashboards"}}
	return in
}

// unreachable is a stack in which nothing is new, and some upstreams cannot be asked.
func unreachable(names ...string) Input {
	in := input(comp("loki", component.RoleDatastore, "2.9.3", "2.9.3"), comp("promtail", component.RoleShipper, "2.9.3", "2.9.3"))
	for i := range in.Installed {
		if slices.Contains(names, in.Installed[i].Component.Name) {
			in.Installed[i].Releases, in.Installed[i].Err = nil, errors.New("connection refused")
		}
	}
	return in
}

func TestText(t *testing.T) {
	filled := func(in Input) *Plan {
		p := make1(t, in)
		p.ID, p.BackupPath = "20261124_020000", "/var/backups/observability/20261124_020000"
		p.Checks = []component.Check{
			{Name: "Sufficient disk space", Status: component.CheckOK},
			{Name: "All services healthy", Status: component.CheckWarn, Detail: "loki restarted twice in the last hour"},
			{Name: "Configuration valid", Component: "prometheus", Status: component.CheckFail, Detail: "promtool: unknown field scrape_confgs in prometheus.yml, line 12; correct it and plan again"},
			{Name: "Maintenance window", Status: component.CheckSkipped, Detail: "none is configured"},
		}
		return p
	}
	tests := map[string]func(b *bytes.Buffer, st Style) error{
		"check":      func(b *bytes.Buffer, st Style) error { return WriteCheck(b, Check(specification()), st) },
		"check-held": func(b *bytes.Buffer, st Style) error { return WriteCheck(b, Check(troubled()), st) },
		"check-none": func(b *bytes.Buffer, st Style) error {
			return WriteCheck(b, Check(input(comp("loki", component.RoleDatastore, "2.9.3", "2.9.3"))), st)
		},
		"check-vulnerable": func(b *bytes.Buffer, st Style) error { return WriteCheck(b, Check(exposed()), st) },
		"plan-vulnerable":  func(b *bytes.Buffer, st Style) error { return WritePlan(b, filled(exposed()), st) },
		"check-unknown": func(b *bytes.Buffer, st Style) error {
			return WriteCheck(b, Check(unreachable("loki", "promtail")), st)
		},
		"check-partly": func(b *bytes.Buffer, st Style) error { return WriteCheck(b, Check(unreachable("loki")), st) },
		"check-empty":  func(b *bytes.Buffer, st Style) error { return WriteCheck(b, Check(Input{}), st) },
		"plan":         func(b *bytes.Buffer, st Style) error { return WritePlan(b, filled(specification()), st) },
		"plan-held":    func(b *bytes.Buffer, st Style) error { return WritePlan(b, filled(troubled()), st) },
		"plan-none": func(b *bytes.Buffer, st Style) error {
			return WritePlan(b, make1(t, input(comp("loki", component.RoleDatastore, "2.9.3", "2.9.3"))), st)
		},
		"rollback": func(b *bytes.Buffer, st Style) error {
			return WriteRollback(b, "20241227_030000", []RollbackRow{
				{Component: "prometheus", Current: ver("2.49.0"), Target: ver("2.48.1"), Note: "data written by 2.49.0 stays as it is"},
				{Component: "node_exporter", Current: ver("1.8.0"), Target: ver("1.7.0")},
				{Component: "loki", Target: ver("2.9.3")},
			}, st)
		},
		"rollback-none": func(b *bytes.Buffer, st Style) error { return WriteRollback(b, "20241227_030000", nil, st) },
	}
	for name, write := range tests {
		t.Run(name, func(t *testing.T) {
			var b, coloured bytes.Buffer
			if err := write(&b, Style{}); err != nil {
				t.Fatal(err)
			}
			golden(t, name, b.Bytes())
			if strings.ContainsRune(b.String(), '\x1b') {
				t.Error("there are escape sequences without colour")
			}
			for l := range strings.Lines(b.String()) {
				if n := utf8.RuneCountInString(strings.TrimSuffix(l, "\n")); n > 80 && !strings.Contains(l, "https://") {
					t.Errorf("%d columns: %s", n, l)
				}
			}
			if err := write(&coloured, Style{Color: true}); err != nil {
				t.Fatal(err)
			}
			if got := uncoloured(coloured.String()); got != b.String() {
				t.Errorf("colour changes more than colours:\n%s", cmp.Diff(b.String(), got))
			}
		})
	}
}

func uncoloured(s string) string {
	for {
		i := strings.Index(s, "\x1b[")
		if i < 0 {
			return s
		}
		s = s[:i] + s[i+strings.IndexByte(s[i:], 'm')+1:]
	}
}

func TestUnits(t *testing.T) {
	for want, got := range map[string]string{
		"0:05": clock(5), "1:05": clock(65), "1:01:01": clock(3661),
		"1 second": duration(1), "45 seconds": duration(45), "1 minute": duration(60), "2 minutes": duration(61),
		"1 hour": duration(3600), "1 hour 1 minute": duration(3601), "2 hours 30 minutes": duration(9000),
		"999 bytes": Bytes(999), "2 kB": Bytes(2000), "245 MB": Bytes(245_000_000), "1.5 GB": Bytes(1_500_000_000),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// The terminal's own colour takes no sequence: an empty one is not among those that
// reach a terminal.
func TestPaint(t *testing.T) {
	for tone, want := range map[Tone]string{Default: "x", Red: "\x1b[31mx\x1b[0m"} {
		if got := (Style{Color: true}).Paint(tone, "x"); got != want {
			t.Errorf("%q: %q, want %q", tone, got, want)
		}
	}
}
