package e2e

import (
	"database/sql"
	"encoding/binary"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	_ "modernc.org/sqlite" // another program that has the history open

	"github.com/observability-upgrade/observability-upgrade/test/e2e/rig"
)

// stubborn is a program that does not care for SIGTERM, and leaves a child behind
// that has left its session.
func stubborn(version string) string {
	real := "/opt/real/node_exporter-" + version
	return "#!/bin/sh\n[ \"$1\" = --version ] && echo 'node_exporter, version " + version + " (rig)' && exit 0\ncase \"$*\" in *no-such-flag*) exit 1;; esac\ntrap '' TERM\nsetsid sleep 7777 &\n" + real + " \"$@\" &\nwhile :; do wait; done\n"
}

// A service that ignores SIGTERM is killed when its time is over, and none of its
// processes outlives it; one that is masked, crashes all the time or is gone is
// told before anything is touched.
func TestHostileServices(t *testing.T) {
	t.Parallel()
	h := newHost(t, map[string]string{"node_exporter": "1.5"}, map[string][]string{"node_exporter": {"1.9"}})
	h.settle("node_exporter", "100ms")
	h.file("/etc/observability/upgrade-policy.yaml", "upstream: {github: {api_url: \"http://127.0.0.1:8081\"}, cache_ttl: 0s}\ntimeouts: {stop: 2s, start: 30s, health: 30s}\n")
	was, is := h.release("node_exporter", "1.5"), h.release("node_exporter", "1.9")
	h.check(h.MkdirAll("/opt/real"))
	for _, r := range []rig.Release{was, is} {
		h.check(h.CopyIn(r.Dir+"/node_exporter", "/opt/real/node_exporter-"+r.Version, 0o755))
	}
	const path, unit = "/usr/local/bin/node_exporter", "node_exporter.service"
	h.MustRun(h.ctx, "systemctl", "stop", unit)
	h.check(h.WriteFile(path, []byte(stubborn(was.Version)), 0o755))
	h.publish("node_exporter", "prometheus/node_exporter", is.Version, map[string]string{"node_exporter": stubborn(is.Version)})
	h.MustRun(h.ctx, "systemctl", "start", unit)
	h.waitReady(build["node_exporter"], unit)
	children := func() []string { return strings.Fields(h.MustRun(h.ctx, "pgrep", "-f", "^sleep 7777")) }
	before := children()
	h.upgrade(0, "adopt", "--yes")
	began := time.Now()
	out := h.upgrade(0, "apply", "--yes")
	if !strings.Contains(out.Stderr, "killed after 2s") || !strings.Contains(out.Stdout, "did not stop within 2s and was killed") {
		t.Errorf("%s", out)
	}
	t.Logf("upgraded in %s", time.Since(began).Round(time.Millisecond))
	if after := children(); len(before) != 1 || len(after) != 1 || before[0] == after[0] {
		t.Errorf("its children were %v, are %v", before, after)
	}
	if got := h.agrees("node_exporter"); line(got) != "1.9" {
		t.Fatalf("it is at %s", got)
	}
	h.upgrade(0, "rollback", "--previous", "--yes")
	if after := children(); len(after) != 1 {
		t.Errorf("its children after the rollback are %v", after)
	}

	h.MustRun(h.ctx, "systemctl", "kill", "--signal=KILL", unit)
	const file = "/etc/systemd/system/node_exporter.service"
	text, err := h.ReadFile(file)
	h.check(err)
	refused := func(unitText, want, next string) {
		t.Helper()
		h.file(file, unitText)
		h.MustRun(h.ctx, "sh", "-c", "systemctl daemon-reload; systemctl restart "+unit+" || true")
		h.until("systemd gives it up", time.Minute, func() bool {
			res, err := h.Run(h.ctx, "systemctl", "is-failed", unit)
			return err == nil && res.ExitCode == 0
		})
		out := h.upgrade(4, "apply", "--yes")
		if !strings.Contains(out.Stderr, want) || !strings.Contains(out.Stderr, "next:  "+next) {
			t.Errorf("it does not say %q and %q: %s", want, next, out)
		}
	}
	refused(regexp.MustCompile(`ExecStart=\S+`).ReplaceAllString(string(text), "${0} --no-such-flag"), "expected it healthy before the upgrade", "")
	h.MustRun(h.ctx, "sh", "-c", "systemctl stop "+unit+"; rm "+file+" && ln -s /dev/null "+file+" && systemctl daemon-reload")
	out = h.upgrade(4, "apply", "--yes")
	if !strings.Contains(out.Stderr, "found it masked") || !strings.Contains(out.Stderr, "next:  systemctl unmask "+unit) {
		t.Errorf("%s", out)
	}
	h.MustRun(h.ctx, "sh", "-c", "rm "+file+" && systemctl daemon-reload")
	out = h.upgrade(0, "apply", "--yes")
	if !strings.Contains(out.Stdout+out.Stderr, "node_exporter.service does not exist: only its files are replaced") {
		t.Errorf("%s", out)
	}
}

// Staging on a file system that programs cannot be run from is refused by the name
// of its mount option; moved elsewhere, as the message says, it works.
func TestNoexecStaging(t *testing.T) {
	t.Parallel()
	h, of := node(t)
	h.MustRun(h.ctx, "mount", "-o", "remount,noexec", "/tmp")
	out := h.upgrade(4, "apply", "--yes")
	for _, want := range []string{"/tmp", "mounted noexec", "paths.staging", "next:  mount -o remount,exec"} {
		if !strings.Contains(out.Stderr, want) {
			t.Errorf("it does not say %q: %s", want, out)
		}
	}
	policy := h.MustRun(h.ctx, "cat", "/etc/observability/upgrade-policy.yaml")
	h.file("/etc/observability/upgrade-policy.yaml", policy+"paths: {staging: /var/lib/observability/staging}\n")
	h.upgrade(0, "apply", "--yes")
	if got := h.whole(of); got != "node_exporter 1.9" {
		t.Fatal(got)
	}
}

// capNetRaw is security.capability with cap_net_raw+ep: vfs_cap_data of revision 2,
// linux/capability.h.
func capNetRaw() string {
	var b []byte
	for _, word := range []uint32{0x02000001, 1 << unix.CAP_NET_RAW, 0, 0, 0} {
		b = binary.LittleEndian.AppendUint32(b, word)
	}
	return string(b)
}

// aclForNobody is system.posix_acl_access with an entry for the user 65534:
// linux/posix_acl_xattr.h.
func aclForNobody() string {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range [][3]uint32{{0x01, 7, ^uint32(0)}, {0x02, 5, 65534}, {0x04, 5, ^uint32(0)}, {0x10, 5, ^uint32(0)}, {0x20, 0, ^uint32(0)}} {
		b = binary.LittleEndian.AppendUint16(b, uint16(e[0]))
		b = binary.LittleEndian.AppendUint16(b, uint16(e[1]))
		b = binary.LittleEndian.AppendUint32(b, e[2])
	}
	return string(b)
}

// Owner, group, mode, capabilities, an access list, a security label and other
// attributes of a program stay through an upgrade, a rollback, one from a backup
// whose copy beside is gone, and a failed upgrade that is undone.
func TestAttributesStay(t *testing.T) {
	t.Parallel()
	if reason := rig.PackageAvailable(); reason != "" {
		t.Skip(reason)
	}
	h := newHost(t, nil, nil)
	var versions [2]string
	for i, suite := range []string{"bookworm", "trixie"} {
		dirs, missing, err := rig.DebianPackages(h.ctx, suite, []string{"prometheus-blackbox-exporter"}, nil)
		h.check(err)
		if why := missing["prometheus-blackbox-exporter"]; why != nil {
			t.Skip(why)
		}
		program := dirs["prometheus-blackbox-exporter"] + "/usr/bin/prometheus-blackbox-exporter"
		body, err := os.ReadFile(program)
		h.check(err)
		h.check(h.WriteFile("/opt/probe", body, 0o755))
		res, err := h.Run(h.ctx, "/opt/probe", "--version")
		h.check(err)
		m := regexp.MustCompile(`version (\d+\.\d+\.\d+)`).FindStringSubmatch(res.Stdout + res.Stderr)
		if m == nil {
			t.Fatalf("%s", res)
		}
		versions[i] = m[1]
		if i == 1 {
			h.publish("blackbox_exporter", "prometheus/blackbox_exporter", m[1], map[string]string{"blackbox_exporter": string(body)})
			continue
		}
		for _, p := range probedPrograms() {
			if p.component == "blackbox_exporter" {
				h.start(p, dirs[p.pkg])
			}
		}
	}
	const path, unit = "/usr/local/bin/blackbox_exporter", "blackbox_exporter.service"
	h.settle("blackbox_exporter", "100ms")
	at := h.Path(path)
	h.check(os.Chown(at, 0, 65534))
	h.check(os.Chmod(at, 0o750))
	for name, value := range map[string]string{
		"system.posix_acl_access": aclForNobody(), "security.selinux": "system_u:object_r:bin_t:s0\x00",
		"user.origin": "by hand", "security.capability": capNetRaw(),
	} {
		h.check(os.NewSyscallError("setxattr "+name, unix.Setxattr(at, name, []byte(value), 0)))
	}
	h.MustRun(h.ctx, "sh", "-c", "systemctl daemon-reload && systemctl start "+unit)
	h.waitReady("http://127.0.0.1:9115/metrics", unit)
	h.upgrade(0, "adopt", "--yes")
	whole := func() string {
		t.Helper()
		list, err := h.TreeListing(h.ctx, path)
		h.check(err)
		pid, err := h.MainPID(h.ctx, unit)
		h.check(err)
		caps := regexp.MustCompile(`CapPrm:\s+(\S+)`).FindStringSubmatch(h.MustRun(h.ctx, "cat", fmt.Sprintf("/proc/%d/status", pid)))
		if caps == nil || caps[1] != "0000000000002000" {
			t.Errorf("the process has capabilities %v, want cap_net_raw", caps)
		}
		return list[0]
	}
	first := whole()
	attributes := func(line string) string { // all but time, size and digest
		w := strings.Fields(line)
		return strings.Join(w[:len(w)-3], " ")
	}
	for _, name := range []string{"security.capability=", "security.selinux=", "system.posix_acl_access=", "user.origin="} {
		if !strings.Contains(first, name) {
			t.Fatalf("%s is not there to begin with: %s", name, first)
		}
	}
	same := func(what, version string, exact bool) {
		t.Helper()
		now := whole()
		if attributes(now) != attributes(first) || exact && now != first {
			t.Errorf("%s:\n%s\nit was\n%s", what, now, first)
		}
		if out := h.MustRun(h.ctx, "sh", "-c", path+" --version 2>&1"); !strings.Contains(out, versions[map[string]int{"old": 0, "new": 1}[version]]) {
			t.Errorf("%s: %s", what, out)
		}
	}
	h.upgrade(0, "apply", "--yes")
	same("upgraded", "new", false)
	h.upgrade(0, "rollback", "--previous", "--yes")
	same("rolled back", "old", true)
	var res result
	h.document(&res, 0, "apply", "--yes")
	stamp := res.ID
	h.MustRun(h.ctx, "sh", "-c", "systemctl stop "+unit+" && rm "+path)
	h.upgrade(0, "rollback", "--to="+stamp, "--yes")
	same("restored from the backup, the program was gone", "old", true)
	h.publish("blackbox_exporter", "prometheus/blackbox_exporter", "9.9.9", map[string]string{
		"blackbox_exporter": "#!/bin/sh\n[ \"$1\" = --version ] && echo 'blackbox_exporter, version 9.9.9' && exit 0\ncase \"$*\" in *config.check*) exit 0;; esac\nexit 3\n",
	})
	h.upgrade(5, "apply", "--yes", "--component=blackbox_exporter@9.9.9")
	same("undone", "old", true)
}

// Another program holds the history for longer than anybody waits; then it holds
// garbage; the state file is cut off, or of a later version of this program.
func TestHostileRecords(t *testing.T) {
	t.Parallel()
	h, of := node(t)
	h.upgrade(0, "apply", "--yes")
	h.upgrade(0, "rollback", "--previous", "--yes")
	const history, state = "/var/lib/observability/upgrade-history.db", "/var/lib/observability/versions.state"
	db, err := sql.Open("sqlite", h.Path(history))
	h.check(err)
	defer db.Close()
	conn, err := db.Conn(h.ctx)
	h.check(err)
	_, err = conn.ExecContext(h.ctx, "BEGIN EXCLUSIVE")
	h.check(err)
	out := h.upgrade(0, "apply", "--yes")
	if !strings.Contains(out.Stdout, "another process has had it locked") || !strings.Contains(out.Stdout, "observability-upgrade recover") {
		t.Errorf("nobody is told that the history is locked: %s", out)
	}
	if line(h.running("node_exporter")) != "1.9" {
		t.Error("it was not upgraded")
	}
	_, err = conn.ExecContext(h.ctx, "ROLLBACK")
	h.check(err)
	h.check(conn.Close())
	h.upgrade(0, "recover")
	if got := h.whole(of); got != "node_exporter 1.9" {
		t.Error(got)
	}

	good, err := h.ReadFile(state)
	h.check(err)
	h.check(h.WriteFile(state, good[:len(good)/2], 0o644))
	out = h.upgrade(0, "rollback", "--previous", "--yes")
	if !strings.Contains(out.Stderr, ".corrupt") || line(h.agrees("node_exporter")) != "1.5" {
		t.Errorf("the cut off state file: %s", out)
	}
	newer := strings.Replace(string(good), `"format_version": 1`, `"format_version": 99`, 1)
	h.check(h.WriteFile(state, []byte(newer), 0o644))
	res, err := h.Run(h.ctx, program, "apply", "--yes")
	h.check(err)
	if res.ExitCode == 0 || !strings.Contains(res.Stderr, "99") || !strings.Contains(res.Stderr, "next:") {
		t.Errorf("the state file of a later version: %s", res)
	}
	if now, err := h.ReadFile(state); err != nil || string(now) != newer {
		t.Errorf("it was changed: %s %v", now, err)
	}
	h.check(h.WriteFile(state, good, 0o644))

	h.MustRun(h.ctx, "sh", "-c", "rm -f "+history+"-wal "+history+"-shm; head -c 40000 /dev/urandom >"+history)
	out = h.upgrade(4, "apply", "--yes")
	if !strings.Contains(out.Stderr, "mv "+history+" "+history+".corrupt") {
		t.Errorf("it does not say what to do about a history of garbage: %s", out)
	}
	h.MustRun(h.ctx, "mv", history, history+".corrupt")
	h.upgrade(0, "apply", "--yes")
	if got := h.whole(of); got != "node_exporter 1.9" {
		t.Error(got)
	}
}
