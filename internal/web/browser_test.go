package web

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp/kb"

	"github.com/observability-upgrade/observability-upgrade/internal/browsertest"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/vulnerability"
)

// stay marks the page, so that a reload of it would be found out.
const stay = "window.stayed = true"

// A run begins, goes on, fails in a step, ends: all of it is seen on a page that
// was opened before and is not loaded again.
func TestBrowserLiveRun(t *testing.T) {
	b := browsertest.New(t)
	h := newHost(t)
	_, url := h.serve(h.options())
	tb := b.Tab(t, browsertest.Look{})
	tb.Open(url + "/")
	tb.Until("the stream is open", `document.getElementById("link").textContent === "It updates itself."`)
	browsertest.Eval[bool](tb, stay)

	r := h.begin()
	tb.Until("the run is shown", `document.getElementById("running")`)
	r.event(run.Event{Step: run.StepBackup, Detail: r.head.BackupPath})
	const row = `document.querySelector('#steps tr[data-step="%d"]')?.innerText.replaceAll("\n", " ").replaceAll("\t", " ")`
	sees := func(what string, index int, words ...string) {
		t.Helper()
		for _, w := range words {
			tb.Until(what+": "+w, fmt.Sprintf(row+`.includes(%q)`, index, w))
		}
	}
	sees("the first step", 0, "the run", "backup", "At work")
	tb.Until("it is told", `document.getElementById("say").textContent.includes("the run: backup, At work")`)
	before := browsertest.Eval[string](tb, `document.querySelector('#steps tr[data-step="0"] [data-is="took"]').textContent`)
	tb.Until("its clock goes on", fmt.Sprintf(`document.querySelector('#steps tr[data-step="0"] [data-is="took"]').textContent !== %q`, before))
	r.event(run.Event{Step: run.StepBackup, Done: true, Detail: r.head.BackupPath})
	sees("the first step", 0, "Done", r.head.BackupPath)
	r.step("node_exporter", run.StepPlace, "")
	r.step("node_exporter", run.StepHealth, "ready, reports 1.9.2")
	sees("a step", 2, "Done", "health", "ready, reports 1.9.2")
	r.event(run.Event{Component: "prometheus", Step: run.StepHealth})
	r.event(run.Event{Component: "prometheus", Step: run.StepHealth, Detail: "replaying 3 of 118"})
	sees("a step that goes on", 3, "prometheus", "At work", "replaying 3 of 118")
	tb.Until("how far it is", `document.getElementById("progress-text").textContent === "2 of 3: prometheus"`)
	tb.Until("the component is at work", `[...document.querySelectorAll("#now tr")].some((r) => r.innerText.includes("prometheus") && r.innerText.includes("At work"))`)
	tb.Shoot("live")
	r.event(run.Event{Component: "prometheus", Step: run.StepHealth, Done: true, Err: errors.New("it answered <b>503</b>")})
	sees("a step that failed", 3, "Failed", "it answered <b>503</b>")

	// The page of the run itself, opened in the middle of it.
	own := b.Tab(t, browsertest.Look{})
	own.Open(url + "/runs/" + r.id)
	browsertest.Eval[bool](own, stay)
	r.step("prometheus", run.StepUndo, "back at 2.53.3")
	own.Until("a step on the run's page", `document.querySelector('#steps tr[data-step="4"]')?.innerText.includes("back at 2.53.3")`)

	r.end()
	for _, one := range []*browsertest.Tab{tb, own} {
		one.Until("the end", `!document.querySelector(".busy") && document.getElementById("now").dataset.phase !== "running"`)
		if !browsertest.Eval[bool](one, "window.stayed === true") {
			t.Error("the page was loaded again")
		}
		one.Clean()
	}
	tb.Until("the new version", `document.querySelector(".stack").innerText.includes("2.55.1") && /before:\s2\.53\.3/.test(document.body.innerText)`)
	own.Until("the outcome", `document.body.innerText.includes("Succeeded")`)
}

// A run that is killed turns into an alarm by itself; a service that ends is told.
func TestBrowserAlarm(t *testing.T) {
	b := browsertest.New(t)
	h := newHost(t)
	handler, url := h.serve(h.options())
	tb := b.Tab(t, browsertest.Look{})
	r := h.begin()
	r.event(run.Event{Component: "prometheus", Step: run.StepStop})
	tb.Open(url + "/")
	tb.Until("the run is shown", `document.getElementById("running")`)
	browsertest.Eval[bool](tb, stay)
	browsertest.Eval[bool](tb, `document.querySelector("#running a").focus() || true`)
	r.kill()
	tb.Until("the alarm", `document.querySelector(".alarm")?.innerText.includes("observability-upgrade recover")`)
	if !browsertest.Eval[bool](tb, "window.stayed === true") {
		t.Error("the page was loaded again")
	}
	if focused := browsertest.Eval[string](tb, `document.activeElement.getAttribute("href")`); focused != "/runs/"+r.id {
		t.Errorf("the focus went from the link to the run to %q", focused)
	}
	tb.Clean()
	handler.Close()
	tb.Until("the lost connection is told", `document.getElementById("link").textContent.includes("lost")`)
}

func TestBrowserKeyboard(t *testing.T) {
	b := browsertest.New(t)
	h := newHost(t)
	_, url := h.serve(h.options())
	for _, page := range pages {
		tb := b.Tab(t, browsertest.Look{})
		tb.Open(url + page)
		const focusable = `[...document.querySelectorAll('a[href], button, select, summary, [tabindex="0"]')].filter((e) => e.checkVisibility())`
		all := browsertest.Eval[int](tb, focusable+".length")
		browsertest.Eval[bool](tb, `window.order = `+focusable+`; true`)
		var reached []int
		for range all {
			tb.Press(kb.Tab)
			at := browsertest.Eval[int](tb, `window.order.indexOf(document.activeElement)`)
			reached = append(reached, at)
			if !browsertest.Eval[bool](tb, `(() => { const s = getComputedStyle(document.activeElement); return s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 2; })()`) {
				t.Errorf("%s: the focus on element %d cannot be seen", page, at)
			}
		}
		if want := all; len(reached) != want || !slices.IsSorted(reached) || slices.Contains(reached, -1) || len(slices.Compact(reached)) != want {
			t.Errorf("%s: of %d the Tab key reaches %v", page, want, reached)
		}
		tb.Open(url + page)
		tb.Press(kb.Tab)
		if got := browsertest.Eval[string](tb, "document.activeElement.textContent"); got != "Skip to the content" {
			t.Errorf("%s: the first stop is %q", page, got)
		}
		if top := browsertest.Eval[float64](tb, "document.activeElement.getBoundingClientRect().top"); top < 0 {
			t.Errorf("%s: the link that skips is not seen, at %v", page, top)
		}
		tb.Press(kb.Enter)
		tb.Press(kb.Tab)
		if !browsertest.Eval[bool](tb, `document.getElementById("main").contains(document.activeElement) || !document.querySelector("main a, main [tabindex]")`) {
			t.Errorf("%s: the link does not skip to the content", page)
		}
		tb.Clean()
		tb.Close()
	}
}

// Without scripts the pages say the same, and one of a run at work comes anew by
// itself.
func TestBrowserWithoutScript(t *testing.T) {
	b := browsertest.New(t)
	h := newHost(t)
	_, url := h.serve(h.options())
	r := h.begin()
	r.step("node_exporter", run.StepPlace, "")
	tb := b.Tab(t, browsertest.Look{NoScript: true})
	tb.Open(url + "/")
	if got := tb.Text("#now"); !strings.Contains(got, "node_exporter place ✓Done") {
		t.Errorf("%s", got)
	}
	if got := tb.Text("#link"); got != "It is asked for again every 5 s." {
		t.Errorf("%s", got)
	}
	r.step("node_exporter", run.StepStop, "ended by itself")
	deadline := time.Now().Add(20 * time.Second)
	for !strings.Contains(tb.Text("#now"), "ended by itself") {
		if time.Now().After(deadline) {
			t.Fatal("the page does not come anew")
		}
		time.Sleep(100 * time.Millisecond)
	}
	tb.Open(url + "/history?component=loki")
	if got := tb.Text("main"); !strings.Contains(got, "Ingester not ready") {
		t.Errorf("%s", got)
	}
	tb.Clean()
}

// No page is wider than a phone, whatever it shows.
func TestBrowserPhone(t *testing.T) {
	b := browsertest.New(t)
	h := newHost(t)
	long := strings.Repeat("verylongname_", 30)
	for _, worst := range []bool{false, true} {
		if worst {
			c := &h.o.Components[0]
			c.Name, c.Version, c.Previous, c.Role = long, long, long, "exporter"
			c.Candidate.Reason, h.o.Problems, h.o.Host = long, []string{long}, long
			h.o.Holds[0].Component, h.o.Holds[0].Reason, h.o.Windows.List, h.o.Auto.Schedule = long, long, []string{long}, long
			h.o.Backups[0].Path = long
			h.o.Runs[0].Status, h.o.Runs[0].ComponentsUpgraded = long, []string{long}
		}
		r := h.begin()
		if worst {
			r.event(run.Event{Component: long, Step: run.Step(long), Detail: long})
		}
		_, url := h.serve(h.options())
		for _, page := range append(slices.Clone(pages), "/runs/"+r.id, "/history?component="+long[:200]) {
			tb := b.Tab(t, browsertest.Look{Width: 360, Height: 740})
			tb.Open(url + page)
			if w := browsertest.Eval[int](tb, "document.documentElement.scrollWidth"); w > 360 {
				who := browsertest.Eval[string](tb, `[...document.querySelectorAll("body *")].filter((e) => e.getBoundingClientRect().right > 361 && !e.closest(".scroll")).map((e) => e.tagName + "." + e.className).slice(0, 5).join(" ")`)
				t.Errorf("%s, at its worst %v: %d wide: %s", page, worst, w, who)
			}
			tb.Clean()
			tb.Close()
		}
		r.kill()
		h.check(os.RemoveAll(h.root.JournalDir()))
	}
}

// axe-core, by Deque, finds nothing to say against any page, in both schemes, wide
// and narrow.
func TestBrowserAccessible(t *testing.T) {
	b := browsertest.New(t)
	axe := fetchAxe(t)
	h := newHost(t)
	h.assess(h.now.Add(-20*time.Hour), false, map[string][]vulnerability.Finding{
		"grafana": {{ID: "CVE-2026-0001", Severity: vulnerability.SeverityCritical, Source: vulnerability.SourceComponent, FixedIn: "12.0.1", Summary: "a viewer can become an editor"}}, "loki": nil,
	})
	o := h.options()
	_, url := h.serve(o)
	check := func(name string, l browsertest.Look, address string) {
		t.Helper()
		l.Still = true
		tb := b.Tab(t, l)
		defer tb.Close()
		tb.Open(address)
		browsertest.Eval[bool](tb, axe+"; true")
		var found []struct {
			ID, Help string
			Nodes    []struct {
				HTML           string
				FailureSummary string
			}
		}
		raw := browsertest.Eval[string](tb, `axe.run(document, {resultTypes: ["violations"]}).then((r) => JSON.stringify(r.violations))`)
		if err := json.Unmarshal([]byte(raw), &found); err != nil {
			t.Fatal(err)
		}
		for _, v := range found {
			for _, n := range v.Nodes {
				t.Errorf("%s: %s: %s\n%s\n%s", name, v.ID, v.Help, n.HTML, n.FailureSummary)
			}
		}
		tb.Shoot(name)
	}
	each := func(name, path string) {
		looks := []browsertest.Look{{Width: 1280, Height: 900}, {Width: 1280, Height: 900, Dark: true}}
		if name == "home" || name == "history" || name == "running" {
			looks = append(looks, browsertest.Look{Width: 360, Height: 740})
		}
		for _, l := range looks {
			scheme := "light"
			if l.Dark {
				scheme = "dark"
			}
			check(fmt.Sprintf("%s-%d-%s", name, l.Width, scheme), l, url+path)
		}
	}
	for name, path := range map[string]string{"home": "/", "history": "/history", "backups": "/backups", "run": "/runs/" + pastID, "failed": "/runs/" + failedID, "lost": "/lost"} {
		each(name, path)
	}
	began := time.Now().Add(-19 * time.Second)
	r := h.beginAt(began)
	at := func(ms int) time.Time { return began.Add(time.Duration(ms) * time.Millisecond) }
	r.event(run.Event{Time: at(40), Step: run.StepBackup})
	r.event(run.Event{Time: at(6300), Step: run.StepBackup, Done: true, Detail: r.head.BackupPath})
	first, _ := steps(at(6350), "node_exporter", map[run.Step]int{run.StepPlace: 280, run.StepStop: 110, run.StepSwap: 2, run.StepStart: 80, run.StepHealth: 5200}, map[run.Step]string{run.StepStop: "ended by itself", run.StepHealth: "ready, reports 1.9.2"})
	second, _ := steps(at(12100), "prometheus", map[run.Step]int{run.StepPlace: 330, run.StepFingerprint: 610, run.StepStop: 1900, run.StepSwap: 3, run.StepStart: 90}, map[run.Step]string{run.StepFingerprint: "6 answers to compare afterwards", run.StepStop: "ended by itself"})
	for _, ev := range append(first, second...) {
		r.event(ev)
	}
	r.event(run.Event{Time: at(15100), Component: "prometheus", Step: run.StepHealth, Detail: "replaying the log, 41 of 118"})
	each("running", "/")
	each("running-run", "/runs/"+r.id)
	r.kill()
	each("cut", "/")
}

// fetchAxe takes axe-core out of its npm package.
func fetchAxe(t *testing.T) string {
	t.Helper()
	npm, err := exec.LookPath("npm")
	if err != nil {
		t.Skip("axe-core comes with npm, which is not here")
	}
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, npm, "pack", "axe-core@4", "--prefer-offline", "--silent", "--pack-destination", dir)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("axe-core cannot be fetched: %v: %s", err, out)
	}
	found, err := filepath.Glob(filepath.Join(dir, "axe-core-*.tgz"))
	if err != nil || len(found) != 1 {
		t.Fatalf("npm made %v, %v", found, err)
	}
	f, err := os.Open(found[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for tr := tar.NewReader(z); ; {
		head, err := tr.Next()
		if err != nil {
			t.Fatalf("axe.min.js is not in %s: %v", found[0], err)
		}
		if head.Name == "package/axe.min.js" {
			text, err := io.ReadAll(tr)
			if err != nil {
				t.Fatal(err)
			}
			return string(text)
		}
	}
}
