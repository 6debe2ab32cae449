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

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/vulnerability"
)

// stay marks the page, so that a reload of it would be found out.
const stay = "window.stayed = true"

// A run begins, goes on, fails in a step, ends: all of it is seen on a page that
// was opened before and is not loaded again.
func TestBrowserLiveRun(t *testing.T) {
	b := newBrowser(t)
	h := newHost(t)
	_, url := h.serve(h.options())
	tb := b.tab(t, look{})
	tb.open(url + "/")
	tb.until("the stream is open", `document.getElementById("link").textContent === "It updates itself."`)
	eval[bool](tb, stay)

	r := h.begin()
	tb.until("the run is shown", `document.getElementById("running")`)
	r.event(run.Event{Step: run.StepBackup, Detail: r.head.BackupPath})
	const row = `document.querySelector('#steps tr[data-step="%d"]')?.innerText.replaceAll("\n", " ").replaceAll("\t", " ")`
	sees := func(what string, index int, words ...string) {
		t.Helper()
		for _, w := range words {
			tb.until(what+": "+w, fmt.Sprintf(row+`.includes(%q)`, index, w))
		}
	}
	sees("the first step", 0, "the run", "backup", "At work")
	tb.until("it is told", `document.getElementById("say").textContent.includes("the run: backup, At work")`)
	before := eval[string](tb, `document.querySelector('#steps tr[data-step="0"] [data-is="took"]').textContent`)
	tb.until("its clock goes on", fmt.Sprintf(`document.querySelector('#steps tr[data-step="0"] [data-is="took"]').textContent !== %q`, before))
	r.event(run.Event{Step: run.StepBackup, Done: true, Detail: r.head.BackupPath})
	sees("the first step", 0, "Done", r.head.BackupPath)
	r.step("node_exporter", run.StepPlace, "")
	r.step("node_exporter", run.StepHealth, "ready, reports 1.9.2")
	sees("a step", 2, "Done", "health", "ready, reports 1.9.2")
	r.event(run.Event{Component: "prometheus", Step: run.StepHealth})
	r.event(run.Event{Component: "prometheus", Step: run.StepHealth, Detail: "replaying 3 of 118"})
	sees("a step that goes on", 3, "prometheus", "At work", "replaying 3 of 118")
	tb.until("how far it is", `document.getElementById("progress-text").textContent === "2 of 3: prometheus"`)
	tb.until("the component is at work", `[...document.querySelectorAll("#now tr")].some((r) => r.innerText.includes("prometheus") && r.innerText.includes("At work"))`)
	tb.shoot("live")
	r.event(run.Event{Component: "prometheus", Step: run.StepHealth, Done: true, Err: errors.New("it answered <b>503</b>")})
	sees("a step that failed", 3, "Failed", "it answered <b>503</b>")

	// The page of the run itself, opened in the middle of it.
	own := b.tab(t, look{})
	own.open(url + "/runs/" + r.id)
	eval[bool](own, stay)
	r.step("prometheus", run.StepUndo, "back at 2.53.3")
	own.until("a step on the run's page", `document.querySelector('#steps tr[data-step="4"]')?.innerText.includes("back at 2.53.3")`)

	r.end()
	for _, one := range []*tab{tb, own} {
		one.until("the end", `!document.querySelector(".busy") && document.getElementById("now").dataset.phase !== "running"`)
		if !eval[bool](one, "window.stayed === true") {
			t.Error("the page was loaded again")
		}
		one.clean()
	}
	tb.until("the new version", `document.querySelector(".stack").innerText.includes("2.55.1") && /before:\s2\.53\.3/.test(document.body.innerText)`)
	own.until("the outcome", `document.body.innerText.includes("Succeeded")`)
}

// A run that is killed turns into an alarm by itself; a service that ends is told.
func TestBrowserAlarm(t *testing.T) {
	b := newBrowser(t)
	h := newHost(t)
	handler, url := h.serve(h.options())
	tb := b.tab(t, look{})
	r := h.begin()
	r.event(run.Event{Component: "prometheus", Step: run.StepStop})
	tb.open(url + "/")
	tb.until("the run is shown", `document.getElementById("running")`)
	eval[bool](tb, stay)
	eval[bool](tb, `document.querySelector("#running a").focus() || true`)
	r.kill()
	tb.until("the alarm", `document.querySelector(".alarm")?.innerText.includes("observability-upgrade recover")`)
	if !eval[bool](tb, "window.stayed === true") {
		t.Error("the page was loaded again")
	}
	if focused := eval[string](tb, `document.activeElement.getAttribute("href")`); focused != "/runs/"+r.id {
		t.Errorf("the focus went from the link to the run to %q", focused)
	}
	tb.clean()
	handler.Close()
	tb.until("the lost connection is told", `document.getElementById("link").textContent.includes("lost")`)
}

func TestBrowserKeyboard(t *testing.T) {
	b := newBrowser(t)
	h := newHost(t)
	_, url := h.serve(h.options())
	for _, page := range pages {
		tb := b.tab(t, look{})
		tb.open(url + page)
		const focusable = `[...document.querySelectorAll('a[href], button, select, summary, [tabindex="0"]')].filter((e) => e.checkVisibility())`
		all := eval[int](tb, focusable+".length")
		eval[bool](tb, `window.order = `+focusable+`; true`)
		var reached []int
		for range all {
			tb.do(chromedp.KeyEvent(kb.Tab))
			at := eval[int](tb, `window.order.indexOf(document.activeElement)`)
			reached = append(reached, at)
			if !eval[bool](tb, `(() => { const s = getComputedStyle(document.activeElement); return s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 2; })()`) {
				t.Errorf("%s: the focus on element %d cannot be seen", page, at)
			}
		}
		if want := all; len(reached) != want || !slices.IsSorted(reached) || slices.Contains(reached, -1) || len(slices.Compact(reached)) != want {
			t.Errorf("%s: of %d the Tab key reaches %v", page, want, reached)
		}
		tb.open(url + page)
		tb.do(chromedp.KeyEvent(kb.Tab))
		if got := eval[string](tb, "document.activeElement.textContent"); got != "Skip to the content" {
			t.Errorf("%s: the first stop is %q", page, got)
		}
		if top := eval[float64](tb, "document.activeElement.getBoundingClientRect().top"); top < 0 {
			t.Errorf("%s: the link that skips is not seen, at %v", page, top)
		}
		tb.do(chromedp.KeyEvent(kb.Enter))
		tb.do(chromedp.KeyEvent(kb.Tab))
		if !eval[bool](tb, `document.getElementById("main").contains(document.activeElement) || !document.querySelector("main a, main [tabindex]")`) {
			t.Errorf("%s: the link does not skip to the content", page)
		}
		tb.clean()
		tb.close()
	}
}

// Without scripts the pages say the same, and one of a run at work comes anew by
// itself.
func TestBrowserWithoutScript(t *testing.T) {
	b := newBrowser(t)
	h := newHost(t)
	_, url := h.serve(h.options())
	r := h.begin()
	r.step("node_exporter", run.StepPlace, "")
	tb := b.tab(t, look{noScript: true})
	read := func(sel string) string {
		t.Helper()
		got, err := chromedp.Run(tb.ctx, chromedp.TextContent(chromedp.CSS(sel)))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(strings.Fields(got), " ")
	}
	tb.open(url + "/")
	if got := read("#now"); !strings.Contains(got, "node_exporter place ✓Done") {
		t.Errorf("%s", got)
	}
	if got := read("#link"); got != "It is asked for again every 5 s." {
		t.Errorf("%s", got)
	}
	r.step("node_exporter", run.StepStop, "ended by itself")
	deadline := time.Now().Add(20 * time.Second)
	for !strings.Contains(read("#now"), "ended by itself") {
		if time.Now().After(deadline) {
			t.Fatal("the page does not come anew")
		}
		select {
		case <-tb.ctx.Done():
			t.Fatal(tb.ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
	tb.open(url + "/history?component=loki")
	if got := read("main"); !strings.Contains(got, "Ingester not ready") {
		t.Errorf("%s", got)
	}
	tb.clean()
}

// No page is wider than a phone, whatever it shows.
func TestBrowserPhone(t *testing.T) {
	b := newBrowser(t)
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
			tb := b.tab(t, look{width: 360, height: 740})
			tb.open(url + page)
			if w := eval[int](tb, "document.documentElement.scrollWidth"); w > 360 {
				who := eval[string](tb, `[...document.querySelectorAll("body *")].filter((e) => e.getBoundingClientRect().right > 361 && !e.closest(".scroll")).map((e) => e.tagName + "." + e.className).slice(0, 5).join(" ")`)
				t.Errorf("%s, at its worst %v: %d wide: %s", page, worst, w, who)
			}
			tb.clean()
			tb.close()
		}
		r.kill()
		h.check(os.RemoveAll(h.root.JournalDir()))
	}
}

// axe-core, by Deque, finds nothing to say against any page, in both schemes, wide
// and narrow.
func TestBrowserAccessible(t *testing.T) {
	b := newBrowser(t)
	axe := fetchAxe(t)
	h := newHost(t)
	h.assess(h.now.Add(-20*time.Hour), false, map[string][]vulnerability.Finding{
		"grafana": {{ID: "CVE-2026-0001", Severity: vulnerability.SeverityCritical, Source: vulnerability.SourceComponent, FixedIn: "12.0.1", Summary: "a viewer can become an editor"}}, "loki": nil,
	})
	o := h.options()
	_, url := h.serve(o)
	check := func(name string, l look, address string) {
		t.Helper()
		l.still = true
		tb := b.tab(t, l)
		defer tb.close()
		tb.open(address)
		eval[bool](tb, axe+"; true")
		var found []struct {
			ID, Help string
			Nodes    []struct {
				HTML           string
				FailureSummary string
			}
		}
		raw := eval[string](tb, `axe.run(document, {resultTypes: ["violations"]}).then((r) => JSON.stringify(r.violations))`)
		if err := json.Unmarshal([]byte(raw), &found); err != nil {
			t.Fatal(err)
		}
		for _, v := range found {
			for _, n := range v.Nodes {
				t.Errorf("%s: %s: %s\n%s\n%s", name, v.ID, v.Help, n.HTML, n.FailureSummary)
			}
		}
		tb.shoot(name)
	}
	each := func(name, path string) {
		looks := []look{{width: 1280, height: 900}, {width: 1280, height: 900, dark: true}}
		if name == "home" || name == "history" || name == "running" {
			looks = append(looks, look{width: 360, height: 740})
		}
		for _, l := range looks {
			scheme := "light"
			if l.dark {
				scheme = "dark"
			}
			check(fmt.Sprintf("%s-%d-%s", name, l.width, scheme), l, url+path)
		}
	}
	for name, path := range map[string]string{"home": "/", "history": "/history", "backups": "/backups", "run": "/runs/" + pastID, "failed": "/runs/" + failedID, "lost": "/lost"} {
		each(name, path)
	}
	r := h.begin()
	r.step("", run.StepBackup, r.head.BackupPath)
	r.step("node_exporter", run.StepPlace, "")
	r.step("node_exporter", run.StepHealth, "ready, reports 1.9.2")
	r.event(run.Event{Component: "prometheus", Step: run.StepStop})
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
