package e2e

import (
	"strings"
	"testing"
	"time"
)

// The life of the RPM package, by the real rpm, on what is otherwise a Debian host:
// what the package needs of others is therefore not asked.
func TestRPMPackage(t *testing.T) {
	t.Parallel()
	h := newPackagedHost(t, map[string]string{"node_exporter": "1.5"}, map[string][]string{"node_exporter": {"1.9"}}, "0.1.0", "0.2.0")
	h.bring("rpm", "rpm-common", "librpm9", "librpmio9", "liblua5.3-0", "libpopt0")
	rpm := func(code int, args ...string) string {
		t.Helper()
		res, err := h.Run(h.ctx, append([]string{"rpm", "--nodeps"}, args...)...)
		h.check(err)
		if res.ExitCode != code {
			t.Fatalf("rpm %v: exit code %d, want %d\n%s", args, res.ExitCode, code, res)
		}
		return res.Stdout + res.Stderr
	}
	file := func(version string) string {
		return "/root/" + version + "/observability-upgrade-" + version + "-1.*.rpm"
	}
	install := func(option, version string) {
		t.Helper()
		rpm(0, option, h.says("ls "+file(version)))
	}
	install("-i", "0.1.0")
	h.expect(map[string]string{
		"observability-upgrade version | cut -d' ' -f2": "0.1.0",
		"systemctl is-enabled observability-upgrade-recover.service observability-upgrade-serve.socket observability-upgrade-serve.service observability-upgrade-check.timer": "enabled\ndisabled\ndisabled\ndisabled",
		"id -un observability-upgrade-serve": "observability-upgrade-serve",
		"stat -c '%a %U %n' /var/lib/observability /var/backups/observability /etc/observability/secrets": "755 root /var/lib/observability\n700 root /var/backups/observability\n700 root /etc/observability/secrets",
		"rpm -V observability-upgrade --nodeps":                                                           "",
		"ls /usr/share/zsh/site-functions":                                                                "_observability-upgrade",
	})
	h.file("/etc/observability/upgrade-policy.yaml", waitingPolicy)
	h.upgrade(0, "adopt", "--yes")

	h.waits("byhand")
	at := h.says("systemctl show -P MainPID byhand.service")
	if out := rpm(1, "-e", "observability-upgrade"); !strings.Contains(out, "is not removed") || !strings.Contains(out, "process "+at) {
		t.Errorf("a removal in a run is not refused as it should be:\n%s", out)
	}
	install("-U", "0.2.0")
	h.expect(map[string]string{
		"observability-upgrade version | cut -d' ' -f2":                         "0.2.0",
		"readlink /proc/" + at + "/exe":                                         packaged + " (deleted)",
		"rpm -q observability-upgrade --queryformat '%{VERSION}'":               "0.2.0",
		"grep -c " + releaseAddress + " /etc/observability/upgrade-policy.yaml": "1",
		"systemctl is-enabled observability-upgrade-recover.service":            "enabled",
	})
	h.MustRun(h.ctx, "touch", "/run/go-on")
	h.until("the run's end", 2*time.Minute, func() bool { return h.says("systemctl show -P SubState byhand.service") == "exited" })
	h.expect(map[string]string{"systemctl show -P ExecMainStatus byhand.service": "0"})
	if got := h.agrees("node_exporter"); line(got) != "1.9" {
		t.Fatalf("node_exporter is at %s\n%s", got, h.says("journalctl -u byhand --no-pager"))
	}

	h.upgrade(0, "auto-enable", "--policy=patch_only")
	rpm(0, "-e", "observability-upgrade")
	h.expect(map[string]string{
		"systemctl is-active observability-upgrade.timer":                 "inactive",
		"find /usr -name '*observability*'":                               "",
		"find /etc/systemd/system -name 'observability-upgrade*' -type l": "",
		"ls /etc/observability":                                           "components.d\nupgrade-policy.yaml.rpmsave",
		"test -s /var/lib/observability/versions.state && echo kept":      "kept",
		"ls /var/backups/observability | wc -l":                           "1",
	})
}
