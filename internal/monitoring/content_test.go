package monitoring

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/observability-upgrade/observability-upgrade/internal/metrics"
)

type alert struct {
	Alert       string            `yaml:"alert"`
	Expr        string            `yaml:"expr"`
	For         string            `yaml:"for"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

func alerts(t *testing.T) []alert {
	t.Helper()
	var doc struct {
		Groups []struct {
			Name, Interval string
			Rules          []alert
		}
	}
	if err := yaml.UnmarshalWithOptions(Rules(), &doc, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	if len(doc.Groups) != 1 || doc.Groups[0].Name != "upgrade_alerts" || doc.Groups[0].Interval != "1m" {
		t.Fatalf("%+v", doc.Groups)
	}
	return doc.Groups[0].Rules
}

// checkNames tells of metrics in an expression that the program does not have.
func checkNames(t *testing.T, where, expr string) {
	t.Helper()
	names := regexp.MustCompile(`\bobservability_\w+`).FindAllString(expr, -1)
	if len(names) == 0 {
		t.Errorf("%s: %s uses no metric", where, expr)
	}
	for _, name := range names {
		if !slices.ContainsFunc(metrics.Families(), func(f metrics.Family) bool {
			return f.Name == name || f.Type == "histogram" && slices.Contains([]string{"_bucket", "_sum", "_count"}, strings.TrimPrefix(name, f.Name))
		}) {
			t.Errorf("%s: there is no metric %s", where, name)
		}
	}
}

var heading = regexp.MustCompile(`(?m)^#+ (.*)$`)

// anchors are the places in a page that a link can lead to, as GitHub makes them.
func anchors(t *testing.T, page string) []string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("../../docs", page))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range heading.FindAllStringSubmatch(string(data), -1) {
		text := regexp.MustCompile(`[^\w\- ]`).ReplaceAllString(strings.ToLower(m[1]), "")
		out = append(out, strings.ReplaceAll(text, " ", "-"))
	}
	return out
}

func TestAlerts(t *testing.T) {
	const pages = "https://github.com/observability-upgrade/observability-upgrade/blob/main/docs/"
	seen := map[string]bool{}
	for _, a := range alerts(t) {
		checkNames(t, a.Alert, a.Expr)
		key := a.Alert + " " + a.Labels["severity"]
		if seen[key] {
			t.Errorf("%s comes twice", key)
		}
		seen[key] = true
		if !slices.Contains([]string{"info", "warning", "critical"}, a.Labels["severity"]) || len(a.Labels) != 1 {
			t.Errorf("%s: labels %v", a.Alert, a.Labels)
		}
		for _, what := range []string{"summary", "description"} {
			if a.Annotations[what] == "" || !strings.Contains(a.Annotations[what], "{{ $labels.instance }}") {
				t.Errorf("%s: %s is %q: it must say on which host", a.Alert, what, a.Annotations[what])
			}
		}
		rest, ok := strings.CutPrefix(a.Annotations["runbook_url"], pages)
		page, anchor, _ := strings.Cut(rest, "#")
		if !ok || !slices.Contains(anchors(t, page), anchor) {
			t.Errorf("%s: its runbook %s is not there", a.Alert, a.Annotations["runbook_url"])
		}
		if page == "recovery.md" {
			continue
		}
		if text, err := os.ReadFile("../../docs/monitoring.md"); err != nil || !strings.Contains(string(text), "`"+a.Alert+"`") && !strings.Contains(string(text), "## "+a.Alert) {
			t.Errorf("docs/monitoring.md does not name %s: %v", a.Alert, err)
		}
	}
	for _, name := range []string{"ComponentVersionOutdated warning", "UpgradeFailed critical", "ComponentVersionVulnerable critical"} {
		if !seen[name] {
			t.Errorf("the specification's alert %s is missing", name)
		}
	}
}

func promtool(t *testing.T, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not here: apt-get install prometheus, or scripts/deps as root")
	}
	out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	return string(out), err
}

func TestPromtoolCheckRules(t *testing.T) {
	if out, err := promtool(t, "check", "rules", "--lint-fatal", "upgrade-alerts.yml"); err != nil || strings.Contains(out, "FAILED") {
		t.Errorf("%v\n%s", err, out)
	}
}

const ruleTests = "testdata/*.test.yml"

// Every alert fires when it should, and does not when it should not.
func TestPromtoolTestRules(t *testing.T) {
	files, err := filepath.Glob(ruleTests)
	if err != nil || len(files) != 2 {
		t.Fatalf("%v %v", files, err)
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			t.Parallel()
			text := string(Rules())
			if strings.Contains(f, "days") { // a week has many minutes
				text = strings.Replace(text, "interval: 1m", "interval: 5m", 1)
			}
			dir := t.TempDir()
			data, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			put := func(name, text string) string {
				path := filepath.Join(dir, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
				return path
			}
			put("upgrade-alerts.yml", text)
			if out, err := promtool(t, "test", "rules", put("testdata/t.yml", string(data))); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// No alert is without a test that it fires and one that it does not.
func TestEveryAlertIsTested(t *testing.T) {
	files, err := filepath.Glob(ruleTests)
	if err != nil {
		t.Fatal(err)
	}
	fires, quiet := map[string]bool{}, map[string]bool{}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var doc struct {
			Tests []struct {
				Rules []struct {
					Alertname string
					Expected  []struct {
						Labels map[string]string `yaml:"exp_labels"`
					} `yaml:"exp_alerts"`
				} `yaml:"alert_rule_test"`
			}
		}
		if err := yaml.Unmarshal(data, &doc); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		for _, test := range doc.Tests {
			for _, r := range test.Rules {
				for _, e := range r.Expected {
					fires[r.Alertname+" "+e.Labels["severity"]] = true
				}
				quiet[r.Alertname] = quiet[r.Alertname] || len(r.Expected) == 0
			}
		}
	}
	for _, a := range alerts(t) {
		if !fires[a.Alert+" "+a.Labels["severity"]] || !quiet[a.Alert] {
			t.Errorf("%s, %s: no test that it fires, or none that it does not", a.Alert, a.Labels["severity"])
		}
	}
}

// board is the part of Grafana's dashboard model that is checked.
type board struct {
	UID, Title    string
	SchemaVersion int
	ID            any
	Panels        []panel
	Templating    struct{ List []variable }
	Annotations   struct {
		List []struct {
			Name, Expr string
			Datasource source
		}
	}
}

type source struct{ Type, UID string }

type variable struct {
	Name, Type, Definition string
	Query                  any
	Datasource             source
}

type panel struct {
	ID                       int
	Type, Title, Description string
	GridPos                  struct{ X, Y, W, H int }
	Datasource               source
	Targets                  []struct {
		Expr, RefID string
		Datasource  source
	}
	FieldConfig     struct{ Overrides []any }
	Transformations []struct{ ID string }
}

func decode(t *testing.T) board {
	t.Helper()
	var b board
	if err := json.Unmarshal(Dashboard(), &b); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDashboard(t *testing.T) {
	b := decode(t)
	if b.UID != "observability-upgrade" || b.ID != nil || b.SchemaVersion < 38 { // Grafana 10
		t.Errorf("%q %v %d", b.UID, b.ID, b.SchemaVersion)
	}
	var names []string
	for _, v := range b.Templating.List {
		names = append(names, v.Name)
		if v.Type == "query" {
			checkNames(t, "variable "+v.Name, v.Definition)
		}
	}
	if want := []string{"datasource", "instance", "component"}; !slices.Equal(names, want) {
		t.Errorf("variables %v, want %v", names, want)
	}
	ids, used := map[int]bool{}, map[[2]int]string{}
	for _, p := range b.Panels {
		if ids[p.ID] || p.ID == 0 {
			t.Errorf("%s: the id %d comes twice", p.Title, p.ID)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := used[[2]int{x, y}]; other != "" || x > 23 {
					t.Fatalf("%q lies on %q, or over the edge", p.Title, other)
				}
				used[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		// Those of Grafana that are not deprecated: graph, singlestat and table-old were
		// taken out with Angular.
		if !slices.Contains([]string{"stat", "table", "timeseries", "bargauge", "state-timeline"}, p.Type) {
			t.Errorf("%s: panel type %s", p.Title, p.Type)
		}
		if p.Title == "" || p.Description == "" || len(p.Targets) == 0 {
			t.Errorf("%d %q has no title, description or query", p.ID, p.Title)
		}
		refs := map[string]bool{}
		for _, target := range p.Targets {
			if want := (source{"prometheus", "${datasource}"}); target.Datasource != want || p.Datasource != want || refs[target.RefID] || target.RefID == "" {
				t.Errorf("%s: %+v", p.Title, target)
			}
			refs[target.RefID] = true
		}
	}
	for i := range 24 { // no holes
		if used[[2]int{i, 0}] == "" {
			t.Errorf("nothing is at the top at %d", i)
		}
	}
	metricsShown := string(Dashboard())
	for _, want := range []string{
		"component_version_info", "versions_behind", "component_vulnerable", "vulnerability_data", "hold", "last_check_timestamp_seconds", "upgrades_total",
		"upgrade_duration_seconds", "upgrade_downtime_seconds_bucket", "backup_points", "backup_bytes", "run_in_progress", "rollback_failed",
	} {
		if !strings.Contains(metricsShown, "observability_"+want+"{") {
			t.Errorf("the dashboard does not show observability_%s", want)
		}
	}
}

// expressions are all queries of the dashboard, with Grafana's variables filled in.
func expressions(t *testing.T) map[string]string {
	t.Helper()
	b := decode(t)
	out := map[string]string{}
	add := func(where, expr string) {
		expr = strings.NewReplacer("$__range", "30d", "$instance", ".*", "$component", ".*").Replace(expr)
		if strings.Contains(expr, "$") {
			t.Errorf("%s: a variable is not known: %s", where, expr)
		}
		out[where] = expr
	}
	for _, p := range b.Panels {
		for _, target := range p.Targets {
			add(p.Title+" "+target.RefID, target.Expr)
		}
	}
	for _, a := range b.Annotations.List {
		if a.Expr != "" {
			add(a.Name, a.Expr)
		}
	}
	return out
}

// Prometheus understands every query, and every metric in it exists.
func TestDashboardQueries(t *testing.T) {
	all := expressions(t)
	if len(all) < 20 {
		t.Fatalf("only %d queries", len(all))
	}
	var b strings.Builder
	b.WriteString("groups:\n  - name: dashboard\n    rules:\n")
	n := 0
	for where, expr := range all {
		checkNames(t, where, expr)
		n++
		fmt.Fprintf(&b, "      - {record: \"q:%d\", expr: %q}\n", n, expr)
	}
	file := filepath.Join(t.TempDir(), "queries.yml")
	if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := promtool(t, "check", "rules", file); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
