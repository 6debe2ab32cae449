package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/observability-upgrade/observability-upgrade/internal/overview"
	"github.com/observability-upgrade/observability-upgrade/internal/plan"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/state"
	"github.com/observability-upgrade/observability-upgrade/internal/vulnerability"
)

var pages = []string{"/", "/history", "/history?component=prometheus&status=success", "/backups", "/runs/" + pastID, "/runs/" + failedID}

// protectedBy fails where an answer lacks what keeps a browser from harm.
func protectedBy(t *testing.T, what string, h http.Header) {
	t.Helper()
	for key, want := range map[string]string{
		"Content-Security-Policy":      "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
		"X-Content-Type-Options":       "nosniff",
		"X-Frame-Options":              "DENY",
		"Referrer-Policy":              "no-referrer",
		"Cross-Origin-Opener-Policy":   "same-origin",
		"Cross-Origin-Resource-Policy": "same-origin",
	} {
		if got := h.Get(key); got != want {
			t.Errorf("%s: %s is %q, want %q", what, key, got, want)
		}
	}
	if h.Get("Permissions-Policy") == "" || h.Get("Cache-Control") == "" {
		t.Errorf("%s: %v", what, h)
	}
}

func TestAnswers(t *testing.T) {
	h := newHost(t)
	o := h.options()
	o.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "# metrics") })
	_, url := h.serve(o)
	_, bare := h.serve(h.options())
	for _, c := range []struct {
		address, method string
		code            int
		kind, cache     string
		says            string
	}{
		{url + "/", "", 200, "text/html; charset=utf-8", "no-store", "mon-1.example.org"},
		{url + "/history", "", 200, "text/html; charset=utf-8", "no-store", "History"},
		{url + "/backups", "", 200, "text/html; charset=utf-8", "no-store", "rollback --to=20261122_020011"},
		{url + "/runs/" + pastID, "", 200, "text/html; charset=utf-8", "no-store", "Upgrade"},
		{url + "/runs/20010101_000000", "", 404, "text/html; charset=utf-8", "no-store", "No run of this name"},
		{url + "/runs/..%2f..%2f..%2fetc%2fpasswd", "", 404, "text/html; charset=utf-8", "no-store", "No run of this name"},
		{url + "/runs/" + strings.Repeat("x", 5000), "", 404, "text/html; charset=utf-8", "no-store", "No run of this name"},
		{url + "/nothing", "", 404, "text/html; charset=utf-8", "no-store", "There is no such page"},
		{url + "/assets/style.css", "", 404, "text/plain; charset=utf-8", "no-store", "not found"},
		{url + "/history?page=0", "", 400, "text/html; charset=utf-8", "no-store", "a number from 1"},
		{url + "/history?status=lost", "", 400, "text/html; charset=utf-8", "no-store", "one of success"},
		{url + "/healthz", "", 200, "text/plain; charset=utf-8", "no-store", "ok"},
		{url + "/metrics", "", 200, "text/plain; charset=utf-8", "no-store", "# metrics"},
		{bare + "/metrics", "", 404, "text/html; charset=utf-8", "no-store", "There is no such page"},
		{url + "/", "HEAD", 200, "text/html; charset=utf-8", "no-store", ""},
		{url + "/events", "HEAD", 200, "text/event-stream", "no-store", ""},
		{url + "/", "POST", 405, "text/plain; charset=utf-8", "no-store", "Method Not Allowed"},
		{url + "/history", "PUT", 405, "text/plain; charset=utf-8", "no-store", "Method Not Allowed"},
		{url + "/events", "DELETE", 405, "text/plain; charset=utf-8", "no-store", "Method Not Allowed"},
		{url + "/metrics", "POST", 405, "text/plain; charset=utf-8", "no-store", "Method Not Allowed"},
		{url + "/runs/" + pastID, "PATCH", 405, "text/plain; charset=utf-8", "no-store", "Method Not Allowed"},
	} {
		if c.method == "" {
			c.method = http.MethodGet
		}
		what := c.method + " " + c.address[strings.LastIndex(c.address, ":"):]
		d := ask(t, c.method, c.address)
		if d.code != c.code || d.head.Get("Content-Type") != c.kind || d.head.Get("Cache-Control") != c.cache || !strings.Contains(d.body, c.says) {
			t.Errorf("%.100s: %d %v\n%.2000s", what, d.code, d.head, d.body)
		}
		if c.method == http.MethodHead && d.body != "" {
			t.Errorf("%s has a body", what)
		}
		protectedBy(t, what, d.head)
	}
}

// What pages load is kept by browsers for good, and another content has another
// name.
func TestAssets(t *testing.T) {
	h := newHost(t)
	_, url := h.serve(h.options())
	d := get(t, url+"/")
	var found []string
	for _, n := range append(d.all("link"), d.all("script")...) {
		address := attr(n, "href") + attr(n, "src")
		a := ask(t, http.MethodGet, url+address)
		if a.code != http.StatusOK || a.head.Get("Cache-Control") != "public, max-age=31536000, immutable" {
			t.Errorf("%s: %d %v", address, a.code, a.head)
		}
		protectedBy(t, address, a.head)
		if !regexp.MustCompile(`^/assets/[a-z]+\.[0-9a-f]{12}\.(css|js|svg)$`).MatchString(address) {
			t.Errorf("%s carries no digest", address)
		}
		found = append(found, a.head.Get("Content-Type"))
	}
	if want := "image/svg+xml text/css; charset=utf-8 text/javascript; charset=utf-8"; strings.Join(found, " ") != want {
		t.Errorf("the page loads %v, want %s", found, want)
	}
	if d := get(t, url+"/backups"); len(d.all("script")) != 0 {
		t.Error("a page on which nothing happens loads a script")
	}
}

// sound checks what a browser, or a person who cannot see, needs of every page.
func sound(t *testing.T, what string, d *document) {
	t.Helper()
	ids := map[string]bool{}
	for _, n := range d.all("") {
		if id := attr(n, "id"); id != "" {
			if ids[id] {
				t.Errorf("%s: the id %q comes twice", what, id)
			}
			ids[id] = true
		}
	}
	one := func(name string) {
		t.Helper()
		if n := len(d.all(name)); n != 1 {
			t.Errorf("%s: %d elements %s, want one", what, n, name)
		}
	}
	one("h1")
	one("main")
	one("header")
	one("footer")
	if n := len(all(d.all("head")[0], "title")); n != 1 {
		t.Errorf("%s: %d titles", what, n)
	}
	if attr(d.all("html")[0], "lang") != "en" || attr(d.all("a")[0], "href") != "#main" {
		t.Errorf("%s: no language, or the first link does not skip to the content", what)
	}
	for _, n := range d.all("") {
		for _, a := range n.Attr {
			switch {
			case a.Key == "style", strings.HasPrefix(a.Key, "on"):
				t.Errorf("%s: <%s %s=%q>, which the policy forbids", what, n.Data, a.Key, a.Val)
			case a.Key == "aria-labelledby", a.Key == "for":
				for id := range strings.FieldsSeq(a.Val) {
					if !ids[id] {
						t.Errorf("%s: <%s> is named by %q, which is not there", what, n.Data, id)
					}
				}
			case a.Key == "href" && !regexp.MustCompile(`^(/|#|https?://)`).MatchString(a.Val):
				t.Errorf("%s: a link leads to %q", what, a.Val)
			}
		}
		switch n.Data {
		case "script":
			if n.FirstChild != nil || attr(n, "src") == "" {
				t.Errorf("%s: an inline script", what)
			}
		case "style", "iframe", "object", "embed", "base", "img":
			t.Errorf("%s: <%s>", what, n.Data)
		case "table":
			if len(all(n, "caption")) != 1 && !has(n, "aria-labelledby") {
				t.Errorf("%s: a table without a name", what)
			}
			if len(all(n, "thead")) != 1 {
				t.Errorf("%s: a table without headings", what)
			}
		case "th":
			if s := attr(n, "scope"); s != "row" && s != "col" {
				t.Errorf("%s: a heading of a table without a scope", what)
			}
		case "svg":
			if attr(n, "aria-hidden") == "" && (attr(n, "role") != "img" || len(all(n, "title")) == 0 || len(all(n, "desc")) != 1) {
				t.Errorf("%s: a drawing without a title or a description", what)
			}
		case "select":
			if attr(n, "id") == "" {
				t.Errorf("%s: a field without a label", what)
			}
		}
		if strings.Contains(" "+attr(n, "class")+" ", " mark ") && n.FirstChild != nil && strings.TrimSpace(strings.TrimPrefix(text(n), text(n.FirstChild))) == "" && attr(n, "data-is") == "" {
			t.Errorf("%s: a state that is told by a sign alone: %q", what, text(n))
		}
	}
}

func TestPagesAreSound(t *testing.T) {
	h := newHost(t)
	_, url := h.serve(h.options())
	for _, p := range pages {
		sound(t, p, get(t, url+p))
	}
	r := h.begin()
	r.step("node_exporter", run.StepPlace, "")
	r.event(run.Event{Component: "node_exporter", Step: run.StepStop})
	for _, p := range []string{"/", "/runs/" + r.id} {
		sound(t, p+" of a run at work", get(t, url+p))
	}
	r.kill()
	for _, p := range []string{"/", "/runs/" + r.id} {
		sound(t, p+" of a run cut off", get(t, url+p))
	}
}

func TestHome(t *testing.T) {
	h := newHost(t)
	_, url := h.serve(h.options())
	d := get(t, url+"/")
	for name, want := range map[string]map[string]string{
		"prometheus": {
			"Component": "prometheus datastore", "Installed": "2.53.3 before: 2.52.0", "Health": "✓ Healthy", "Available": "↑ 2.55.1 3 versions behind", "Vulnerabilities": "– Not known",
		},
		"alertmanager": {"Available": "‖ 0.28.1 held 2 versions behind 0.28.1 is on hold until 2027-01-10: wait for the new templates"},
		"grafana": {
			"Health": `✕ Unhealthy ready: http://localhost:3000/api/health answered 503 "database is locked", expected 200`, "Available": "‖ 12.0.1 blocked 5 versions behind 12.0.1 needs prometheus >=2.55.0, and 2.53.3 is installed",
		},
		"loki":          {"Installed": "2.9.8", "Available": "– Not known upstream could not be asked: GET https://api.github.com/repos/grafana/loki/releases: 403 rate limited until 12:40 UTC"},
		"node_exporter": {"Available": "✓ Up to date"},
	} {
		row := d.row(name)
		for column, w := range want {
			if row[column] != w {
				t.Errorf("%s, %s: %q, want %q", name, column, row[column], w)
			}
		}
	}
	d.says("1 of 5 unhealthy", "1 available", "2 more held back; 1 not known", "5 h ago", "1 upstream was not reached", "alertmanager all versions, until", "patch_only", "saturday 02:00-06:00 UTC",
		"The next one opens in 2 days", "3 backup points, 521 MB; 1 not complete")
	d.never("None known")
	if row := d.row("20261122_020011"); row["Outcome"] != "✓ Succeeded" || row["What"] != "node_exporter, prometheus, alertmanager" || row["Took"] != "63 s" {
		t.Errorf("%v", row)
	}
	if refresh := all(d.all("head")[0], "noscript"); len(refresh) != 0 {
		t.Error("a page asks to be made anew though nothing goes on")
	}
}

// Unknown is never shown as safe, and safe only where it is known.
func TestVulnerabilities(t *testing.T) {
	h := newHost(t)
	_, url := h.serve(h.options())
	fact := func(d *document) string {
		t.Helper()
		for _, n := range d.all("dt") {
			if text(n) == "Vulnerabilities" {
				return text(n.Parent)
			}
		}
		t.Fatal("no fact of vulnerabilities")
		return ""
	}
	d := get(t, url+"/")
	d.never("None known")
	if got := fact(d); got != "Vulnerabilities – Not known there is no data" {
		t.Error(got)
	}
	own := func(id string) vulnerability.Finding {
		return vulnerability.Finding{ID: id, Severity: vulnerability.SeverityHigh, Source: vulnerability.SourceComponent, FixedIn: "2.55.0", Summary: "a query can read files"}
	}
	many := []vulnerability.Finding{{ID: "GO-2026-1", Severity: vulnerability.SeverityUnknown, Source: vulnerability.SourceStdlib, Module: "stdlib", Version: "1.22.1"}}
	for i := range 7 {
		many = append(many, own(fmt.Sprintf("CVE-2026-%04d", i)))
	}
	h.assess(h.now.Add(-2*time.Hour), false, map[string][]vulnerability.Finding{"prometheus": {own("CVE-2026-0001")}, "alertmanager": many, "grafana": {}, "node_exporter": nil})
	d = get(t, url+"/")
	for name, want := range map[string]string{
		"prometheus": "✕ 1 known CVE-2026-0001 high, fixed in 2.55.0: a query can read files", "grafana": "✓ None known", "node_exporter": "✓ None known", "loki": "– Not known no database has records of it",
	} {
		if got := d.row(name)["Vulnerabilities"]; got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if got := d.row("alertmanager")["Vulnerabilities"]; !strings.HasPrefix(got, "✕ 8 known GO-2026-1 , in stdlib 1.22.1 ") || !strings.HasSuffix(got, "3 more: observability-upgrade vulnerabilities") {
		t.Error(got)
	}
	if got := fact(d); got != "Vulnerabilities ✕ 9 known of 1 component not known; data of 2 h ago" {
		t.Error(got)
	}
	none := map[string][]vulnerability.Finding{}
	for _, c := range h.o.Components {
		none[c.Name] = nil
	}
	h.assess(h.now.Add(-2*time.Hour), false, none)
	if got := fact(get(t, url+"/")); got != "Vulnerabilities ✓ None known data of 2 h ago" {
		t.Error(got)
	}
	h.assess(h.now.Add(-30*24*time.Hour), true, none)
	if got := fact(get(t, url+"/")); got != "Vulnerabilities ! None known the data is old: of 30 days ago" {
		t.Error(got)
	}
}

func TestEmptyHost(t *testing.T) {
	h := &host{t: t, now: time.Now()}
	h.root = newHost(t).root
	h.check(os.RemoveAll(string(h.root)))
	h.o = overview.Overview{Host: "new-1", Windows: overview.Windows{Open: true}, Problems: []string{"state file: permission denied"}}
	o := h.options()
	o.Conditions = nil
	_, url := h.serve(o)
	for _, p := range []string{"/", "/history", "/backups"} {
		d := get(t, url+p)
		sound(t, p, d)
		if d.code != http.StatusOK {
			t.Errorf("%s: %d %s", p, d.code, text(d.root))
		}
	}
	d := get(t, url+"/")
	d.says("No component is known", "observability-upgrade adopt", "there was no check yet", "There was none yet", "Nothing is on hold", "any time", "No backup point is known", "state file: permission denied")
	d.never("None known", "Healthy", "up to date")
}

func TestOverviewFails(t *testing.T) {
	h := newHost(t)
	_, url := h.serve(h.options())
	h.err = errors.New("/var/lib/observability: input/output error <b>")
	d := get(t, url+"/")
	if d.code != http.StatusServiceUnavailable {
		t.Errorf("%d", d.code)
	}
	d.says("input/output error <b>")
	sound(t, "/", d)
	if d := get(t, url+"/healthz"); d.code != http.StatusServiceUnavailable || !strings.Contains(d.body, "cannot be read") {
		t.Errorf("%d %s", d.code, d.body)
	}
	h.err = nil
	if d := get(t, url+"/healthz"); d.code != http.StatusOK {
		t.Errorf("%d %s", d.code, d.body)
	}
}

// Whatever names, versions, reasons and errors hold, it is text.
func TestHostileText(t *testing.T) {
	const evil = `"><script>alert(1)</script><img src=x onerror=alert(1)>'{{.}}` + "\u202e\x00"
	h := newHost(t)
	c := &h.o.Components[4]
	c.Name, c.Role, c.Version, c.Previous, c.CheckError = evil, evil, evil, evil, evil
	c.Candidate.Reason, c.Candidate.NotesURL = evil, "javascript:alert(1)"
	c.Vulnerability = &vulnerability.Result{Name: evil, State: vulnerability.Affected, Reason: evil, Vulnerabilities: []vulnerability.Finding{{ID: evil, FixedIn: evil, Summary: evil, Module: evil, Severity: evil}}}
	h.o.Broken = []string{evil}
	h.o.Host, h.o.Build, h.o.Problems = evil, evil, []string{evil}
	h.o.Holds = []plan.Hold{{Component: evil, Reason: evil}}
	h.o.Windows.List = []string{evil}
	h.o.Auto = overview.Auto{Enabled: true, Policy: evil, Schedule: evil}
	h.o.Backups = []overview.Backup{{Timestamp: evil, Path: evil, Complete: true, Components: map[string]string{evil: evil}}}
	h.o.Runs = []state.RunSummary{{ID: evil, Status: evil, Operation: evil, TriggeredBy: evil, ComponentsUpgraded: []string{evil}, Timestamp: h.now}}
	o := h.options()
	o.Conditions = func(context.Context, map[string]string) map[string]Condition {
		return map[string]Condition{evil: {Health: Unhealthy, Detail: evil}}
	}
	_, url := h.serve(o)
	r := h.begin()
	r.head.Components[0] = run.Planned{Name: evil, Instance: evil, From: evil, To: evil}
	r.head.ProgramBuild, r.head.Trigger, r.head.BackupPath, r.head.Operation = evil, evil, evil, run.Operation(evil)
	r.event(run.Event{Step: run.StepBegin, Begin: &r.head})
	r.event(run.Event{Component: evil, Instance: evil, Step: run.Step(evil), Detail: evil})
	r.event(run.Event{Component: evil, Instance: evil, Step: run.Step(evil), Done: true, Err: errors.New(evil)})
	// A begin after the first is that of a recovery; what it says is in a log of its
	// own.
	h.check(os.RemoveAll(filepath.Join(h.root.RunsDir(), r.id)))
	r.log.Close()
	r.event(run.Event{Step: run.StepBegin, Begin: &r.head, Plan: map[string]any{
		"checks": []map[string]string{{"name": evil, "component": evil, "status": evil, "detail": evil, "next": evil}}, "held": []map[string]string{{"component": evil, "reason": evil}}, "warnings": []string{evil},
	}})
	r.event(run.Event{Component: evil, Instance: evil, Step: run.Step(evil), Detail: evil})
	for _, p := range []string{"/", "/backups", "/history", "/history?component=" + strings.Repeat("%3Cscript%3E", 10), "/runs/" + r.id} {
		d := get(t, url+p)
		sound(t, p, d)
		if d.code != http.StatusOK {
			t.Errorf("%s: %d", p, d.code)
		}
		for _, n := range d.all("") {
			if n.Data == "img" || n.Data == "script" && !strings.HasPrefix(attr(n, "src"), "/assets/") {
				t.Errorf("%s: an element out of a text: <%s>", p, n.Data)
			}
			for _, a := range n.Attr {
				if a.Key == "onerror" || strings.Contains(strings.ToLower(a.Val), "javascript:") {
					t.Errorf("%s: <%s %s=%q>", p, n.Data, a.Key, a.Val)
				}
			}
		}
		if p == "/backups" && strings.Contains(text(d.root), "rollback --to=") {
			t.Error("people are led to type a text that is no name of a backup point")
		}
	}
}

func TestRunPage(t *testing.T) {
	h := newHost(t)
	_, url := h.serve(h.options())
	d := get(t, url+"/runs/"+pastID)
	if row := d.row("prometheus"); row["Versions"] != "2.52.0 → to 2.53.3" || row["State"] != "✓ Upgraded" || row["Took"] != "24 s" || row["Down"] != "3.1 s" {
		t.Errorf("%v", row)
	}
	course := d.section("Course")
	for _, want := range []string{"the run backup ✓ Done 8.1 s", "prometheus health ✓ Done 21 s replaying the log, 118 of 118; ready, reports 2.53.3", "prometheus swap ✓ Done 3 ms"} {
		if !strings.Contains(course, want) {
			t.Errorf("the course does not say %q: %s", want, course)
		}
	}
	for _, rect := range d.all("rect") {
		if attr(rect, "class") == "" {
			t.Error("a bar without a class")
		}
	}
	d.says("! Warning", "amtool check-config", "12.0.1 needs prometheus", "no reload address", "by the timer", "process 4711", "/var/backups/observability/"+pastID)

	d = get(t, url+"/runs/"+failedID)
	d.says("! Rolled back", "✕ Failed", `not ready within 30s: http://localhost:3100/ready answered 503 "Ingester not ready"`, "back at 2.9.8", "its unit was running", "ready: answered 503")
	d.never("PLANTED-LOG", "PLANTED-ANSWER", "metric")
}

// Evidence that is gone, or that may not be read, says so; that is no problem of
// the page.
func TestEvidence(t *testing.T) {
	h := newHost(t)
	_, url := h.serve(h.options())
	file := filepath.Join(h.root.RunsDir(), failedID, "evidence", "loki.json")
	h.check(os.WriteFile(file, []byte(`{`), 0o644))
	d := get(t, url+"/runs/"+failedID)
	if s := d.section("Evidence"); !strings.Contains(s, "it is no evidence") {
		t.Error(s)
	}
	if os.Geteuid() != 0 { // who may read everything is not turned away
		h.check(os.Chmod(filepath.Dir(file), 0))
		d := get(t, url+"/runs/"+failedID)
		h.check(os.Chmod(filepath.Dir(file), 0o755))
		if s := d.section("Evidence"); !strings.Contains(s, "permission denied") {
			t.Error(s)
		}
		d.never("What could not be read")
	}
	h.check(os.Remove(file))
	if s := get(t, url+"/runs/"+failedID).section("Evidence"); !strings.Contains(s, "It was removed.") {
		t.Error(s)
	}
}

// A rollback that failed is an alarm until the component is healthy again.
func TestBroken(t *testing.T) {
	h := newHost(t)
	h.o.Broken = []string{"loki", "grafana"}
	_, url := h.serve(h.options())
	d := get(t, url+"/")
	if s := d.section("A rollback failed"); !strings.Contains(s, "loki , grafana") || !strings.Contains(s, "observability-upgrade status") {
		t.Error(s)
	}
	sound(t, "/", d)
}

func TestRunAtWorkAndCutOff(t *testing.T) {
	h := newHost(t)
	_, url := h.serve(h.options())
	r := h.begin()
	r.step("node_exporter", run.StepPlace, "")
	r.step("node_exporter", run.StepHealth, "ready")
	r.step("prometheus", run.StepPlace, "")
	r.event(run.Event{Component: "prometheus", Step: run.StepStop})
	for _, p := range []string{"/", "/runs/" + r.id} {
		d := get(t, url+p)
		if refresh := all(d.all("head")[0], "noscript"); len(refresh) != 1 || !strings.Contains(text(refresh[0])+d.body, `<noscript><meta http-equiv="refresh" content="5"></noscript>`) {
			t.Errorf("%s: without a script it does not go on", p)
		}
		for name, want := range map[string]string{"node_exporter": "✓ Upgraded", "prometheus": "▸ At work", "grafana": "– Waiting"} {
			if got := d.row(name)["State"]; got != want {
				t.Errorf("%s: %s: %q, want %q", p, name, got, want)
			}
		}
		d.says("2 of 3: prometheus", "▸ At work")
		if n := d.id("now"); attr(n, "data-phase") != "running" || attr(n, "data-run") != r.id {
			t.Errorf("%v", n.Attr)
		}
	}
	r.kill()
	d := get(t, url+"/")
	alarm := d.section("was cut off")
	for _, want := range []string{"observability-upgrade recover", "✕ Cut off", "– Waiting"} {
		if !strings.Contains(alarm, want) {
			t.Errorf("the alarm does not say %q: %s", want, alarm)
		}
	}
	d.says("A run must be recovered")
	get(t, url+"/runs/"+r.id).says("This run was cut off", "observability-upgrade recover", "✕ Cut off")

	// A command that has not begun a run yet.
	h2 := newHost(t)
	_, url = h2.serve(h2.options())
	r2 := h2.begin()
	h2.check(os.Remove(r2.journal()))
	h2.check(os.RemoveAll(filepath.Join(h2.root.RunsDir(), r2.id)))
	get(t, url+"/").says("A command is at work", fmt.Sprintf("Process %d", os.Getpid()))
}

// Of several changes of one component, and of its instances, each has its state.
func TestStatesOfARun(t *testing.T) {
	h := newHost(t)
	r := h.begin()
	r.log.Close()
	h.check(os.RemoveAll(filepath.Join(h.root.RunsDir(), r.id)))
	r.head.Components = []run.Planned{
		{Name: "prometheus", From: "2.42.0", To: "2.53.3"}, {Name: "prometheus", From: "2.53.3", To: "3.5.0"}, {Name: "prometheus", From: "3.5.0", To: "3.6.0"}, {Name: "loki", Instance: "a"}, {Name: "loki", Instance: "b"},
	}
	r.event(run.Event{Step: run.StepBegin, Begin: &r.head})
	r.step("prometheus", run.StepPlace, "")
	r.step("prometheus", run.StepHealth, "")
	r.step("prometheus", run.StepPlace, "")
	r.event(run.Event{Component: "prometheus", Step: run.StepHealth})
	_, url := h.serve(h.options())
	states := func() string {
		t.Helper()
		var out []string
		d := get(t, url+"/runs/"+r.id)
		for _, tr := range all(d.all("tbody")[0], "tr") {
			out = append(out, text(all(tr, "td")[1]))
		}
		return strings.Join(out, ", ")
	}
	if got := states(); got != "✓ Upgraded, ▸ At work, – Waiting, – Waiting, – Waiting" {
		t.Error(got)
	}
	r.event(run.Event{Component: "prometheus", Step: run.StepHealth, Done: true, Err: errors.New("not ready")})
	r.event(run.Event{Component: "prometheus", Step: run.StepUndo})
	r.event(run.Event{Component: "prometheus", Step: run.StepUndo, Done: true})
	r.event(run.Event{Component: "loki", Instance: "a", Step: run.StepDrain})
	if got := states(); got != "✓ Upgraded, ! Rolled back not ready, – Waiting, ▸ At work, – Waiting" {
		t.Error(got)
	}
	// A recovery goes on with the run; what the kill cut off stays cut off.
	r.event(run.Event{Step: run.StepBegin, Begin: &r.head})
	r.event(run.Event{Component: "loki", Instance: "a", Step: run.StepUndo, Detail: "back"})
	d := get(t, url+"/runs/"+r.id)
	d.says("Its recovery began", "drain ✕ Cut off", "rollback ▸ At work")
}

func TestHeadlines(t *testing.T) {
	well := func(context.Context, map[string]string) map[string]Condition {
		out := map[string]Condition{}
		for _, n := range []string{"alertmanager", "grafana", "loki", "node_exporter", "prometheus"} {
			out[n] = Condition{Health: Healthy}
		}
		return out
	}
	for name, c := range map[string]struct {
		change func(h *host, o *Options)
		want   string
	}{
		"unhealthy":  {func(*host, *Options) {}, "1 of 5 unhealthy"},
		"upgrades":   {func(_ *host, o *Options) { o.Conditions = well }, "Healthy; upgrades are available"},
		"unknown":    {func(_ *host, o *Options) { o.Conditions = nil }, "Whether all is well is not known"},
		"problem":    {func(h *host, o *Options) { o.Conditions, h.o.Problems = well, []string{"x"} }, "Something could not be read"},
		"broken":     {func(h *host, o *Options) { o.Conditions, h.o.Broken = well, []string{"loki"} }, "A rollback failed"},
		"failed run": {func(h *host, o *Options) { o.Conditions, h.o.Runs[0].Status = well, "rollback_failed" }, "The last run failed"},
		"no check": {func(h *host, o *Options) {
			o.Conditions, h.o.Check = well, nil
		}, "Healthy; what is available is not known"},
		"held": {func(h *host, o *Options) {
			o.Conditions = well
			h.o.Components[4].Candidate.Action = plan.ActionHold
		}, "Healthy; upgrades are held back"},
		"rolled back since": {func(h *host, o *Options) {
			o.Conditions = well
			for i := range h.o.Components {
				c := &h.o.Components[i]
				c.Candidate = candidate(c.Name, c.Version, "9.0.0", plan.ActionSkip, overview.Unchecked, 1)
			}
		}, "Healthy; what is available is not known"},
		"all well": {func(h *host, o *Options) {
			o.Conditions = well
			for i := range h.o.Components {
				c := &h.o.Components[i]
				c.Candidate = candidate(c.Name, c.Version, c.Version, plan.ActionSkip, "up to date", 0)
			}
		}, "Healthy and up to date"},
		"vulnerable": {func(h *host, o *Options) {
			o.Conditions = well
			h.assess(h.now, false, map[string][]vulnerability.Finding{"loki": {{ID: "X"}}})
		}, "Vulnerable versions are installed"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			o := h.options()
			c.change(h, &o)
			_, url := h.serve(o)
			d := get(t, url+"/")
			var found *html.Node
			for _, n := range d.all("p") {
				if attr(n, "class") == "headline" {
					found = n
				}
			}
			if found == nil || !strings.Contains(text(found), c.want) {
				t.Errorf("%s, want %s", text(found), c.want)
			}
		})
	}
}
