package health

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/service"
)

func writeCA(t *testing.T, der []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// world is a service and what it answers, as time goes on.
type world struct {
	mu       sync.Mutex
	status   service.Status
	logs     []service.LogLine
	cpu      time.Duration
	quota    float64       // processors it may use
	perLook  time.Duration // processor time used between two looks
	began    time.Time
	readyAt  time.Duration
	replayed func(time.Duration) int // nil: it does not tell
	lapse    func(n int) bool        // the n-th readiness answer is a failure
	asked    int
	page     bool
	version  string
	busy     bool
	data     string
	targets  int // how often they are asked for before one is up
	patience time.Duration
}

func newWorld(t *testing.T) (*world, Target) {
	t.Helper()
	w := &world{status: service.Status{Exists: true, Active: true, MainPID: 7}, began: time.Now(), version: "2.0.0"}
	s := httptest.NewServer(w)
	t.Cleanup(s.Close)
	c := &component.Component{Name: "thing", Health: component.Health{
		URL: s.URL + "/-/ready", MetricsURL: s.URL + "/metrics", ExpectedMetric: "thing_build_info",
	}}
	return w, NewTarget(c, service.Service{Unit: "thing.service"}, component.Vars{}, 300*time.Millisecond)
}

func (w *world) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	age := time.Since(w.began)
	switch {
	case w.page:
		rw.Header().Set("Content-Type", "text/html")
		fmt.Fprint(rw, "<html>everything</html>")
	case r.URL.Path == "/-/ready":
		w.asked++
		switch {
		case w.busy:
			rw.WriteHeader(http.StatusTooManyRequests)
		case age < w.readyAt || w.lapse != nil && w.lapse(w.asked):
			rw.WriteHeader(http.StatusServiceUnavailable)
		}
	case r.URL.Path == "/metrics":
		fmt.Fprintf(rw, "thing_build_info{version=%q} 1\n", w.version)
	case r.URL.Path == "/replay" && w.replayed != nil:
		fmt.Fprintf(rw, `{"data":{"current":%d,"max":9}}`, w.replayed(age))
	case r.URL.Path == "/targets" && w.targets > 0:
		w.targets--
		fmt.Fprint(rw, `{"up":0}`)
	case r.URL.Path == "/targets":
		fmt.Fprint(rw, `{"up":1}`)
	case r.URL.Path == "/data":
		fmt.Fprint(rw, w.data)
	default:
		rw.WriteHeader(http.StatusNotFound)
	}
}

func (w *world) Status(context.Context, service.Service) (service.Status, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.status, nil
}

func (w *world) Logs(context.Context, service.Service, time.Time, int) ([]service.LogLine, error) {
	return w.logs, nil
}

func (w *world) Usage(context.Context, service.Service) (service.Usage, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.perLook < 0 {
		return service.Usage{}, errors.New("not accounted for")
	}
	w.cpu += w.perLook
	return service.Usage{At: time.Now(), CPU: w.cpu, Memory: 10 << 20, MemoryLimit: 100 << 20, Processors: w.quota}, nil
}

func check(r Report, name string) Check {
	for _, c := range r.Checks {
		if c.Name == name {
			return c
		}
	}
	return Check{}
}

// TestAwait goes through the ways a start can go.
func TestAwait(t *testing.T) {
	replay := component.Startup{URL: "/replay", Current: ".data.current", Total: ".data.max", What: "segments"}
	tests := map[string]struct {
		set      func(w *world, t *Target)
		verdict  Verdict
		failed   string // part of Failures
		progress string
	}{
		"at once":    {verdict: Healthy},
		"in time":    {set: func(w *world, t *Target) { w.readyAt, t.Timeout = 100*time.Millisecond, 5*time.Second }, verdict: Healthy},
		"never":      {set: func(w *world, _ *Target) { w.readyAt = time.Hour }, verdict: Unhealthy, failed: "not healthy within 300ms"},
		"not alive":  {set: func(w *world, _ *Target) { w.status = service.Status{Exists: true, Failed: true, Result: "exit-code"} }, verdict: Unhealthy, failed: "failed (exit-code)"},
		"crash loop": {set: func(w *world, _ *Target) { w.readyAt, w.status.Restarts = time.Hour, 1 }, verdict: Unhealthy, failed: "crashed and was restarted"},
		"replay that gets on": {
			set: func(w *world, t *Target) {
				w.readyAt, t.Spec.Health.Startup = 2500*time.Millisecond, replay
				t.Timeout = 800 * time.Millisecond
				w.replayed = func(age time.Duration) int { return int(age / (300 * time.Millisecond)) }
			}, verdict: Healthy, progress: "of 9 segments",
		},
		"replay that tells nothing but works": {
			set: func(w *world, t *Target) {
				w.readyAt, t.Spec.Health.Startup = 1500*time.Millisecond, replay
				t.Timeout, w.perLook = 800*time.Millisecond, 100*time.Millisecond
			}, verdict: Healthy,
		},
		"replay that hangs": {
			set: func(w *world, t *Target) {
				w.readyAt, t.Spec.Health.Startup = time.Hour, replay
				w.replayed = func(age time.Duration) int { return min(int(age/(300*time.Millisecond)), 3) }
				t.Timeout = 800 * time.Millisecond
			}, verdict: Unhealthy, failed: "did not get on",
		},
		"replay beyond the limit": {
			set: func(w *world, t *Target) {
				w.readyAt, t.Spec.Health.Startup = time.Hour, replay
				t.Spec.Health.Startup.MaxWait = component.Duration(1300 * time.Millisecond)
				w.replayed = func(age time.Duration) int { return int(age / (100 * time.Millisecond)) }
				t.Timeout = 800 * time.Millisecond
			}, verdict: Unhealthy, failed: "max_wait",
		},
		"asked too often":   {set: func(w *world, _ *Target) { w.busy = true }, verdict: Inconclusive},
		"page for any path": {set: func(w *world, t *Target) { w.page, t.Spec.Health.MetricsURL = true, "" }, verdict: Healthy},
		"another version":   {set: func(_ *world, t *Target) { t.Version = component.MustParseVersion("3.0.0") }, verdict: Unhealthy, failed: "reports 2.0.0, expected 3.0.0"},
		"excused":           {set: func(_ *world, t *Target) { t.Spec.Health.ExpectedMetric, t.Excused = "gone", []string{"metric"} }, verdict: Healthy},
		"functional after a while": {
			set: func(w *world, t *Target) {
				w.targets = 1
				t.Spec.Functional = []component.Test{{Name: "targets", HTTP: &component.HTTPTest{URL: "/targets", JSON: ".up", AtLeast: number(1)}}}
			}, verdict: Healthy, progress: "waiting for: targets",
		},
		"functional excused": {
			set: func(w *world, t *Target) {
				w.targets, t.Excused = math.MaxInt, []string{"targets"}
				t.Spec.Functional = []component.Test{{Name: "targets", HTTP: &component.HTTPTest{URL: "/targets", JSON: ".up", AtLeast: number(1)}}}
			}, verdict: Healthy,
		},
		"all targets away": {
			set: func(w *world, t *Target) {
				w.targets, w.patience = math.MaxInt, 3*time.Second
				t.Spec.Functional = []component.Test{{Name: "targets", Severity: "verify", HTTP: &component.HTTPTest{URL: "/targets", JSON: ".up", AtLeast: number(1)}}}
			}, verdict: Inconclusive, progress: "waiting for: targets",
		},
		"all targets away, before as well": {
			set: func(w *world, t *Target) {
				w.targets, t.Excused = math.MaxInt, []string{"targets"}
				t.Spec.Functional = []component.Test{{Name: "targets", Severity: "verify", HTTP: &component.HTTPTest{URL: "/targets", JSON: ".up", AtLeast: number(1)}}}
			}, verdict: Inconclusive,
		},
		"all targets away, a person asks": {
			set: func(w *world, t *Target) {
				w.targets, w.patience, t.Mend = math.MaxInt, time.Millisecond, "restart it"
				t.Spec.Functional = []component.Test{{Name: "targets", Severity: "verify", HTTP: &component.HTTPTest{URL: "/targets", JSON: ".up", AtLeast: number(1)}}}
			}, verdict: Unhealthy, failed: "expected at least 1",
		},
		"targets after a while": {
			set: func(w *world, t *Target) {
				w.targets = 1
				t.Spec.Functional = []component.Test{{Name: "targets", Severity: "verify", HTTP: &component.HTTPTest{URL: "/targets", JSON: ".up", AtLeast: number(1)}}}
			}, verdict: Healthy, progress: "waiting for: targets",
		},
		"dependency away": {
			set: func(_ *world, t *Target) {
				t.Spec.Functional = []component.Test{{Name: "database", Dependency: true, HTTP: &component.HTTPTest{URL: "/database"}}}
			}, verdict: Inconclusive,
		},
		"lapses": {
			set: func(w *world, t *Target) {
				t.Spec.Health.Settle = component.Duration(5 * time.Second) // for two samples at least, however slow the machine
				w.lapse = func(n int) bool { return n > 1 && n < 6 }
			}, verdict: Unhealthy, failed: "not ready in ",
		},
		"one late answer": { // the only sample, or the last look
			set: func(w *world, t *Target) {
				t.Spec.Health.Settle = component.Duration(1200 * time.Millisecond)
				w.lapse = func(n int) bool { return n == 2 }
			}, verdict: Healthy,
		},
		"last look at a bad moment": {set: func(w *world, _ *Target) { w.lapse = func(n int) bool { return n == 2 || n == 3 } }, verdict: Healthy, progress: "waiting for: ready"},
		"silent at the last look": {
			set: func(w *world, _ *Target) {
				w.patience, w.lapse = 300*time.Millisecond, func(n int) bool { return n > 1 }
			}, verdict: Unhealthy, failed: "answered 503",
		},
		"crash at the last look": {
			set: func(w *world, _ *Target) {
				w.lapse = func(n int) bool {
					if n > 1 {
						w.status.Restarts, w.status.MainPID = 1, 8
					}
					return n > 1
				}
			}, verdict: Unhealthy, failed: "crashed and was restarted",
		},
		"steady": {set: func(_ *world, t *Target) { t.Spec.Health.Settle = component.Duration(1200 * time.Millisecond) }, verdict: Healthy},
		"log":    {set: func(w *world, t *Target) { w.logs = errorLines(9) }, verdict: Healthy},
		"log that fails": {
			set:     func(w *world, t *Target) { w.logs, t.Spec.Health.Logs.FailAbove = errorLines(9), new(int) },
			verdict: Unhealthy, failed: "9 error lines",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, target := newWorld(t)
			if tt.set != nil {
				tt.set(w, &target)
			}
			base := strings.TrimSuffix(target.Spec.Health.URL, "/-/ready")
			if target.Spec.Health.Startup.URL != "" {
				target.Spec.Health.Startup.URL = base + "/replay"
			}
			for i := range target.Spec.Functional {
				target.Spec.Functional[i].HTTP.URL = base + target.Spec.Functional[i].HTTP.URL
			}
			ready, progress := 0, ""
			r, err := (&Prober{Services: w, Patience: w.patience}).Await(t.Context(), target, Watcher{
				Ready: func(Report) { ready++ }, Progress: func(s string) { progress += s + "\n" },
			})
			if err != nil {
				t.Fatal(err)
			}
			if r.Verdict != tt.verdict || r.Healthy != (tt.verdict != Unhealthy) || !strings.Contains(r.Failures(), tt.failed) {
				t.Errorf("%s: %+v, want %s with %q", r.Verdict, r.Checks, tt.verdict, tt.failed)
			}
			if r.Verdict == Healthy && ready != 1 {
				t.Errorf("told %d times that it is ready", ready)
			}
			if tt.progress != "" && !strings.Contains(progress, tt.progress) {
				t.Errorf("progress %q, want %q", progress, tt.progress)
			}
		})
	}
}

// TestVersionLabel proves that only what tells of the program itself is taken for
// its version.
func TestVersionLabel(t *testing.T) {
	for _, tt := range []struct{ metric, labels, want string }{
		{"prometheus_build_info", `branch="HEAD",goversion="go1.21.3",version="2.53.0"`, "2.53.0"},
		{"cortex_build_info", `version="v2.10.0"`, "2.10.0"},
		{"build_info", `version="3.1.0"`, "3.1.0"},
		{"vm_app_version", `version="victoria-metrics-20240101-000000-tags-v1.96.0-0-g1a2b3c4", short_version="v1.96.0"`, "1.96.0"},
		{"go_info", `version="go1.21.3"`, ""},
		{"go_build_info", `path="x",version="(devel)"`, ""},
		{"python_info", `implementation="CPython",version="3.11.2"`, ""},
		{"probe_tls_info", `version="TLS 1.3"`, ""},
		{"thing_build_info", `goversion="go1.21"`, ""},
	} {
		if got := versionLabel(tt.metric, tt.metric+"{"+tt.labels+"} 1"); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.metric, got, tt.want)
		}
	}
}

// TestInstalled proves that a process of another version or file than the
// installed one is not healthy, and that the person is told what to type.
func TestInstalled(t *testing.T) {
	for name, tt := range map[string]struct {
		set   func(w *world, t *Target)
		check string
		want  Check
	}{
		"the same": {func(_ *world, t *Target) { t.Version = component.MustParseVersion("2.0.0+deb1") }, "version", Check{Status: OK, Detail: "reports 2.0.0"}},
		"another version": {
			func(_ *world, t *Target) { t.Version = component.MustParseVersion("2.1.0") }, "version",
			Check{Status: Fail, Detail: "runs 2.0.0, installed is 2.1.0; type: restart it"},
		},
		"another file": {
			func(w *world, t *Target) { t.Executable, w.status.ExecPath = "/bin/thing", "/bin/thing.old" }, "executable",
			Check{Status: Fail, Detail: "runs /bin/thing.old, expected /bin/thing; type: restart it"},
		},
		"a replaced file": {
			func(w *world, t *Target) {
				t.Executable, w.status.ExecPath, w.status.ExecDeleted = "/bin/thing", "/bin/thing", true
			}, "executable",
			Check{Status: Fail, Detail: "still runs the file that was replaced at /bin/thing; type: restart it"},
		},
		"no version": {
			func(w *world, t *Target) { w.version, t.Version = "unknown", component.MustParseVersion("2.1.0") }, "version",
			Check{Status: Warn, Detail: `thing_build_info says "unknown", which is no version`},
		},
	} {
		w, target := newWorld(t)
		target.Mend = "restart it"
		tt.set(w, &target)
		r := (&Prober{Services: w}).Once(t.Context(), target)
		if c := check(r, tt.check); c.Status != tt.want.Status || c.Detail != tt.want.Detail || r.Healthy != (c.Status != Fail) {
			t.Errorf("%s: %+v, want %+v", name, c, tt.want)
		}
	}
}

// TestAnyPath proves that an answer is no sign of readiness where any path gets one
// like it.
func TestAnyPath(t *testing.T) {
	n := 0
	const ready = "/-/ready"
	for name, tt := range map[string]struct {
		answer func(path string) (status int, kind, body string)
		body   string
		proof  bool
	}{
		"only there": {answer: func(p string) (int, string, string) {
			return map[bool]int{true: 200, false: 404}[p == ready], "text/plain", "OK"
		}, proof: true},
		"text on any path":   {answer: func(string) (int, string, string) { return 200, "text/plain", "OK" }},
		"page on any path":   {answer: func(string) (int, string, string) { return 200, "text/html", "<html>" }},
		"page with the time": {answer: func(string) (int, string, string) { n++; return 200, "text/html", fmt.Sprint("<p>", n) }},
		"text with the time": {answer: func(string) (int, string, string) { n++; return 200, "text/plain", fmt.Sprint("at ", n) }},
		"path in the answer": {answer: func(p string) (int, string, string) { return 200, "text/plain", "you asked for " + p }},
		"page on other paths": {answer: func(p string) (int, string, string) {
			return 200, map[bool]string{true: "text/plain", false: "text/html"}[p == ready], "x" + p
		}, proof: true},
		"other text elsewhere": {answer: func(p string) (int, string, string) {
			return 200, "text/plain", map[bool]string{true: "Ready", false: "Hello"}[p == ready]
		}, proof: true},
		"metrics on any path": {answer: func(string) (int, string, string) {
			n++
			return 200, "text/plain", fmt.Sprintf("thing_build_info{} 1\nn %d\n", n)
		}, proof: true},
		"asked for by its body": {answer: func(string) (int, string, string) { return 200, "text/plain", "OK" }, body: "^OK$", proof: true},
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			status, kind, body := tt.answer(r.URL.Path)
			w.Header().Set("Content-Type", kind)
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		}))
		target := Target{Spec: Spec{Health: component.Health{URL: s.URL + ready, Body: tt.body, ExpectedMetric: "thing_build_info"}}}
		r := (&Prober{}).Once(t.Context(), target)
		s.Close()
		want := map[bool]Status{true: OK, false: Warn}[tt.proof]
		i := slices.IndexFunc(r.Checks, func(c Check) bool { return c.Name == "ready" })
		if !r.Healthy || i < 0 || r.Checks[i].Status != want || strings.Contains(r.Checks[i].Detail, "as it does for any path") == tt.proof {
			t.Errorf("%s: %+v", name, r.Checks)
		}
	}
}

func errorLines(n int) []service.LogLine {
	var out []service.LogLine
	for range n {
		out = append(out, service.LogLine{Priority: 6, Message: "level=error msg=oops"})
	}
	return out
}

func TestRestartWhileSettling(t *testing.T) {
	w, target := newWorld(t)
	target.Spec.Health.Settle = component.Duration(5 * time.Second)
	r, err := (&Prober{Services: w}).Await(t.Context(), target, Watcher{Ready: func(Report) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.status.MainPID = 8
	}})
	if err != nil || r.Verdict != Unhealthy || !strings.Contains(r.Failures(), "process 7 became 8") {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestLogErrors(t *testing.T) {
	lines := []service.LogLine{
		{Priority: 3, Message: "plain words"},
		{Priority: 6, Message: "level=error msg=x"},
		{Priority: 6, Message: "no errors found"},
		{Priority: -1, Message: "panic: boom"},
		{Priority: 6, Message: "a panicked look"},
		{Priority: 2, Message: "known noise"},
		{Priority: 6, Message: `{"level":"fatal"}`},
	}
	w, target := newWorld(t)
	w.logs = lines
	target.Spec.Health.Logs.Ignore = "known noise"
	none := 0
	target.Spec.Health.Logs.WarnAbove = &none
	r := (&Prober{Services: w}).Once(t.Context(), target)
	if c := check(r, "logs"); c.Status != Warn || !strings.HasPrefix(c.Detail, "4 error lines") {
		t.Errorf("%+v, want a warning of 4 lines", c)
	}
	target.Spec.Health.Logs = component.Logs{Pattern: "noise|look"}
	r = (&Prober{Services: w}).Once(t.Context(), target)
	if c := check(r, "logs"); c.Status != OK || !strings.HasPrefix(c.Detail, "3 error lines") {
		t.Errorf("%+v, want 3 lines that are no matter", c)
	}
}

func TestUsage(t *testing.T) {
	w, target := newWorld(t)
	target.Measure = 50 * time.Millisecond
	for name, tt := range map[string]struct {
		perLook time.Duration
		memory  float64
		quota   float64
		status  Status
		detail  string
	}{
		"its quota":    {perLook: 50 * time.Millisecond, quota: 0.5, status: Warn, detail: "of 0.5 processors"},
		"a wide quota": {perLook: 50 * time.Millisecond, quota: 100, status: OK, detail: "of 100 processors"},
		"idle":         {status: OK, detail: "10% of 100 MiB"},
		"busy":         {perLook: time.Minute, status: Warn, detail: "expected at most 90%"},
		"fat":          {memory: 5, status: Warn, detail: "expected at most 5%"},
		"not known":    {perLook: -1, status: Skipped, detail: "does not account"},
	} {
		w.perLook, w.quota = tt.perLook, tt.quota
		target.Spec.Health.Resources.MemoryPercent = tt.memory
		r := (&Prober{Services: w}).Once(t.Context(), target)
		if c := check(r, "resources"); c.Status != tt.status || !strings.Contains(c.Detail, tt.detail) || r.Verdict != Healthy {
			t.Errorf("%s: %+v, want %s with %q", name, c, tt.status, tt.detail)
		}
	}
}

// TestFingerprint proves that lost data is seen, and that what cannot be known
// is not taken for lost.
func TestFingerprint(t *testing.T) {
	w, target := newWorld(t)
	base := strings.TrimSuffix(target.Spec.Health.URL, "/-/ready")
	tests := []component.Test{
		{Name: "samples", HTTP: &component.HTTPTest{URL: base + "/data", JSON: ".samples"}},
		{Name: "silences", Compare: "at_least", HTTP: &component.HTTPTest{URL: base + "/data", JSON: ".silences"}},
		{Name: "groups", Compare: "some", HTTP: &component.HTTPTest{URL: base + "/data", JSON: ".groups // 3"}},
		{Name: "unknown", HTTP: &component.HTTPTest{URL: base + "/nowhere"}},
	}
	p := &Prober{}
	w.data = `{"samples": null, "silences": 2}`
	if none := p.Fingerprint(t.Context(), component.Client{}, tests, time.Now()); none.Known() != 2 || !strings.Contains(none.Missing(), "samples: .samples is null") {
		t.Errorf("%+v", none)
	}
	w.data = `{"samples": 1234567.25, "silences": 2}`
	before := p.Fingerprint(t.Context(), component.Client{}, tests, time.Now())
	if before.Known() != 3 || !strings.Contains(before.Missing(), "unknown: ") {
		t.Fatalf("%+v", before)
	}
	for data, want := range map[string]string{
		`{"samples": 1234567.25, "silences": 2}`:               "",
		`{"samples": 1234567.2500000001, "silences": 3}`:       "",
		`{"samples": 1234566, "silences": 2}`:                  "samples was 1.23456725e+06, is 1.234566e+06",
		`{"samples": 1234567.25, "silences": 1}`:               "silences was 2, is 1",
		`{"samples": null, "silences": 2}`:                     "samples was 1.23456725e+06, is not known: .samples is null in the answer",
		`{"samples": 1234567.25, "silences": 1.9999999999999}`: "",
		`{"samples": 1234567.25, "silences": 2, "groups": 1}`:  "",
		`{"samples": 1234567.25, "silences": 2, "groups": 9}`:  "",
		`{"samples": 1234567.25, "silences": 2, "groups": 0}`:  "groups was 3, is 0",
		`<html>`: "is not known",
	} {
		w.data = data
		diff, err := p.Compare(t.Context(), component.Client{}, tests, before, 0)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if len(diff) > 0 {
			got = (&LostDataError{Component: "thing", Differences: diff}).Error()
		}
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", data, got, want)
		}
	}
}

// TestCompareWaits gives a store the time to show what it has.
func TestCompareWaits(t *testing.T) {
	w, target := newWorld(t)
	tests := []component.Test{{Name: "data", HTTP: &component.HTTPTest{URL: strings.Replace(target.Spec.Health.URL, "/-/ready", "/targets", 1), JSON: ".up"}}}
	before := Fingerprint{At: time.Now(), Values: []Value{{Name: "data", Value: "1"}}}
	w.targets = 2
	diff, err := (&Prober{}).Compare(t.Context(), component.Client{}, tests, before, 10*time.Second)
	if err != nil || len(diff) > 0 {
		t.Errorf("%v, %v", diff, err)
	}
}

// Debian's builds report their own revision beside the version that they tell when
// asked: both are the same program. A pre-release is another one.
func TestRevisionOfADistribution(t *testing.T) {
	for text, same := range map[string]bool{
		"0.11.0": true, "0.11.0-1+b4": true, "0.11.0-2": true, "0.11.0+ds-3+b1": true, "0.11.1-1+b4": false, "0.11.0-rc.1": false, "0.11.0-rc.1-1": false, "": false, "x-1": false,
	} {
		if got := upstreams(text).SameRelease(component.MustParseVersion("0.11.0")); got != same {
			t.Errorf("%q: %v", text, got)
		}
	}
}
