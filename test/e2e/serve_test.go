package e2e

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/browsertest"
)

const (
	unitFiles = "../../packaging/systemd"
	page      = "http://127.0.0.1:9099"
)

// units puts the units of the package in place.
func (h *host) units(names ...string) {
	h.t.Helper()
	for _, n := range names {
		h.check(h.CopyIn(filepath.Join(unitFiles, n), "/etc/systemd/system/"+n, 0o644))
	}
	h.MustRun(h.ctx, "systemctl", "daemon-reload")
}

// shows waits until a page says something.
func (h *host) shows(path string, words ...string) string {
	h.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		status, body, err := h.Get(h.ctx, page+path)
		h.check(err)
		missing := ""
		for _, w := range words {
			if !strings.Contains(string(body), w) {
				missing = w
			}
		}
		if status == http.StatusOK && missing == "" {
			return string(body)
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("%s answers %d and does not say %q\n%s\n%s", path, status, missing, body, h.MustRun(h.ctx, "journalctl", "-u", "observability-upgrade-serve", "--no-pager"))
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// property is one of the page's service.
func (h *host) property(name string) string {
	h.t.Helper()
	return strings.TrimSpace(h.MustRun(h.ctx, "systemctl", "show", "-P", name, "observability-upgrade-serve.service"))
}

// proc is a field of the service's /proc/PID/status.
func (h *host) proc(field string) string {
	h.t.Helper()
	m := regexp.MustCompile(`(?m)^` + field + `:\s+(.*)$`).FindStringSubmatch(h.MustRun(h.ctx, "cat", "/proc/"+h.property("MainPID")+"/status"))
	if m == nil {
		h.t.Fatalf("there is no %s", field)
	}
	return m[1]
}

type liveEvent struct{ Phase, Run, Set, Label, State string }

// listen follows the page's events until the test ends.
func (h *host) listen() <-chan liveEvent {
	h.t.Helper()
	req, err := http.NewRequestWithContext(h.ctx, http.MethodGet, page+"/events", nil)
	h.check(err)
	client := h.HTTP()
	client.Timeout = 0 // a stream has no end
	res, err := client.Do(req)
	h.check(err)
	events := make(chan liveEvent, 1000)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(events)
		for sc := bufio.NewScanner(res.Body); sc.Scan(); {
			var e liveEvent
			if data, ok := strings.CutPrefix(sc.Text(), "data: "); ok && json.Unmarshal([]byte(data), &e) == nil {
				events <- e
			}
		}
	}()
	h.t.Cleanup(func() { res.Body.Close(); <-done })
	return events
}

// forward lets a program of this machine reach a port of the container, and returns
// where.
func (h *host) forward(to string) string {
	h.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	h.check(err)
	var all sync.WaitGroup
	pipe := func(a net.Conn) {
		defer a.Close()
		b, err := h.Dial(h.ctx, "tcp", to)
		if err != nil {
			return
		}
		defer b.Close()
		ended := make(chan struct{}, 2)
		for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
			all.Go(func() { _, _ = io.Copy(way[0], way[1]); ended <- struct{}{} })
		}
		<-ended
	}
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { pipe(c) })
		}
	})
	h.t.Cleanup(func() { l.Close(); all.Wait() })
	return l.Addr().String()
}

// watch opens the page in a browser; what it returns checks that the browser saw a
// run from its begin to its end, on a page that was not loaded again.
func (h *host) watch() func(id string) {
	h.t.Helper()
	if browsertest.Find() == "" {
		h.t.Log("there is no Chromium here to look with; as root: apt-get install chromium")
		return func(string) {}
	}
	address := "http://" + h.forward("127.0.0.1:9099") + "/"
	tab := browsertest.New(h.t).Tab(h.t, browsertest.Look{})
	tab.Open(address)
	tab.Until("the stream is open", `document.getElementById("link").textContent === "It updates itself."`)
	// Whatever becomes of the table, each step that was in it is kept.
	browsertest.Eval[bool](tab, `(() => {
		window.steps = {};
		const look = () => {
			for (const r of document.querySelectorAll("#steps tr")) window.steps[r.querySelector('[data-is="set"]').textContent + " " + r.querySelector('[data-is="label"]').textContent + " " + r.querySelector('[data-is="state"]').textContent] = true;
		};
		new MutationObserver(look).observe(document.body, {subtree: true, childList: true, characterData: true, attributes: true});
		return true;
	})()`)
	return func(id string) {
		h.t.Helper()
		tab.Until("the end", `document.getElementById("now").dataset.phase === "idle" && document.body.innerText.includes("`+id+`")`)
		for _, c := range []string{"prometheus", "alertmanager", "node_exporter"} {
			for _, s := range []string{"stop", "swap", "start", "health"} {
				if !browsertest.Eval[bool](tab, `!!(window.steps && window.steps["`+c+` `+s+` Done"])`) {
					h.t.Errorf("the browser did not show step %s of %s: %v", s, c, browsertest.Eval[[]string](tab, `Object.keys(window.steps || {})`))
				}
			}
		}
		tab.Clean()
		tab.Shoot("rig")
		tab.Close()
	}
}

// scraped has the real Prometheus scrape the page's metrics.
func (h *host) scraped() {
	h.t.Helper()
	const config = "/etc/prometheus/prometheus.yml"
	was, err := h.ReadFile(config)
	h.check(err)
	now := strings.Replace(string(was), "scrape_configs:\n", "scrape_configs:\n  - {job_name: upgrades, scrape_interval: 1s, static_configs: [{targets: [\"localhost:9099\"]}]}\n", 1)
	if now == string(was) {
		h.t.Fatalf("where are the scrapes? %s", was)
	}
	h.file(config, now)
	h.MustRun(h.ctx, "systemctl", "kill", "-s", "HUP", "prometheus.service")
	h.until("Prometheus has the metrics", time.Minute, h.one(`count(observability_component_version_info{job="upgrades",component="prometheus"})`))
	h.until("the scrape succeeds", time.Minute, h.one(`up{job="upgrades"}`))
}

// The page as it is installed: the first look starts it, as a user that has
// nothing, and it follows a real upgrade of real programs step by step.
func TestServe(t *testing.T) {
	t.Parallel()
	h := newHost(t, old, newer)
	h.upgrade(0, "adopt", "--yes")
	h.MustRun(h.ctx, "install", "-d", "-m", "0700", "/etc/observability/secrets")
	h.MustRun(h.ctx, "sh", "-c", "umask 077; echo PLANTED-TOKEN >/etc/observability/secrets/token")
	h.MustRun(h.ctx, "sed", "-i", "s/github: {/github: {token: \"${SECRET:token}\", /", "/etc/observability/upgrade-policy.yaml")
	h.units("observability-upgrade-serve.service", "observability-upgrade-serve.socket", "observability-upgrade-check.service", "observability-upgrade-check.timer")
	h.MustRun(h.ctx, "systemctl", "enable", "--now", "observability-upgrade-serve.socket")
	if got := h.property("ActiveState"); got != "inactive" {
		t.Errorf("before anybody looks it is %s", got)
	}
	body := h.shows("/", "All 3 healthy", "prometheus", "alertmanager", "node_exporter", "there was no check yet")
	if strings.Contains(body, "What could not be read") {
		t.Errorf("something cannot be read:\n%s", body)
	}
	if uid := strings.Fields(h.proc("Uid"))[0]; uid == "0" {
		t.Error("it runs as root")
	}
	for _, f := range []string{"CapEff", "CapPrm", "CapBnd"} {
		if got := h.proc(f); strings.Trim(got, "0") != "" {
			t.Errorf("%s is %s", f, got)
		}
	}

	// The daily look, as its unit makes it.
	h.MustRun(h.ctx, "systemctl", "enable", "observability-upgrade-check.timer")
	h.MustRun(h.ctx, "systemctl", "start", "observability-upgrade-check.service")
	if got := strings.TrimSpace(h.MustRun(h.ctx, "systemctl", "show", "-P", "ExecMainStatus", "observability-upgrade-check.service")); got != "0" {
		t.Errorf("the check ended with %s\n%s", got, h.MustRun(h.ctx, "journalctl", "-u", "observability-upgrade-check", "--no-pager"))
	}
	h.shows("/", "3 available", line(h.release("prometheus", "2.53").Version))

	// A real upgrade, seen as it goes on.
	events, watched := h.listen(), h.watch()
	var res result
	h.document(&res, 0, "apply", "--yes")
	seen := map[string]bool{}
	for deadline := time.After(time.Minute); !seen["ended"]; {
		select {
		case e, ok := <-events:
			if !ok {
				t.Fatalf("the stream ended; seen: %v", seen)
			}
			switch {
			case e.Label != "":
				seen[e.Set+" "+e.Label+" "+e.State] = true
			case e.Phase == "running":
				seen["running"] = true
			case e.Phase == "idle" && e.Run == res.ID:
				seen["ended"] = true
			}
		case <-deadline:
			t.Fatalf("not seen to its end: %v", seen)
		}
	}
	for _, c := range []string{"prometheus", "alertmanager", "node_exporter"} {
		for _, s := range []string{"stop", "swap", "start", "health"} {
			if !seen[c+" "+s+" Done"] {
				t.Errorf("step %s of %s was not seen: %v", s, c, seen)
			}
		}
	}
	if !seen["running"] {
		t.Errorf("the run was not seen at work: %v", seen)
	}
	watched(res.ID)
	h.shows("/", "All 3 healthy", res.ID, "Succeeded", "1 backup point")
	h.shows("/runs/"+res.ID, "Upgraded", "health", "Checks before it began")
	h.shows("/history?component=prometheus", res.ID, "Down time of prometheus")
	h.shows("/backups", "rollback --to="+res.ID)
	h.shows("/metrics", `observability_component_version_info{component="prometheus"`)
	h.scraped()
	h.shows("/healthz", "ok")

	// A run that is killed is an alarm until it is recovered.
	h.document(&res, 0, "rollback", "--previous", "--yes")
	h.shows("/", "not checked since its version changed")
	h.MustRun(h.ctx, "systemd-run", "--unit=killed", "--collect", program, "apply", "--yes", "--component=prometheus")
	stopping := false
	for e := range events {
		if stopping = e.Run > res.ID && e.Set == "prometheus" && e.Label == "stop"; stopping {
			break
		}
	}
	if !stopping {
		t.Fatal("the stream ended")
	}
	h.MustRun(h.ctx, "systemctl", "kill", "-s", "KILL", "killed.service")
	h.shows("/", "This run was cut off", "observability-upgrade recover")
	h.upgrade(0, "recover")
	h.until("the alarm ends", 30*time.Second, func() bool {
		_, body, err := h.Get(h.ctx, page+"/")
		return err == nil && !strings.Contains(string(body), "was cut off")
	})

	// What it holds while it is scraped every second, and how it ends.
	fields := strings.Fields(h.proc("VmRSS"))
	rss, err := strconv.Atoi(fields[0])
	h.check(err)
	t.Logf("resident memory after all that: %d KiB", rss)
	if rss > 64<<10 {
		t.Errorf("it holds %d KiB", rss)
	}
	// This host has no nss-systemd, so the bus does not know the service's user and
	// turns it away: then the state of units is not known. With a user of that name,
	// which systemd takes in place of one of its own making, it is.
	h.shows("/", "the state of its unit is not known")
	h.MustRun(h.ctx, "useradd", "--system", "--no-create-home", "--shell=/usr/sbin/nologin", "observability-upgrade-serve")
	h.MustRun(h.ctx, "systemctl", "restart", "observability-upgrade-serve.service")
	fields = strings.Fields(h.proc("VmRSS"))
	rss, err = strconv.Atoi(fields[0])
	h.check(err)
	t.Logf("resident memory of one that waits: %d KiB", rss)
	if rss > 25<<10 {
		t.Errorf("one that waits holds %d KiB, the goal is 25600", rss)
	}
	h.shows("/healthz", "ok")
	if body := h.shows("/", "All 3 healthy"); strings.Contains(body, "is not known:") {
		t.Errorf("units are not asked:\n%s", body)
	}
	h.MustRun(h.ctx, "systemctl", "stop", "node_exporter.service")
	h.shows("/", "1 of 3 unhealthy", "Not running", "node_exporter.service is dead")
	h.MustRun(h.ctx, "systemctl", "stop", "observability-upgrade-serve.service")
	if got := h.property("Result") + " " + h.property("ExecMainStatus"); got != "success 0" {
		t.Errorf("it ended with %s", got)
	}
	log := h.MustRun(h.ctx, "journalctl", "-u", "observability-upgrade-serve", "--no-pager")
	for _, bad := range []string{"PLANTED", "SIGSYS", "level=ERROR", "panic"} {
		if strings.Contains(log, bad) {
			t.Errorf("its log says %s:\n%s", bad, log)
		}
	}
}
