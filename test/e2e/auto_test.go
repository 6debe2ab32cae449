package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

type autoStatus struct {
	Enabled  bool
	Policy   string
	Schedule string
	NextRun  *time.Time `json:"next_run"`
	LastRun  *time.Time `json:"last_run"`
}

// window is a policy line with one window that begins and ends so many minutes
// from now, in the container's clock.
func window(from, to time.Duration) string {
	now := time.Now().UTC()
	return fmt.Sprintf("maintenance_windows: [\"%s-%s\"]\n", now.Add(from).Format("15:04"), now.Add(to).Format("15:04"))
}

// until polls a state of the container.
func (h *host) until(what string, within time.Duration, ok func() bool) {
	h.t.Helper()
	deadline := time.Now().Add(within)
	for !ok() {
		if time.Now().After(deadline) {
			h.t.Fatalf("%s: not within %s", what, within)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// The timer upgrades by itself inside its window, and not outside; drop-ins are
// left alone; a second auto-enable changes nothing.
func TestUnattended(t *testing.T) {
	t.Parallel()
	h := newHost(t, map[string]string{"node_exporter": "1.5"}, map[string][]string{"node_exporter": {"1.9"}})
	const policyFile = "/etc/observability/upgrade-policy.yaml"
	policy := h.MustRun(h.ctx, "cat", policyFile)
	h.upgrade(0, "adopt", "--yes")
	const drop = "/etc/systemd/system/observability-upgrade.service.d/mine.conf"
	h.file(drop, "[Service]\nEnvironment=MINE=1\n")
	soon := func() string { return time.Now().UTC().Add(15*time.Second).Format("2006-01-02 15:04:05") + " UTC" }
	ended := func() string {
		return strings.TrimSpace(h.MustRun(h.ctx, "systemctl", "show", "-P", "ExecMainExitTimestampMonotonic", "observability-upgrade.service"))
	}

	// A program that the unit would not see, or that others could replace, is refused.
	h.MustRun(h.ctx, "sh", "-c", "cp "+program+" /root/copy && mkdir -m 0777 /opt/open && chmod 0777 /opt/open && cp "+program+" /opt/open/copy")
	for at, want := range map[string]string{"/root/copy": "ProtectHome=yes", "/opt/open/copy": "below /opt/open, which everybody can write"} {
		out, err := h.Run(h.ctx, at, "auto-enable", "--policy=minor")
		if err != nil || out.ExitCode != 4 || !strings.Contains(out.Stderr, want) || !strings.Contains(out.Stderr, "next:  install -m 0755 "+at+" "+program) {
			t.Errorf("%v %s", err, out)
		}
	}

	// Outside the window nothing happens, and the unit does not count as failed.
	h.file(policyFile, policy+window(2*time.Hour, 4*time.Hour))
	var st autoStatus
	h.document(&st, 0, "auto-enable", "--policy=minor", "--randomized-delay=0s", "--schedule="+soon())
	if !st.Enabled || st.Policy != "minor" || st.NextRun == nil {
		t.Fatalf("%+v", st)
	}
	h.until("the timer's first run", 2*time.Minute, func() bool { return ended() != "0" })
	if code := strings.TrimSpace(h.MustRun(h.ctx, "systemctl", "show", "-P", "ExecMainStatus", "observability-upgrade.service")); code != "8" {
		t.Fatalf("outside the window the service ended with %s\n%s", code, h.MustRun(h.ctx, "journalctl", "-u", "observability-upgrade.service", "--no-pager"))
	}
	if failed, err := h.Run(h.ctx, "systemctl", "is-failed", "observability-upgrade.service"); err != nil || failed.ExitCode == 0 {
		t.Fatalf("the unit counts as failed: %v %s", err, failed)
	}
	if got := h.installed("node_exporter"); line(got) != "1.5" {
		t.Fatalf("upgraded outside the window, to %s", got)
	}

	// Inside, it upgrades by itself.
	h.file(policyFile, policy+window(-time.Hour, 2*time.Hour))
	before := ended()
	h.document(&st, 0, "auto-enable", "--policy=minor", "--randomized-delay=0s", "--schedule="+soon())
	h.until("the timer's second run", 2*time.Minute, func() bool { at := ended(); return at != before && at != "0" })
	if got := h.agrees("node_exporter"); line(got) != "1.9" {
		t.Fatalf("node_exporter is at %s\n%s", got, h.MustRun(h.ctx, "journalctl", "-u", "observability-upgrade.service", "--no-pager"))
	}
	// What keeps new programs in is there in the unit too, as far as the kernel has it.
	_, noLandlock := ll.LandlockGetABIVersion()
	log := h.MustRun(h.ctx, "journalctl", "-u", "observability-upgrade.service", "--no-pager", "-o", "cat")
	for l := range strings.Lines(log) {
		if strings.Contains(l, "does not give: ") && noLandlock == nil {
			t.Errorf("the sandbox is not whole in the unit: %s", l)
		}
	}
	h.document(&st, 0, "auto-status")
	if st.LastRun == nil || time.Since(*st.LastRun) > time.Minute {
		t.Errorf("last run: %+v", st)
	}
	var hist struct {
		Upgrades []struct {
			Component string
			Trigger   string `json:"triggered_by"`
		}
	}
	h.document(&hist, 0, "history")
	if len(hist.Upgrades) != 1 || hist.Upgrades[0].Trigger != "scheduled" {
		t.Errorf("%+v", hist)
	}
	// One structured line per step in the journal.
	steps := map[string]bool{}
	for _, l := range strings.Split(h.MustRun(h.ctx, "journalctl", "-u", "observability-upgrade.service", "--no-pager", "-o", "json"), "\n") {
		var entry struct{ MESSAGE string }
		if json.Unmarshal([]byte(l), &entry) == nil && strings.Contains(entry.MESSAGE, "component=node_exporter") {
			for _, s := range []string{"place", "stop", "swap", "start", "health"} {
				steps[s] = steps[s] || strings.Contains(entry.MESSAGE, "step="+s)
			}
		}
	}
	for _, s := range []string{"place", "stop", "swap", "start", "health"} {
		if !steps[s] {
			t.Errorf("the journal has no line of step %s:\n%s", s, h.MustRun(h.ctx, "journalctl", "-u", "observability-upgrade.service", "--no-pager"))
		}
	}

	h.document(&st, 0, "auto-enable", "--policy=patch_only")
	if out := h.upgrade(0, "auto-enable", "--policy=patch_only"); !strings.Contains(out.Stdout, "nothing was changed") {
		t.Errorf("%s", out)
	}
	h.MustRun(h.ctx, "test", "-f", drop)
	h.document(&st, 0, "auto-disable")
	if st.Enabled || st.NextRun != nil {
		t.Errorf("%+v", st)
	}
	h.MustRun(h.ctx, "sh", "-c", "test -f "+drop+" && ! test -e /etc/systemd/system/observability-upgrade.timer && ! systemctl is-active observability-upgrade.timer")
}
