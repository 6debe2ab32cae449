package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/test/e2e/rig"
)

// Two Prometheis behind a real HAProxy.
var highAvailability = document{
	name:  "docs/high-availability.md",
	setup: forget,
	steps: map[string]step{
		command("plan", "--component=prometheus"): {says: "one instance at a time: a, b"},
		command("apply", "--component=prometheus"): {types: "y\n", says: "Proceed with the upgrade", after: func(r *reader) {
			for name := range pair {
				if v := r.live(name); line(v) != "2.53" {
					r.t.Errorf("%s runs %s", name, v)
				}
			}
			r.admitted("haproxy")
		}},
	},
}

// newFleet is a host from which others are reached by a real ssh: mon-1, which is
// prometheus-b too, and mon-2, which is itself.
func newFleet(t *testing.T) *host {
	kit, _ := shared(t)
	network := kit.StartNetwork(t.Context(), t)
	boot := func() *reader {
		return &reader{host: newHostWith(t, rig.Options{Network: network}, map[string]string{"node_exporter": "1.5"}, newer)}
	}
	lead, other := boot(), boot()
	hosts := "127.0.0.1 localhost\n" + other.IP + " mon-1 prometheus-b\n" + lead.IP + " mon-2\n"
	known := ""
	for _, r := range []*reader{lead, other} {
		r.packages("bookworm", "openssh-client", "openssh-server", "libwrap0", "libnsl2", "libtirpc3", "sudo")
		r.MustRun(r.ctx, "sh", "-c", "useradd --system --no-create-home --home-dir=/run/sshd sshd; ssh-keygen -A; printf 'root ALL=(ALL) NOPASSWD: ALL\\n' >/etc/sudoers")
		r.file("/etc/ssh/sshd_config", "PermitRootLogin prohibit-password\nPasswordAuthentication no\n")
		r.file("/etc/hosts", hosts)
		key := r.MustRun(r.ctx, "cat", "/etc/ssh/ssh_host_ed25519_key.pub")
		known += strings.Join([]string{map[*reader]string{lead: "mon-2", other: "mon-1,prometheus-b"}[r], key}, " ")
	}
	lead.MustRun(lead.ctx, "install", "-d", "-m", "0700", "/root/.ssh")
	lead.MustRun(lead.ctx, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/root/.ssh/id_ed25519")
	lead.file("/root/.ssh/known_hosts", known)
	public := lead.MustRun(lead.ctx, "cat", "/root/.ssh/id_ed25519.pub")
	for _, r := range []*reader{lead, other} {
		r.MustRun(r.ctx, "install", "-d", "-m", "0700", "/root/.ssh")
		r.file("/root/.ssh/authorized_keys", public)
		r.MustRun(r.ctx, "systemd-run", "--quiet", "--unit=sshd", "--property=RuntimeDirectory=sshd", "/usr/sbin/sshd", "-D")
		r.file("/etc/observability/upgrade-policy.yaml", reach)
		r.MustRun(r.ctx, program, "adopt", "--yes")
	}
	for _, name := range []string{"mon-1", "mon-2"} {
		var res rig.Result
		deadline := time.Now().Add(30 * time.Second)
		for time.Now().Before(deadline) {
			var err error
			res, err = lead.Run(lead.ctx, "ssh", "-oBatchMode=yes", name, "true")
			lead.check(err)
			if res.ExitCode == 0 {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		if res.ExitCode != 0 {
			t.Fatalf("ssh %s: %s", name, res)
		}
	}
	return lead.host
}

// reach is what is different on hosts that are reached from others: sudo takes the
// environment away.
const reach = "upstream: {github: {api_url: \"http://127.0.0.1:8081\"}, cache_ttl: 0s}\nauto_upgrade: {default_policy: minor}\n"

var fleet = document{
	name: "docs/fleet.md",
	setup: func(r *reader) {
		r.jq()
		r.file(checkout+"/canaries.txt", "mon-1\n")
		r.file(checkout+"/others.txt", "mon-2\n")
	},
	words: map[string]func(*reader) string{"HOST": is("mon-1")},
	steps: map[string]step{
		command("auto-enable", "--policy=minor"): {after: func(r *reader) {
			r.file("/etc/observability/upgrade-policy.yaml", reach)
		}},
		"upgrade-hosts canaries.txt": {says: "mon-1: exit code 0"},
		`jq -r '"\(input_filename): \(.status)", (.components[]? | "  \(.name) \(.from) → \(.to): \(.status)")' *.json`: {says: "(?s)mon-1.json: success\n  node_exporter 1.5.0 → 1.9.0: upgraded"},
		"upgrade-hosts others.txt": {says: "mon-2: exit code 0", after: func(r *reader) {
			r.at(map[string]string{"node_exporter": "1.9"})
		}},
		"ssh -n -oBatchMode=yes HOST sudo observability-upgrade plan --auto --output=json": {says: `"phases": *\[\]`},
	},
}

// A real Consul, a real etcd, and a real way to another host.
var discovery = document{
	name: "docs/discovery.md",
	setup: func(r *reader) {
		r.packages("bullseye", "consul")
		r.packages("bookworm", "etcd-server", "etcd-client")
		r.MustRun(r.ctx, "systemd-run", "--quiet", "--unit=consul-dev", "consul", "agent", "-dev", "-bind=127.0.0.1")
		r.MustRun(r.ctx, "systemd-run", "--quiet", "--unit=etcd-dev", "etcd", "--data-dir=/var/lib/etcd")
		r.waitReady("http://127.0.0.1:8500/v1/agent/self", "consul-dev")
		r.waitReady("http://127.0.0.1:2379/health", "etcd-dev")
		r.secret("consul-token", "t")
		r.secret("etcd-password", "p")
		for _, name := range []string{"consul-ca.pem", "etcd-ca.pem"} {
			r.file("/etc/observability/keys/"+name, string(r.certificate().PEM))
		}
	},
	files: map[string]string{`"id": "prometheus-a"`: checkout + "/prometheus-a.json"},
	steps: map[string]step{
		"sudo ssh -oBatchMode=yes prometheus-b sudo observability-upgrade version": {says: "observability-upgrade"},
		"curl -sS http://127.0.0.1:8500/v1/health/service/prometheus": {first: func(r *reader) {
			// The agent knows it at once, its catalogue a moment later.
			r.until("the catalogue has it", 30*time.Second, func() bool {
				_, body, err := r.Get(r.ctx, "http://127.0.0.1:8500/v1/health/service/prometheus")
				return err == nil && strings.Contains(string(body), "prometheus-a")
			})
		}, says: `"prometheus-a"`},
		"etcdctl get --prefix /observability/prometheus/": {says: "(?s)prometheus/a.*prom-a.*prometheus/b.*prometheus/c"},
		"etcdctl user add observability-upgrade":          {types: "secret\nsecret\n", says: "created"},
	},
}

// The playbook of the page upgrades a host, and says nothing to do the second time.
// Ansible runs on this machine, and reaches the host through a command in the place
// of the program's.
func TestFleetByAnsible(t *testing.T) {
	t.Parallel()
	ansible, err := exec.LookPath("ansible-playbook")
	if err != nil {
		t.Skip("ansible-playbook is not installed")
	}
	h := newHost(t, map[string]string{"node_exporter": "1.5"}, newer)
	h.upgrade(0, "adopt", "--yes")
	dir := t.TempDir()
	var quoted []string
	for _, a := range h.Command(h.ctx, "env", upstream, program).Args {
		quoted = append(quoted, "'"+a+"'")
	}
	var playbook string
	for _, b := range documentBlocks(t, "docs/fleet.md") {
		if strings.HasPrefix(b.Text, "# upgrade.yml\n") {
			playbook = b.Text
		}
	}
	h.check(os.WriteFile(filepath.Join(dir, "upgrade.yml"), []byte(playbook), 0o644))
	h.check(os.WriteFile(filepath.Join(dir, "hosts.ini"), []byte("[monitoring]\nlocalhost ansible_connection=local ansible_become=false\n"), 0o644))
	h.check(os.WriteFile(filepath.Join(dir, "observability-upgrade"), []byte("#!/bin/sh\nexec "+strings.Join(quoted, " ")+" \"$@\"\n"), 0o755))
	h.file("/etc/observability/upgrade-policy.yaml", reach)
	for _, want := range []string{"changed=1", "changed=0"} {
		cmd := exec.CommandContext(h.ctx, ansible, "-i", "hosts.ini", "upgrade.yml")
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "HOME="+dir, "ANSIBLE_NOCOLOR=1")
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) || !strings.Contains(string(out), "failed=0") {
			t.Fatalf("%v, want %s\n%s", err, want, out)
		}
	}
	if got := h.agrees("node_exporter"); line(got) != "1.9" {
		t.Errorf("node_exporter is at %s", got)
	}
}
