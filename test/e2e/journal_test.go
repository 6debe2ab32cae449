package e2e

import (
	"encoding/json"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/trace/tracetest"
)

// entry is a record of the journal, as `journalctl -o json` prints it.
type entry map[string]any

func (e entry) get(field string) string {
	s, _ := e[field].(string)
	return s
}

// journal reads the journal's records that match, fields as FIELD=value.
func (h *host) journal(matches ...string) []entry {
	h.t.Helper()
	h.MustRun(h.ctx, "journalctl", "--sync")
	var out []entry
	for line := range strings.Lines(h.MustRun(h.ctx, append([]string{"journalctl", "--no-pager", "-o", "json"}, matches...)...)) {
		if !strings.HasPrefix(line, "{") {
			continue // "-- No entries --"
		}
		var e entry
		h.check(json.Unmarshal([]byte(line), &e))
		out = append(out, e)
	}
	return out
}

// service runs the program as a unit whose output goes to the journal, and returns
// the exit code.
func (h *host) service(unit string, args ...string) int {
	h.t.Helper()
	res, err := h.Run(h.ctx, append([]string{"systemd-run", "--wait", "--quiet", "--unit=" + unit, program}, args...)...)
	h.check(err)
	return res.ExitCode
}

// documented joins the blocks of docs/logs-and-traces.md in one language.
func documented(t *testing.T, language string) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/logs-and-traces.md")
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, m := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllSubmatch(page, -1) {
		out.Write(m[1])
	}
	return out.String()
}

// Records of a run are in the journal with their fields, one of each step; people
// read them as lines. A journald that is stopped holds nobody.
func TestJournalFields(t *testing.T) {
	t.Parallel()
	h := newHost(t, map[string]string{"node_exporter": "1.5"}, map[string][]string{"node_exporter": {"1.9"}})
	h.upgrade(0, "adopt", "--yes")
	if code := h.service("up", "apply", "--yes"); code != 0 {
		t.Fatalf("exit code %d\n%s", code, h.MustRun(h.ctx, "journalctl", "-u", "up", "--no-pager"))
	}
	all := func() string { return h.MustRun(h.ctx, "journalctl", "-u", "up", "--no-pager", "-o", "verbose") }
	for _, step := range []string{"download", "verify", "place", "stop", "swap", "start", "health"} {
		got := h.journal("OBSUP_COMPONENT=node_exporter", "OBSUP_STEP="+step, "PRIORITY=6")
		if len(got) != 1 {
			t.Errorf("step %s: %d records\n%s", step, len(got), all())
			continue
		}
		e := got[0]
		if msg := e.get("MESSAGE"); !strings.HasPrefix(msg, "step ") || !strings.Contains(msg, "component=node_exporter") || !strings.Contains(msg, "step="+step) {
			t.Errorf("step %s: %s", step, msg)
		}
		if e.get("SYSLOG_IDENTIFIER") != "observability-upgrade" || e.get("_SYSTEMD_UNIT") != "up.service" || e.get("_TRANSPORT") != "journal" || e.get("OBSUP_DONE") != "true" {
			t.Errorf("step %s: %v", step, e)
		}
	}
	ends := h.journal("-t", "observability-upgrade", "OBSUP_STEP=end")
	if len(ends) != 1 || ends[0].get("OBSUP_STATUS") != "success" || ends[0].get("OBSUP_RUN") == "" {
		t.Fatalf("%v\n%s", ends, all())
	}
	if got := h.journal("OBSUP_RUN="+ends[0].get("OBSUP_RUN"), "OBSUP_STEP=begin"); len(got) != 1 || got[0].get("OBSUP_OPERATION") != "apply" {
		t.Errorf("%v", got)
	}
	// Nothing of the progress is there a second time, as text from standard error.
	for _, e := range h.journal("-u", "up") {
		if e.get("_TRANSPORT") == "stdout" && (strings.Contains(e.get("MESSAGE"), " swap ") || strings.Contains(e.get("MESSAGE"), "level=")) {
			t.Errorf("%v", e)
		}
	}

	// The error that ends a command has its priority, its exit code and what to type;
	// and its unit, though journald reads it only when the command has said its last.
	h.MustRun(h.ctx, "systemctl", "kill", "-s", "STOP", "systemd-journald.service")
	wrong := make(chan int, 1)
	go func() {
		defer close(wrong)
		wrong <- h.service("wrong", "apply", "--yes", "--component=nod_exporter")
	}()
	time.Sleep(500 * time.Millisecond) // about how long it takes when nobody waits
	h.MustRun(h.ctx, "systemctl", "kill", "-s", "CONT", "systemd-journald.service")
	if code := <-wrong; code != 2 {
		t.Errorf("exit code %d", code)
	}
	if got := h.journal("-u", "wrong", "-p", "err", "OBSUP_EXIT_CODE=2"); len(got) != 1 || got[0].get("OBSUP_HINT") == "" || !strings.Contains(got[0].get("MESSAGE"), `did you mean "node_exporter"?`) {
		t.Errorf("%v", got)
	}

	// A format that was asked for is kept to.
	for format, want := range map[string]string{"json": `"step":"swap"`, "text": "step=swap"} {
		if code := h.service("as-"+format, "restart", "--component=node_exporter", "--log-level=debug", "--log-format="+format); code != 0 {
			t.Errorf("%s: exit code %d", format, code)
		}
		if got := h.journal("-u", "as-"+format, "OBSUP_COMPONENT=node_exporter"); len(got) > 0 {
			t.Errorf("%s: %v", format, got[0])
		}
		want = strings.Replace(want, "swap", "stop", 1)
		if text := h.MustRun(h.ctx, "journalctl", "-u", "as-"+format, "--no-pager"); !strings.Contains(text, want) {
			t.Errorf("%s: no %s in\n%s", format, want, text)
		}
	}

	// What the documentation says to type finds something.
	shown := 0
	for line := range strings.Lines(documented(t, "sh")) {
		if !strings.HasPrefix(line, "journalctl ") {
			continue
		}
		shown++
		args := strings.Fields(strings.ReplaceAll(line, "prometheus", "node_exporter"))
		if out := h.MustRun(h.ctx, append(args, "--no-pager")...); !strings.Contains(out, "observability-upgrade") && !strings.Contains(out, "OBSUP_") {
			t.Errorf("%s finds nothing: %s", line, out)
		}
	}
	if shown < 5 {
		t.Errorf("only %d commands are documented", shown)
	}

	// journald stopped in the middle of everything: nothing waits for it.
	h.MustRun(h.ctx, "systemctl", "kill", "-s", "STOP", "systemd-journald.service")
	began := time.Now()
	code := h.service("stopped", "restart", "--component=node_exporter", "--log-level=debug")
	took := time.Since(began)
	h.MustRun(h.ctx, "systemctl", "kill", "-s", "CONT", "systemd-journald.service")
	if code != 0 || took > 30*time.Second {
		t.Errorf("with journald stopped: exit code %d after %s", code, took)
	}
}

// The recovery of a run that was killed is a trace of its own, with the run's id; a
// drop-in makes the timer's runs traces too.
func TestTraces(t *testing.T) {
	t.Parallel()
	h := newHost(t, map[string]string{"node_exporter": "1.5"}, map[string][]string{"node_exporter": {"1.9"}})
	collector := new(tracetest.Collector)
	l, err := h.Listen(h.ctx, "tcp", "127.0.0.1:4318")
	h.check(err)
	srv := &http.Server{Handler: collector, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	h.upgrade(0, "adopt", "--yes")
	run := func(env string, args ...string) int {
		t.Helper()
		res, err := h.Run(h.ctx, append([]string{"env", "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318", env, program}, args...)...)
		h.check(err)
		return res.ExitCode
	}
	if code := run("OBSUP_FAULT=kill-after:8", "apply", "--yes"); code == 0 {
		t.Fatal("it was not killed")
	}
	var st status
	h.document(&st, 0, "status")
	if st.Interrupted == nil {
		t.Fatal("no interrupted run")
	}
	collector.Reset()
	if code := run("X=", "recover"); code != 0 {
		t.Fatalf("recover: exit code %d", code)
	}
	var names []string
	traces := map[string]bool{}
	for _, s := range collector.Spans() {
		names = append(names, s.Parent+"/"+s.Name)
		traces[s.Trace] = true
		if s.Attrs["obsup.run"] != st.Interrupted.ID {
			t.Errorf("%+v", s)
		}
	}
	if len(traces) != 1 || strings.Join(names, " ") != "/recover recover/change node_exporter change node_exporter/undo" {
		t.Errorf("%d traces: %v", len(traces), names)
	}
	if got := h.agrees("node_exporter"); line(got) != "1.5" {
		t.Errorf("node_exporter is at %s", got)
	}

	// The drop-in of the documentation, and a secret header beside it.
	collector.Reset()
	path, _, _ := strings.Cut(strings.TrimPrefix(documented(t, "ini"), "# "), "\n")
	h.file(path, documented(t, "ini"))
	h.file("/etc/observability/otel.env", "OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20hunter22\n")
	h.upgrade(0, "auto-enable", "--policy=any")
	h.MustRun(h.ctx, "systemctl", "start", "observability-upgrade.service")
	logs := h.MustRun(h.ctx, "journalctl", "-u", "observability-upgrade.service", "--no-pager", "-o", "verbose")
	var roots []tracetest.Span
	for _, s := range collector.Spans() {
		if s.Parent == "" {
			roots = append(roots, s)
		}
	}
	if len(roots) != 1 || roots[0].Name != "apply" || roots[0].Attrs["obsup.triggered_by"] != "scheduled" || roots[0].Error != "" {
		t.Errorf("%+v\n%s", roots, logs)
	}
	if resource, _, headers := collector.Resource(); headers.Get("Authorization") != "Bearer hunter22" || resource["service.name"] != "observability-upgrade" || resource["host.name"] == "" {
		t.Errorf("%v %v", resource, headers)
	}
	if strings.Contains(logs, "hunter22") {
		t.Error("the secret is in the journal")
	}
	if p := collector.Problems(); len(p) > 0 {
		t.Error(p)
	}
	if got := h.agrees("node_exporter"); line(got) != "1.9" {
		t.Errorf("node_exporter is at %s\n%s", got, logs)
	}
}
