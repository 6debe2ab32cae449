package metrics

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/history"
	"github.com/observability-upgrade/observability-upgrade/internal/overview"
	"github.com/observability-upgrade/observability-upgrade/internal/plan"
	"github.com/observability-upgrade/observability-upgrade/internal/runlog"
	"github.com/observability-upgrade/observability-upgrade/internal/state"
	"github.com/observability-upgrade/observability-upgrade/internal/vulnerability"
)

var update = flag.Bool("update", false, "write golden files anew")

var now = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

// full is an overview with something of everything.
func full() *overview.Overview {
	v := component.MustParseVersion
	days := func(n int) time.Time { return now.AddDate(0, 0, n) }
	modified := days(-2)
	return &overview.Overview{
		ReadAt: now, Build: "1.2.3",
		Components: []overview.Component{
			{
				Name: "grafana", Version: "11.0.0", Policy: "none",
				CheckError: "503", Candidate: &plan.Candidate{Name: "grafana", Current: v("11.0.0"), Type: component.BumpUnknown},
			},
			{
				Name: "loki", Version: "3.1.0", Policy: "minor", UpgradedAt: days(-3),
				Candidate: &plan.Candidate{Name: "loki", Current: v("3.1.0"), Latest: v("3.4.0"), VersionsBehind: 3},
				Vulnerability: &vulnerability.Result{State: vulnerability.Affected, Vulnerabilities: []vulnerability.Finding{
					{ID: "GO-2026-0001", Aliases: []string{"CVE-2026-0001"}, FixedIn: "3.2.0", Severity: "high"}, {ID: "GHSA-2026-0002"}, {ID: "CVE-2026-0001"},
				}},
			},
			{
				Name: "prometheus", Version: "2.53.3+\xffds\"", Policy: "patch_only", UpgradedAt: days(-1),
				Candidate:     &plan.Candidate{Name: "prometheus", Current: v("2.53.3"), Latest: v("2.53.3")},
				Vulnerability: &vulnerability.Result{State: vulnerability.None},
			},
			{Name: "tempo"},
			{Name: "thanos", Policy: "none", Security: "any"},
		},
		Check:       &plan.CheckReport{CheckedAt: days(-1), Errors: []plan.ComponentError{{Component: "grafana", Error: "503"}}},
		Running:     &runlog.Record{ID: "20261125_115900"},
		Interrupted: &runlog.Record{ID: "20261125_115800"},
		Broken:      []string{"loki"},

		VulnerabilityData: &vulnerability.Info{Modified: &modified},
		Runs:              []state.RunSummary{{ID: "20261124_120000", Timestamp: days(-1), Status: "rolled_back", DurationSeconds: 12}, {ID: "x", Status: "success"}},
		Totals: overview.Totals{
			Counts: []history.Count{
				{Component: "loki", Status: history.Failed, N: 1},
				{Component: "loki", Status: history.RolledBack, N: 5, Undone: 2},
				{Component: "loki", Status: history.Success, N: 7},
				{Component: "gone", Status: history.RolledBack, N: 1, Undone: 1},
			},
			Downtimes: map[string]history.Downtime{
				"loki": {Count: 13, Sum: 40.5, Buckets: []uint64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}},
			},
			Newest: []history.Upgrade{
				{Component: "gone", Status: history.Failed, ErrorMessage: "x"},
				{Component: "loki", Status: history.RolledBack, ErrorMessage: "not ready", Duration: 12 * time.Second, Downtime: 2500 * time.Millisecond},
				{Component: "grafana", Status: history.Success}, // its health was not checked
				{Component: "prometheus", Status: history.RolledBack, HealthCheckPassed: new(true), Duration: 3 * time.Second, Downtime: 500 * time.Millisecond},
				{Component: "tempo", Status: "lost"},
			},
		},
		Holds: []plan.Hold{
			{Component: "loki", Until: days(2)},
			{Component: "loki", Until: days(5)},
			{Component: "mimir", Until: days(5)},
			{Component: "mimir"},
		},
		Windows: overview.Windows{List: []string{"saturday"}, Next: days(3)},
		Auto:    overview.Auto{Enabled: true, Policy: "minor"},
		Backups: []overview.Backup{
			{Timestamp: "20261124_120000_2", Complete: true, Bytes: 2 << 30},
			{Timestamp: "20261123_120000", Complete: true, Bytes: 1 << 30},
			{Timestamp: "20261125_120000", Bytes: 1},
		},
		Problems: []string{"holds: permission denied"},
	}
}

func text(t *testing.T, s snapshot) string {
	t.Helper()
	var b bytes.Buffer
	if err := write(&b, s); err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`goversion="[^"]*"`).ReplaceAllString(b.String(), `goversion="go"`)
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := "testdata/" + name
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (-update writes it anew): %s", name, diff)
	}
}

func TestExposition(t *testing.T) {
	golden(t, "full.prom", text(t, snapshot{full(), true}))
	golden(t, "textfile.prom", text(t, snapshot{full(), false}))
	golden(t, "empty.prom", text(t, snapshot{&overview.Overview{Build: "dev"}, true}))
}

// What is not known is absent, and not a number that looks well.
func TestUnknownIsAbsent(t *testing.T) {
	got := text(t, snapshot{full(), true})
	for _, absent := range []string{
		`observability_versions_behind{component="grafana"}`, `observability_versions_behind{component="tempo"}`,
		`observability_hold_until_timestamp_seconds{component="mimir"}`, `observability_last_upgrade_timestamp{component="tempo"}`,
		`observability_last_upgrade_success{component="grafana"}`, `observability_upgrade_status{component="tempo"`, `observability_upgrade_status{component="gone"`, `data{component="tempo",state="none"} 1`,
	} {
		if strings.Contains(got, absent) {
			t.Errorf("there is %s", absent)
		}
	}
	for _, line := range []string{
		`observability_vulnerability_data{component="tempo",state="unknown"} 1`,
		`observability_vulnerability_data{component="loki",state="affected"} 1`,
		`observability_read_problems 2`, // one told, one found: tempo's status
		`observability_last_upgrade_success{component="prometheus"} 1`,
		`observability_last_upgrade_success{component="loki"} 0`,
		`observability_upgrades_total{component="loki",status="success"} 9`,
		`observability_upgrades_total{component="loki",status="rolled_back"} 3`,
		`observability_rollbacks_total{component="loki"} 5`,
	} {
		if !strings.Contains(got, line+"\n") {
			t.Errorf("there is no %s", line)
		}
	}
}

func TestVulnerabilities(t *testing.T) {
	for want, lists := range map[string][][]Vulnerability{
		Unknown:  {nil, {{State: Unknown}}, {{State: None}, {State: Unknown}}, {{State: Unknown}, {State: None}}, {{State: "?"}}},
		None:     {{{State: None}}, {{State: None}, {State: None}}},
		Affected: {{{State: None}, {ID: "CVE-1", State: Affected}}, {{State: Unknown}, {ID: "CVE-1", State: Affected}}},
	} {
		for _, list := range lists {
			if got := stateOf(list); got != want {
				t.Errorf("%v is %s, want %s", list, got, want)
			}
		}
	}
	got := worst([]Vulnerability{
		{ID: "a", Severity: "low", State: Affected},
		{ID: "a", Severity: "HIGH", State: Affected},
		{ID: "a", State: Affected},
		{ID: "b", Severity: "low", State: Affected},
		{ID: "b", State: Affected},
		{ID: "c", Severity: "high", State: None},
	})
	if diff := cmp.Diff(map[string]string{"a": "high", "b": Unknown}, got); diff != "" {
		t.Error(diff)
	}
	for in, want := range map[string]string{"CRITICAL": "critical", "Moderate": "medium", "": "unknown", "9.8": "unknown"} {
		if got := severity(in); got != want {
			t.Errorf("severity %q is %s, want %s", in, got, want)
		}
	}
}

// Every family appears where there is something of everything, and nothing else.
func TestFamilies(t *testing.T) {
	got := text(t, snapshot{full(), true})
	inFile := text(t, snapshot{full(), false})
	var names []string
	for _, f := range Families() {
		names = append(names, f.Name)
		help := "# HELP " + f.Name + " " + f.Help + "\n# TYPE " + f.Name + " " + f.Type + "\n"
		if !strings.Contains(got, help) {
			t.Errorf("a scrape has no %s", help)
		}
		if strings.Contains(inFile, help) == f.Live {
			t.Errorf("%s is live: %v, but in the file: %v", f.Name, f.Live, !f.Live)
		}
		if !strings.HasSuffix(f.Help, ".") {
			t.Errorf("%s: %q is no sentence", f.Name, f.Help)
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (\S+)`).FindAllStringSubmatch(got, -1) {
		if !slices.Contains(names, m[1]) {
			t.Errorf("%s is not among the families", m[1])
		}
	}
}

// docs/monitoring.md lists the metrics as they are.
func TestDocument(t *testing.T) {
	const page, begin, end = "../../docs/monitoring.md", "-update` -->\n", "<!-- end of metrics -->"
	data, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok1 := strings.Cut(string(data), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no place for the metrics", page)
	}
	var b strings.Builder
	b.WriteString("| metric | labels | type | file | what |\n|---|---|---|---|---|\n")
	for _, f := range Families() {
		labels, file := "", "yes"
		for _, l := range f.Labels {
			labels = strings.TrimPrefix(labels+", `"+l+"`", ", ")
		}
		if f.Live {
			file = "no"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", f.Name, labels, f.Type, file, f.Help)
	}
	want := head + begin + b.String() + end + tail
	if *update {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, string(data)); diff != "" {
		t.Errorf("%s differs (-update writes it anew): %s", page, diff)
	}
}

func TestLint(t *testing.T) {
	for name, s := range map[string]snapshot{"scrape": {full(), true}, "textfile": {full(), false}, "empty": {&overview.Overview{}, true}} {
		found, err := promlint.New(strings.NewReader(text(t, s))).Lint()
		if err != nil || len(found) > 0 {
			t.Errorf("%s: %v, %v", name, found, err)
		}
	}
}

// The real promtool finds nothing to say.
func TestPromtool(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not here: apt-get install prometheus, or scripts/deps as root")
	}
	for name, s := range map[string]snapshot{"scrape": {full(), true}, "textfile": {full(), false}, "empty": {&overview.Overview{}, true}} {
		cmd := exec.CommandContext(t.Context(), promtool, "check", "metrics")
		cmd.Stdin = strings.NewReader(text(t, s))
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// source is an overview.Source of a test.
type source func(ctx context.Context) (*overview.Overview, error)

func (s source) Overview(ctx context.Context) (*overview.Overview, error) { return s(ctx) }

func fixed() source {
	return func(context.Context) (*overview.Overview, error) { return full(), nil }
}

func get(t *testing.T, h http.Handler, accept string) (int, http.Header, string) {
	t.Helper()
	srv := httptest.NewServer(h)
	defer srv.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", accept)
	resp, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(body)
}

func TestHandler(t *testing.T) {
	extra := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "extra", Help: "Extra."}, func() float64 { return 7 })
	h := Handler(fixed(), extra)
	code, head, body := get(t, h, "text/plain")
	if code != 200 || !strings.HasPrefix(head.Get("Content-Type"), "text/plain; version=0.0.4") {
		t.Errorf("%d %v", code, head)
	}
	for _, line := range []string{"\nextra 7\n", "\nobservability_run_in_progress 1\n", `observability_component_version_info{component="loki",version="3.1.0"} 1`} {
		if !strings.Contains(body, line) {
			t.Errorf("there is no %q", line)
		}
	}
	code, head, body = get(t, h, "application/openmetrics-text; version=1.0.0")
	if code != 200 || !strings.HasPrefix(head.Get("Content-Type"), "application/openmetrics-text") || !strings.HasSuffix(body, "\n# EOF\n") {
		t.Errorf("%d %v %s", code, head, body)
	}
}

func TestHandlerThatCannotRead(t *testing.T) {
	code, _, body := get(t, Handler(source(func(context.Context) (*overview.Overview, error) { return nil, errors.New("no such luck") })), "")
	if code != http.StatusServiceUnavailable || !strings.Contains(body, "no such luck") {
		t.Errorf("%d %s", code, body)
	}
}

// A reading ends with the request it was made for.
func TestHandlerEndsWithItsRequest(t *testing.T) {
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	srv := httptest.NewServer(Handler(source(func(reading context.Context) (*overview.Overview, error) {
		cancel() // once it reads, and not before
		<-reading.Done()
		ended <- reading.Err()
		return nil, reading.Err()
	})))
	defer srv.Close()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := srv.Client().Do(req); err == nil {
		resp.Body.Close()
		t.Error("it answered")
	}
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the reading goes on without the request")
	}
}

func TestWrite(t *testing.T) {
	var b bytes.Buffer
	if err := Write(&b, full()); err != nil || !strings.Contains(b.String(), "observability_lock_held 1\n") {
		t.Errorf("%v\n%s", err, b.String())
	}
	if err := Write(broken{}, full()); !errors.Is(err, os.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, os.ErrClosed }
