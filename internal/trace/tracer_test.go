package trace

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/freeport"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/trace/tracetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open opens a tracer by the environment, which the test has set; what it logs
// goes to the buffer.
func open(t *testing.T) (*Tracer, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	tr := Open(t.Context(), Options{Env: os.Getenv, Logger: slog.New(slog.NewTextHandler(&log, nil)), Version: "9.8.7"})
	return tr, &log
}

// collect starts a collector.
func collect(t *testing.T, listen func(*tracetest.Collector) (string, func(), error)) (*tracetest.Collector, string) {
	t.Helper()
	c := new(tracetest.Collector)
	url, stop, err := listen(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		for _, p := range c.Problems() {
			t.Error(p)
		}
	})
	return c, url
}

func closeIt(t *testing.T, tr *Tracer) {
	t.Helper()
	if err := tr.Close(); err != nil {
		t.Error(err)
	}
}

// at is a moment of the runs in these tests.
func at(s float64) time.Time {
	return time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC).Add(time.Duration(s * float64(time.Second)))
}

func version(t *testing.T, s string) component.Version {
	t.Helper()
	v, err := component.ParseVersion(s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

const id = "20261125_120000"

// story tells a run to a tracer.
type story struct {
	t  *testing.T
	tr *Tracer
}

func (s story) begin(op run.Operation, recovery bool, comps ...run.Planned) {
	s.tr.Event(run.Event{Run: id, Time: at(0), Step: run.StepBegin, Recovery: recovery, Begin: &run.Header{
		ID: id, Operation: op, Trigger: "manual", BackupPath: "/b/" + id, Components: comps, StartedAt: at(0),
	}})
}

func (s story) tell(sec float64, p run.Planned, st run.Step, done bool, detail string, err error) {
	s.tr.Event(run.Event{Run: id, Time: at(sec), Component: p.Name, Instance: p.Instance, From: p.From, To: p.To, Step: st, Done: done, Detail: detail, Err: err})
}

func (s story) step(from, to float64, p run.Planned, st run.Step, detail string, err error) {
	s.tell(from, p, st, false, "", nil)
	s.tell(to, p, st, true, detail, err)
}

func (s story) end(sec float64, op run.Operation, status string, outcomes ...run.Outcome) {
	s.tr.Event(run.Event{Run: id, Time: at(sec), Step: run.StepEnd, Done: true, Detail: status, End: &run.Result{
		ID: id, Operation: op, Status: status, Components: outcomes, Duration: sec, Warnings: []string{"beware"},
	}})
}

var (
	whole      = run.Planned{}
	prometheus = run.Planned{Name: "prometheus", From: "2.48.1", To: "2.49.0"}
	loki       = run.Planned{Name: "loki", Instance: "a", From: "3.0.0", To: "3.1.0"}
)

// compare compares all but times, ids and traces, and returns the spans by name.
func compare(t *testing.T, got *tracetest.Collector, want []tracetest.Span) map[string]tracetest.Span {
	t.Helper()
	spans := got.Spans()
	if diff := cmp.Diff(want, spans, cmpopts.IgnoreFields(tracetest.Span{}, "Trace", "Start", "End"), cmpopts.IgnoreUnexported(tracetest.Span{}), cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
	documented(t, spans)
	return named(t, got)
}

// documented insists that the documentation lists every attribute.
func documented(t *testing.T, spans []tracetest.Span) {
	t.Helper()
	page, err := os.ReadFile("../../docs/logs-and-traces.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range spans {
		for key := range s.Attrs {
			if !strings.Contains(string(page), "`"+key+"`") {
				t.Errorf("docs/logs-and-traces.md does not tell of %s, on the span %s", key, s.Name)
			}
		}
	}
}

// named gives the spans, which are of one trace, by their names.
func named(t *testing.T, got *tracetest.Collector) map[string]tracetest.Span {
	t.Helper()
	byName := map[string]tracetest.Span{}
	spans := got.Spans()
	for _, s := range spans {
		byName[s.Name] = s
		if s.Trace != spans[0].Trace {
			t.Errorf("%s is in another trace", s.Name)
		}
	}
	return byName
}

func stepAttrs(p run.Planned, st run.Step, detail string) map[string]string {
	out := map[string]string{"obsup.run": id, "obsup.step": string(st)}
	for k, v := range map[string]string{"component": p.Name, "instance": p.Instance, "from": p.From, "to": p.To, "detail": detail} {
		if v != "" {
			out["obsup."+k] = v
		}
	}
	return out
}

// A command that upgrades two components, over either protocol.
func TestSuccess(t *testing.T) {
	for protocol, listen := range map[string]func(*tracetest.Collector) (string, func(), error){
		"http/protobuf": (*tracetest.Collector).Listen, "grpc": (*tracetest.Collector).ListenGRPC,
	} {
		t.Run(protocol, func(t *testing.T) {
			got, url := collect(t, listen)
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
			t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
			t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20s3cret-token,x-team=sre")
			t.Setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
			t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
			tr, log := open(t)
			s := story{t, tr}
			ctx, end := tr.Command(t.Context(), "apply")
			_, looked := tr.Span(ctx, "look")
			looked(nil)
			inner, prepared := tr.Span(ctx, "prepare prometheus", slog.String("component", "prometheus"))
			_, downloaded := tr.Span(inner, "download")
			downloaded(nil, slog.Int64("bytes", 42), slog.Bool("cached", false))
			prepared(nil)
			s.begin(run.Apply, false, prometheus, loki)
			s.step(1, 2, whole, run.StepBackup, "/b/"+id, nil)
			s.step(3, 4, prometheus, run.StepStop, "stopped in 15ms", nil)
			s.tell(4, prometheus, run.StepHealth, false, "", nil)
			s.tell(5, prometheus, run.StepHealth, false, "replaying", nil)
			s.tell(6, prometheus, run.StepHealth, true, "healthy at 2.49.0", nil)
			s.tell(7, prometheus, run.StepFingerprint, true, "3 answers are as before", nil)
			s.step(8, 9, loki, run.StepSwap, "", nil)
			s.end(10, run.Apply, run.StatusSuccess,
				run.Outcome{Name: "prometheus", From: version(t, "2.48.1"), To: version(t, "2.49.0"), Status: run.Upgraded, Healthy: true, Downtime: 1.5, Duration: 4},
				run.Outcome{Name: "loki", Instance: "a", From: version(t, "3.0.0"), To: version(t, "3.1.0"), Status: run.Upgraded, Healthy: true, Duration: 1})
			end(nil)
			closeIt(t, tr)
			if log.Len() > 0 {
				t.Error(log)
			}
			host, _ := os.Hostname()
			resource, scope, headers := got.Resource()
			for key, want := range map[string]string{
				"service.name": "observability-upgrade", "service.version": "9.8.7", "host.name": host,
				"deployment.environment.name": "test", "telemetry.sdk.language": "go",
			} {
				if resource[key] != want {
					t.Errorf("resource: %s=%q, want %q", key, resource[key], want)
				}
			}
			if want := "github.com/observability-upgrade/observability-upgrade/internal/trace@9.8.7"; scope != want {
				t.Error(scope)
			}
			if headers.Get("Authorization") != "Bearer s3cret-token" || headers.Get("X-Team") != "sre" {
				t.Error(headers)
			}
			// What the run told is on the clock of its events, a day that the command itself is not of.
			documented(t, got.Spans())
			byName := named(t, got)
			root := tracetest.Span{Name: "apply", Events: []string{"warning beware"}, Attrs: map[string]string{
				"obsup.run": id, "obsup.operation": "apply", "obsup.triggered_by": "manual", "obsup.backup_path": "/b/" + id,
				"obsup.components": "prometheus 2.48.1 → 2.49.0, loki@a 3.0.0 → 3.1.0", "obsup.status": "success", "obsup.duration_seconds": "10",
			}}
			prom := tracetest.Span{Name: "change prometheus", Parent: "apply", Attrs: map[string]string{
				"obsup.run": id, "obsup.component": "prometheus", "obsup.from": "2.48.1", "obsup.to": "2.49.0",
				"obsup.status": "upgraded", "obsup.healthy": "true", "obsup.downtime_seconds": "1.5", "obsup.duration_seconds": "4",
			}}
			lokiSpan := tracetest.Span{Name: "change loki@a", Parent: "apply", Attrs: map[string]string{
				"obsup.run": id, "obsup.component": "loki", "obsup.instance": "a", "obsup.from": "3.0.0", "obsup.to": "3.1.0",
				"obsup.status": "upgraded", "obsup.healthy": "true", "obsup.downtime_seconds": "0", "obsup.duration_seconds": "1",
			}}
			health := tracetest.Span{Name: "health", Parent: "change prometheus", Attrs: stepAttrs(prometheus, run.StepHealth, "healthy at 2.49.0"), Events: []string{"progress replaying"}}
			want := map[string]tracetest.Span{
				"apply": root, "look": {Name: "look", Parent: "apply"},
				"prepare prometheus": {Name: "prepare prometheus", Parent: "apply", Attrs: map[string]string{"obsup.component": "prometheus"}},
				"download":           {Name: "download", Parent: "prepare prometheus", Attrs: map[string]string{"obsup.bytes": "42", "obsup.cached": "false"}},
				"backup":             {Name: "backup", Parent: "apply", Attrs: stepAttrs(whole, run.StepBackup, "/b/"+id)},
				"change prometheus":  prom, "change loki@a": lokiSpan, "health": health,
				"stop":        {Name: "stop", Parent: "change prometheus", Attrs: stepAttrs(prometheus, run.StepStop, "stopped in 15ms")},
				"fingerprint": {Name: "fingerprint", Parent: "change prometheus", Attrs: stepAttrs(prometheus, run.StepFingerprint, "3 answers are as before")},
				"swap":        {Name: "swap", Parent: "change loki@a", Attrs: stepAttrs(loki, run.StepSwap, "")},
			}
			if diff := cmp.Diff(want, byName, cmpopts.IgnoreFields(tracetest.Span{}, "Trace", "Start", "End"), cmpopts.IgnoreUnexported(tracetest.Span{}), cmpopts.EquateEmpty()); diff != "" {
				t.Error(diff)
			}
			for name, times := range map[string][2]float64{"backup": {1, 2}, "change prometheus": {3, 7}, "stop": {3, 4}, "health": {4, 6}, "fingerprint": {7, 7}, "swap": {8, 9}} {
				if sp := byName[name]; !sp.Start.Equal(at(times[0])) || !sp.End.Equal(at(times[1])) {
					t.Errorf("%s: %s to %s", name, sp.Start, sp.End)
				}
			}
			if sp := byName["apply"]; time.Since(sp.Start) > time.Minute || sp.End.Before(sp.Start) {
				t.Errorf("apply: %s to %s", sp.Start, sp.End)
			}
		})
	}
}

// A component that fails and is rolled back; a second one that is not attempted.
func TestRolledBack(t *testing.T) {
	got, url := collect(t, (*tracetest.Collector).Listen)
	t.Setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", url+"/v1/traces")
	tr, log := open(t)
	s := story{t, tr}
	broken := errors.New("prometheus 2.49.0 is not healthy: readiness: 503")
	s.begin(run.Apply, false, prometheus, loki) // no command: the run is the root
	s.step(1, 2, prometheus, run.StepStart, "", nil)
	s.tell(2.5, prometheus, run.StepHealth, false, "", nil)
	s.tell(3, prometheus, run.StepHealth, true, "", broken)
	s.tell(4, prometheus, run.StepUndo, false, "back to 2.48.1", nil)
	s.step(5, 6, prometheus, run.StepRestore, "the data is as it was before", nil)
	s.tell(7, prometheus, run.StepHealth, false, "waiting", nil)
	s.tell(8, prometheus, run.StepUndo, true, "back at 2.48.1", nil)
	s.end(9, run.Apply, run.StatusRolledBack,
		run.Outcome{Name: "prometheus", From: version(t, "2.48.1"), To: version(t, "2.49.0"), Status: run.RolledBack, Error: broken.Error(), Evidence: "/e.json"},
		run.Outcome{Name: "loki", Instance: "a", From: version(t, "3.0.0"), To: version(t, "3.1.0"), Status: run.NotAttempted})
	closeIt(t, tr)
	if log.Len() > 0 {
		t.Error(log)
	}
	byName := compare(t, got, []tracetest.Span{
		{
			Name: "apply", Error: "the run ended with status rolled_back", Events: []string{"rollback back to 2.48.1", "not_attempted", "warning beware"},
			Attrs: map[string]string{
				"obsup.run": id, "obsup.operation": "apply", "obsup.triggered_by": "manual", "obsup.backup_path": "/b/" + id,
				"obsup.components": "prometheus 2.48.1 → 2.49.0, loki@a 3.0.0 → 3.1.0", "obsup.status": "rolled_back", "obsup.duration_seconds": "9",
			},
		},
		{
			Name: "change prometheus", Parent: "apply", Error: broken.Error(), Events: []string{"rollback back to 2.48.1"},
			Attrs: map[string]string{
				"obsup.run": id, "obsup.component": "prometheus", "obsup.from": "2.48.1", "obsup.to": "2.49.0", "obsup.status": "rolled_back",
				"obsup.healthy": "false", "obsup.downtime_seconds": "0", "obsup.duration_seconds": "0", "obsup.evidence": "/e.json",
			},
		},
		{Name: "start", Parent: "change prometheus", Attrs: stepAttrs(prometheus, run.StepStart, "")},
		{Name: "health", Parent: "change prometheus", Attrs: stepAttrs(prometheus, run.StepHealth, ""), Error: broken.Error()},
		{Name: "undo", Parent: "change prometheus", Attrs: stepAttrs(prometheus, run.StepUndo, "back at 2.48.1"), Events: []string{"progress waiting"}},
		{Name: "restore", Parent: "undo", Attrs: stepAttrs(prometheus, run.StepRestore, "the data is as it was before")},
	})
	if sp := byName["apply"]; !sp.Start.Equal(at(0)) || !sp.End.Equal(at(9)) {
		t.Errorf("apply: %s to %s", sp.Start, sp.End)
	}
	if sp := byName["change prometheus"]; !sp.Start.Equal(at(1)) || !sp.End.Equal(at(8)) {
		t.Errorf("change: %s to %s", sp.Start, sp.End)
	}
}

// Two steps of one component in one run are two changes.
func TestSteppingStones(t *testing.T) {
	got, url := collect(t, (*tracetest.Collector).Listen)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url+"/")
	tr, _ := open(t)
	s := story{t, tr}
	next := run.Planned{Name: "prometheus", From: "2.49.0", To: "3.0.0"}
	s.begin(run.Apply, false, prometheus, next)
	s.step(1, 2, prometheus, run.StepSwap, "", nil)
	s.step(3, 4, next, run.StepSwap, "", nil)
	s.end(5, run.Apply, run.StatusSuccess)
	closeIt(t, tr)
	var ends []string
	for _, sp := range got.Spans() {
		if sp.Name == "change prometheus" {
			ends = append(ends, sp.Attrs["obsup.to"])
		}
	}
	if diff := cmp.Diff([]string{"2.49.0", "3.0.0"}, ends); diff != "" {
		t.Error(diff)
	}
}

// The recovery of an interrupted run within a command has a trace of its own, with
// a link to the command's.
func TestRecovery(t *testing.T) {
	got, url := collect(t, (*tracetest.Collector).Listen)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
	tr, _ := open(t)
	s := story{t, tr}
	_, end := tr.Command(t.Context(), "apply")
	s.begin(run.Apply, true, prometheus)
	s.tell(1, prometheus, run.StepUndo, false, "back to 2.48.1", nil)
	s.tell(2, prometheus, run.StepUndo, true, "back at 2.48.1", nil)
	s.end(3, run.Apply, run.StatusInterrupted, run.Outcome{Name: "prometheus", From: version(t, "2.48.1"), To: version(t, "2.49.0"), Status: run.RolledBack, Error: "crash"})
	end(nil)
	closeIt(t, tr)
	traces := map[string]string{}
	var recovery tracetest.Span
	for _, sp := range got.Spans() {
		traces[sp.Name] = sp.Trace
		if sp.Name == "recover" {
			recovery = sp
		}
	}
	if traces["recover"] == traces["apply"] || traces["recover"] != traces["undo"] || traces["recover"] == "" {
		t.Errorf("%v", traces)
	}
	if recovery.Links != 1 || recovery.Parent != "" || recovery.Attrs["obsup.run"] != id || recovery.Attrs["obsup.status"] != "interrupted" || recovery.Error == "" {
		t.Errorf("%+v", recovery)
	}
}

// A run that is cut off leaves no span open, and says so.
func TestCutOff(t *testing.T) {
	got, url := collect(t, (*tracetest.Collector).Listen)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
	tr, _ := open(t)
	s := story{t, tr}
	_, end := tr.Command(t.Context(), "apply")
	s.begin(run.Apply, false, prometheus)
	s.tell(1, prometheus, run.StepSwap, false, "", nil)
	end(errors.New("simulated crash"))
	closeIt(t, tr)
	errs := map[string]string{}
	for _, sp := range got.Spans() {
		errs[sp.Name] = sp.Error
	}
	if diff := cmp.Diff(map[string]string{"apply": "simulated crash", "change prometheus": errCutOff.Error(), "swap": errCutOff.Error()}, errs); diff != "" {
		t.Error(diff)
	}
}

// TRACEPARENT puts the command below the caller's span, by the caller's decision
// whether it is traced.
func TestParent(t *testing.T) {
	const trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	for _, c := range []struct {
		header string
		spans  int
		parent string
		warns  bool
	}{
		{"00-" + trace + "-" + parent + "-01", 1, "?" + parent, false},
		{"00-" + trace + "-" + parent + "-00", 0, "", false},
		{"nonsense", 1, "", true},
		{"", 1, "", false},
	} {
		t.Run(c.header, func(t *testing.T) {
			got, url := collect(t, (*tracetest.Collector).Listen)
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
			t.Setenv("TRACEPARENT", c.header)
			tr, log := open(t)
			_, end := tr.Command(t.Context(), "restart")
			end(nil)
			closeIt(t, tr)
			spans := got.Spans()
			if len(spans) != c.spans || c.spans == 1 && spans[0].Parent != c.parent {
				t.Errorf("%+v", spans)
			}
			if c.parent != "" && len(spans) == 1 && spans[0].Trace != trace {
				t.Errorf("trace %s", spans[0].Trace)
			}
			if c.warns != strings.Contains(log.String(), "TRACEPARENT") {
				t.Error(log)
			}
		})
	}
}

// What is not of a command makes no span: looking is not traced.
func TestOutsideCommand(t *testing.T) {
	got, url := collect(t, (*tracetest.Collector).Listen)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
	tr, _ := open(t)
	_, end := tr.Span(t.Context(), "look")
	end(nil)
	tr.Event(run.Event{Run: id, Time: at(0), Component: "x", Step: run.StepStop}) // of a run whose beginning was not told
	closeIt(t, tr)
	if spans := got.Spans(); len(spans) > 0 {
		t.Errorf("%+v", spans)
	}
}

// Who asks for no traces gets none, and who asks in a way that cannot be followed
// is told, without values that may be secret.
func TestAsked(t *testing.T) {
	for _, c := range []struct {
		name string
		env  map[string]string
		want bool
		log  string
	}{
		{"nothing", nil, false, ""},
		{"empty", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, false, ""},
		{"disabled", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "TRUE"}, false, ""},
		{"no exporter", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"}, false, ""},
		{"asked", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "otlp"}, true, ""},
		{"another exporter", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "zipkin"}, false, "OTEL_TRACES_EXPORTER=zipkin: want otlp or none"},
		{"no URL", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "me:hunter22@collector:4318"}, false, "OTEL_EXPORTER_OTLP_ENDPOINT is not a URL as http://collector:4318"},
		{"no URL that can be parsed", map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://me:hunter22@[collector"}, false, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is not a URL"},
		{"another protocol", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, false, "OTEL_EXPORTER_OTLP_PROTOCOL=http/json: want http/protobuf or grpc"},
		{"a header that cannot be read", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer hunter22%ZZ,hunter22"}, true, "escape header value"},
		{"a certificate that is not there", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "https://127.0.0.1:1", "OTEL_EXPORTER_OTLP_CERTIFICATE": "/nowhere.pem"}, true, "/nowhere.pem"},
		{"a sampler that does not exist", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_SAMPLER": "dice"}, true, "unsupported sampler: dice"},
		{"resources that cannot be read", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_RESOURCE_ATTRIBUTES": "nonsense"}, true, "resource"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for k, v := range c.env {
				t.Setenv(k, v)
			}
			tr, log := open(t)
			closeIt(t, tr)
			if (tr != nil) != c.want {
				t.Errorf("%v", tr)
			}
			if c.log == "" && log.Len() > 0 || !strings.Contains(log.String(), c.log) {
				t.Errorf("logged %q, want %q", log, c.log)
			}
			if strings.Contains(log.String(), "hunter22") || strings.Contains(log.String(), "level=ERROR") {
				t.Error(log)
			}
		})
	}
}

func TestSampler(t *testing.T) {
	got, url := collect(t, (*tracetest.Collector).Listen)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
	t.Setenv("OTEL_TRACES_SAMPLER", "always_off")
	tr, log := open(t)
	ctx, end := tr.Command(t.Context(), "apply")
	_, looked := tr.Span(ctx, "look")
	looked(nil)
	s := story{t, tr}
	s.begin(run.Apply, false, prometheus)
	s.step(1, 2, prometheus, run.StepSwap, "", nil)
	s.end(3, run.Apply, run.StatusSuccess)
	end(nil)
	closeIt(t, tr)
	if spans := got.Spans(); len(spans) > 0 || log.Len() > 0 {
		t.Errorf("%+v %s", spans, log)
	}
}

// OTEL_EXPORTER_OTLP_CERTIFICATE names who may have signed the collector's.
func TestCertificate(t *testing.T) {
	asked := make(chan struct{}, 1)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked <- struct{}{} }))
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.StartTLS()
	defer srv.Close()
	cert := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", srv.URL)
	t.Setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", cert)
	tr, log := open(t)
	_, end := tr.Command(t.Context(), "apply")
	end(nil)
	closeIt(t, tr)
	select {
	case <-asked:
	default:
		t.Errorf("the collector was not asked: %s", log)
	}
}

// A collector that refuses is told of once, without the secrets that it repeats.
func TestRefused(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprintf(w, "no such token: %s; nor %s", r.Header.Get("Authorization"), strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
	}))
	defer srv.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", srv.URL)
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20hunter22-token")
	tr, log := open(t)
	ctx, end := tr.Command(t.Context(), "apply")
	_, looked := tr.Span(ctx, "look")
	looked(nil)
	end(nil)
	closeIt(t, tr)
	text := log.String()
	if strings.Count(text, "\n") != 1 || !strings.Contains(text, "level=WARN") || !strings.Contains(text, "spans=2") || !strings.Contains(text, "401") || strings.Contains(text, "hunter22") {
		t.Error(text)
	}
}

// A collector that hangs, or is away, holds the command for Flush at most, and
// leaves nothing behind.
func TestHanging(t *testing.T) {
	release := make(chan struct{})
	hang := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	defer hang.Close()
	defer close(release)
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	closed, bound, err := freeport.Shut()
	if err != nil {
		t.Fatal(err)
	}
	defer bound.Close()
	for _, c := range []struct{ name, protocol, url string }{
		{"answers nothing", "http/protobuf", hang.URL},
		{"no TLS handshake", "http/protobuf", "https://" + silent.Addr().String()},
		{"away", "http/protobuf", "http://" + closed},
		{"gRPC, no handshake", "grpc", "http://" + silent.Addr().String()},
		{"gRPC, away", "grpc", "http://" + closed},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", c.url)
			t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", c.protocol)
			t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "1") // it is hanging already while the run goes on
			began := time.Now()
			tr, log := open(t)
			s := story{t, tr}
			_, end := tr.Command(t.Context(), "apply")
			s.begin(run.Apply, false, prometheus)
			for i := range 5000 { // more than its queue holds
				s.step(float64(i), float64(i), prometheus, run.StepSwap, "", nil)
			}
			s.end(9, run.Apply, run.StatusSuccess)
			end(nil)
			told := time.Since(began)
			closeIt(t, tr)
			took := time.Since(began) - told
			if told > 20*time.Second { // it takes a tenth of a second; the machine may be busy
				t.Errorf("the run was held for %s", told)
			}
			if took > Flush+20*time.Second {
				t.Errorf("closing took %s", took)
			}
			if text := log.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "level=WARN msg=\"traces were not delivered") {
				t.Error(text)
			}
		})
	}
}

func TestNil(t *testing.T) {
	var tr *Tracer
	ctx, end := tr.Command(t.Context(), "apply")
	_, done := tr.Span(ctx, "look")
	done(nil)
	end(nil)
	tr.Event(run.Event{Step: run.StepBegin, Begin: &run.Header{}})
	closeIt(t, tr)
}
