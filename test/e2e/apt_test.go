package e2e

import (
	"context"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"aead.dev/minisign"

	"github.com/observability-upgrade/observability-upgrade/test/e2e/rig"
)

const packaged = "/usr/bin/observability-upgrade"

// releases are of this source, as `make release` builds them: each made once, for
// all tests, and signed by one key.
var releases struct {
	mu             sync.Mutex
	dirs           map[string]string // by version
	public, secret string            // of minisign
}

// packageRelease is the directory of a release of this machine's kind.
func packageRelease(t testing.TB, version string) string {
	t.Helper()
	releases.mu.Lock()
	defer releases.mu.Unlock()
	if dir := releases.dirs[version]; dir != "" {
		return dir
	}
	if releases.dirs == nil {
		if err := makeKey(); err != nil {
			t.Fatal(err)
		}
		releases.dirs = map[string]string{}
	}
	_, bin := shared(t) // the release goes where TestMain clears up
	dir := filepath.Join(filepath.Dir(bin), "release-"+version)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "make", "-C", "../..", "--no-print-directory", "release", "DIST="+dir, "RELEASE_TARGETS="+runtime.GOARCH)
	cmd.Env = append(os.Environ(), "VERSION="+version, "SOURCE_DATE_EPOCH=1735269000", "RELEASE_SIGNING_KEY="+releases.secret)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make release: %v\n%s", err, out)
	}
	releases.dirs[version] = dir
	return dir
}

// makeKey makes a key that is thrown away with the tests.
func makeKey() error {
	pub, key, err := minisign.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	public, err := pub.MarshalText()
	if err != nil {
		return err
	}
	secret, err := key.MarshalText()
	releases.public, releases.secret = string(public)+"\n", string(secret)
	return err
}

// newPackagedHost boots a container with old versions and a release server, and the
// files of a release in /root/VERSION. Nothing of this program is installed.
func newPackagedHost(t testing.TB, install map[string]string, offer map[string][]string, versions ...string) *host {
	t.Helper()
	kit, _ := shared(t)
	for _, v := range versions {
		packageRelease(t, v) // takes its time
	}
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	t.Cleanup(cancel)
	h := &host{t: t, ctx: ctx, kit: kit, releases: t.TempDir(), bin: packaged}
	h.Container = kit.Start(ctx, t, rig.Options{})
	h.check(h.InstallStack(ctx, install))
	h.offer(offer)
	for _, v := range versions {
		files, err := filepath.Glob(filepath.Join(packageRelease(t, v), "*"))
		h.check(err)
		for _, f := range files {
			h.check(h.CopyIn(f, "/root/"+v+"/"+filepath.Base(f), 0o644))
		}
	}
	// The image leaves documents out to be small; a host does not.
	h.MustRun(ctx, "sh", "-c", "rm -f /etc/dpkg/dpkg.cfg.d/*mmdebstrap*")
	return h
}

// dpkg runs dpkg and insists on its exit code.
func (h *host) dpkg(code int, args ...string) string {
	h.t.Helper()
	res, err := h.Run(h.ctx, append([]string{"dpkg"}, args...)...)
	h.check(err)
	if res.ExitCode != code {
		h.t.Fatalf("dpkg %v: exit code %d, want %d\n%s", args, res.ExitCode, code, res)
	}
	return res.Stdout + res.Stderr
}

func (h *host) deb(version string) string {
	return "/root/" + version + "/observability-upgrade_" + version + "_" + runtime.GOARCH + ".deb"
}

// bring lays out packages of Debian in the container, which has no network to
// install them from.
func (h *host) bring(names ...string) {
	h.t.Helper()
	dirs, missing, err := rig.DebianPackages(h.ctx, "bookworm", names, nil)
	h.check(err)
	for name, why := range missing {
		h.t.Fatalf("%s: %v", name, why)
	}
	for _, dir := range dirs {
		if out, err := exec.CommandContext(h.ctx, "cp", "-a", dir+"/usr/.", h.Path("/usr")).CombinedOutput(); err != nil {
			h.t.Fatalf("%v\n%s", err, out)
		}
	}
	h.MustRun(h.ctx, "ldconfig")
}

// says runs a shell command of which the output is to be known, without white space
// around it.
func (h *host) says(command string) string {
	h.t.Helper()
	res, err := h.Run(h.ctx, "sh", "-c", command)
	h.check(err)
	return strings.TrimSpace(res.Stdout + res.Stderr)
}

func (h *host) expect(want map[string]string) {
	h.t.Helper()
	for command, w := range want {
		if got := h.says(command); got != w {
			h.t.Errorf("%s: %q, want %q", command, got, w)
		}
	}
}

// waitingPolicy has a run wait, when all is verified and nothing is stopped yet, until
// the test lets it go on.
const waitingPolicy = "upstream: {github: {api_url: \"http://" + releaseAddress + "\"}, cache_ttl: 0s}\n" +
	"hooks: {before: [[/bin/sh, -c, \"touch /run/waits; until test -e /run/go-on; do sleep 0.1; done\"]], timeout: 10m}\n"

// waits starts an apply as a unit of its own, and returns when it waits.
func (h *host) waits(unit string) {
	h.t.Helper()
	h.settle("node_exporter", "1s")
	h.MustRun(h.ctx, "systemd-run", "--quiet", "--unit="+unit, "--property=RemainAfterExit=yes", "--", packaged, "apply", "--yes")
	h.until("the run waits", 2*time.Minute, func() bool {
		res, err := h.Run(h.ctx, "test", "-e", "/run/waits")
		return err == nil && res.ExitCode == 0
	})
}

// slow starts a command as a unit of its own and returns when the component's
// new version runs and is being watched, which takes another while.
func (h *host) slow(unit, component, version string, args ...string) {
	h.t.Helper()
	h.settle(component, "45s")
	h.MustRun(h.ctx, append([]string{"systemd-run", "--quiet", "--unit=" + unit, "--property=RemainAfterExit=yes", "--", packaged}, args...)...)
	h.until(component+" "+version+" is started", 2*time.Minute, func() bool {
		_, body, err := h.Get(h.ctx, build[component])
		return err == nil && regexp.MustCompile(`(?m)^`+component+`_build_info\{.*version="`+regexp.QuoteMeta(version)).Match(body)
	})
}

// The longest test of all. Tests start in the order of their files: started last, it
// would run alone.

// The life of the Debian package: installed, upgraded while a run is at work and
// after one was cut off, removed, and purged.
func TestDebianPackage(t *testing.T) {
	t.Parallel()
	h := newPackagedHost(t, map[string]string{"node_exporter": "1.5"}, map[string][]string{"node_exporter": {"1.9"}}, "0.1.0", "0.2.0")
	h.dpkg(0, "-i", h.deb("0.1.0"))
	units := "cd /usr/lib/systemd/system && systemctl is-enabled observability-upgrade-recover.service observability-upgrade-serve.socket observability-upgrade-serve.service observability-upgrade-check.timer"
	h.expect(map[string]string{
		"observability-upgrade version | cut -d' ' -f2": "0.1.0",
		"readlink /usr/bin/upgrade-rollback":            "observability-upgrade",
		"observability-rollback --help | head -1":       "Go back to a backup point: binaries, configuration and unit files as they were",
		units: "enabled\ndisabled\ndisabled\ndisabled",
		"systemctl is-active observability-upgrade-recover.service": "inactive",
		"systemctl is-system-running":                               "running",
		"id -un observability-upgrade-serve":                        "observability-upgrade-serve",
		"stat -c '%a %U %n' /var/lib/observability /var/cache/observability /var/backups/observability /etc/observability /etc/observability/secrets": "755 root /var/lib/observability\n755 root /var/cache/observability\n700 root /var/backups/observability\n755 root /etc/observability\n700 root /etc/observability/secrets",
		"dpkg-query -W -f '${Conffiles}' observability-upgrade | cut -d' ' -f2":                                                                       "/etc/observability/upgrade-policy.yaml",
		"systemd-analyze verify --man=no /usr/lib/systemd/system/observability-upgrade-*":                                                             "",
		"dpkg --verify observability-upgrade":                                                                         "",
		"observability-upgrade config validate >/dev/null":                                                            "",
		"zcat /usr/share/man/man1/observability-upgrade-apply.1.gz | grep -c '^.SH EXIT STATUS'":                      "1",
		"zcat /usr/share/man/man1/upgrade-rollback.1.gz | grep -c '^.TH'":                                             "1",
		"bash -n /usr/share/bash-completion/completions/upgrade-rollback":                                             "",
		"ls /usr/share/zsh/vendor-completions /usr/share/fish/vendor_completions.d | grep -c observability-upgrade":   "2",
		"find /usr/local -name '*observability*'":                                                                     "",
		"observability-upgrade __complete components show node_exp 2>/dev/null | cut -f1 | grep -c '^node_exporter$'": "1",
	})
	// What it asks is of the release server here; the policy is a person's from now on.
	h.file("/etc/observability/upgrade-policy.yaml", waitingPolicy)
	h.upgrade(0, "adopt", "--yes")
	h.MustRun(h.ctx, "systemctl", "enable", "--quiet", "--now", "observability-upgrade-serve.socket")
	h.shows("/", "node_exporter")
	page := h.says("systemctl show -P MainPID observability-upgrade-serve.service")

	// The package is upgraded while a run is about to stop the first service: all it
	// does then, it does by a program that is no longer there.
	h.waits("byhand")
	at := h.says("systemctl show -P MainPID byhand.service")
	if out := h.dpkg(1, "-r", "observability-upgrade"); !strings.Contains(out, "is not removed") || !strings.Contains(out, "process "+at) {
		t.Errorf("a removal in a run is not refused as it should be:\n%s", out)
	}
	h.dpkg(0, "-i", "--force-confold", h.deb("0.2.0"))
	h.expect(map[string]string{
		"observability-upgrade version | cut -d' ' -f2":                         "0.2.0",
		"readlink /proc/" + at + "/exe":                                         packaged + " (deleted)",
		"dpkg-query -W -f '${Status}' observability-upgrade":                    "install ok installed",
		"grep -c " + releaseAddress + " /etc/observability/upgrade-policy.yaml": "1",
		"systemctl is-enabled observability-upgrade-serve.socket":               "enabled",
	})
	if now := h.says("systemctl show -P MainPID observability-upgrade-serve.service"); now == page || now == "0" {
		t.Errorf("the page is still of the old program: process %s, then %s", page, now)
	}
	h.MustRun(h.ctx, "touch", "/run/go-on")
	h.until("the run's end", 2*time.Minute, func() bool { return h.says("systemctl show -P SubState byhand.service") == "exited" })
	h.expect(map[string]string{"systemctl show -P ExecMainStatus byhand.service": "0"})
	if got := h.agrees("node_exporter"); line(got) != "1.9" {
		t.Fatalf("node_exporter is at %s\n%s", got, h.says("journalctl -u byhand --no-pager"))
	}

	// The next version finishes what the one before was killed at.
	h.dpkg(0, "-i", "--force-confold", h.deb("0.1.0"))
	h.slow("killed", "node_exporter", "1.5", "rollback", "--previous", "--yes")
	h.MustRun(h.ctx, "systemctl", "kill", "-s", "KILL", "killed.service")
	h.dpkg(0, "-i", "--force-confold", h.deb("0.2.0"))
	h.settle("node_exporter", "1s")
	var st status
	h.document(&st, 0, "status")
	if st.Interrupted == nil {
		t.Error("the upgrade of the package began the recovery")
	}
	h.upgrade(0, "recover")
	if got := h.agrees("node_exporter"); line(got) != "1.9" {
		t.Errorf("node_exporter is at %s after the recovery", got)
	}

	// Unattended runs start the packaged program; no unit is put before the package's.
	h.upgrade(0, "auto-enable", "--policy=patch_only")
	h.expect(map[string]string{
		"grep -c ExecStart=" + packaged + " /etc/systemd/system/observability-upgrade.service":          "1",
		"ls /etc/systemd/system | grep observability-upgrade":                                           "observability-upgrade.service\nobservability-upgrade.timer",
		"readlink -f /etc/systemd/system/multi-user.target.wants/observability-upgrade-recover.service": "/usr/lib/systemd/system/observability-upgrade-recover.service",
		"systemctl is-active observability-upgrade.timer observability-upgrade-serve.socket":            "active\nactive",
	})

	// Removal ends what runs by itself, finishes what was cut off, and keeps what
	// was recorded.
	h.slow("killed2", "node_exporter", "1.5", "rollback", "--previous", "--yes")
	h.MustRun(h.ctx, "systemctl", "kill", "-s", "KILL", "killed2.service")
	h.settle("node_exporter", "1s")
	h.dpkg(0, "-r", "observability-upgrade")
	h.expect(map[string]string{
		"systemctl is-active observability-upgrade.timer observability-upgrade-serve.socket observability-upgrade-serve.service": "inactive\ninactive\ninactive",
		"ls /var/lib/observability/journal":                                      "",
		"find /usr -name '*observability*'":                                      "",
		"ls /etc/observability":                                                  "components.d\nupgrade-policy.yaml",
		"test -s /var/lib/observability/versions.state && echo kept":             "kept",
		"systemctl --failed --plain --no-legend | grep '^observability-upgrade'": "",
	})
	h.check(h.WaitHTTP(h.ctx, build["node_exporter"], nil))
	if got := h.running("node_exporter"); line(got) != "1.9" || h.installed("node_exporter") != got {
		t.Errorf("node_exporter runs as %s and is %s", got, h.installed("node_exporter"))
	}
	h.dpkg(0, "-i", "--force-confold", h.deb("0.2.0"))
	if got := h.agrees("node_exporter"); line(got) != "1.9" {
		t.Errorf("installed again, it knows node_exporter at %s", got)
	}

	h.MustRun(h.ctx, "systemctl", "reset-failed") // those killed above
	h.file("/etc/observability/keys/mine.pub", "a key")
	out := h.dpkg(0, "--purge", "observability-upgrade")
	if !strings.Contains(out, "backup points are kept in /var/backups/observability") {
		t.Errorf("it does not say what it keeps:\n%s", out)
	}
	h.expect(map[string]string{
		"find /etc /usr /var /tmp -name '*observability*' -not -path '/var/log/journal/*' -not -path '/tmp/systemd*' -not -path '/var/tmp/systemd*' | sort": "/etc/observability\n/var/backups/observability",
		"find /etc/observability -type f":                      "/etc/observability/keys/mine.pub",
		"ls /var/backups/observability | wc -l | grep -v '^0'": h.says("ls /var/backups/observability | wc -l"),
		"systemctl is-system-running":                          "running",
	})
	h.dpkg(0, "-i", h.deb("0.2.0"))
	h.upgrade(0, "status")
}

// chapters are the shell blocks of a page, by their headings, in order.
func chapters(t testing.TB, page string) (headings []string, scripts map[string]string) {
	t.Helper()
	text, err := os.ReadFile("../../docs/" + page)
	if err != nil {
		t.Fatal(err)
	}
	scripts = map[string]string{}
	heading := ""
	for _, m := range regexp.MustCompile("(?ms)^## ([^\n]+)$|^```sh\n(.*?)^```$").FindAllStringSubmatch(string(text), -1) {
		if m[1] != "" {
			heading = m[1]
			continue
		}
		if _, ok := scripts[heading]; !ok {
			headings = append(headings, heading)
		}
		scripts[heading] += m[2]
	}
	return headings, scripts
}

// typed runs a block word for word in a directory, as somebody at a terminal who
// says yes when asked. That the releases are asked for at the rig's server is the
// one thing that is not in the documents.
func (h *host) typed(dir, block string) string {
	h.t.Helper()
	h.file("/root/block.sh", block)
	res, err := h.Run(h.ctx, "env", "OBSERVABILITY_UPGRADE_GITHUB_API_URL=http://"+releaseAddress, "TERM=dumb",
		"sh", "-c", "cd "+dir+" && yes y | head -n 20 | script -qec 'sh -e /root/block.sh' /dev/null")
	h.check(err)
	if res.ExitCode != 0 {
		h.t.Fatalf("exit code %d of\n%s\n%s", res.ExitCode, block, res)
	}
	h.t.Logf("%s\n%s", block, res.Stdout)
	return res.Stdout
}

// A person with a fresh host installs the Debian package and does the first upgrade
// by what the documents say, word for word.
func TestDocumentedFirstUpgrade(t *testing.T) {
	t.Parallel()
	h := newPackagedHost(t, old, newer, "0.1.0")
	h.bring("minisign", "libsodium23")
	h.file("/root/0.1.0/minisign.pub", releases.public)
	h.waitSamples()

	_, install := chapters(t, "install.md")
	if out := h.typed("/root/0.1.0", install["Verify what you downloaded"]); !strings.Contains(out, "Signature and comment signature verified") || !strings.Contains(out, "amd64.deb: OK") && !strings.Contains(out, "arm64.deb: OK") {
		t.Errorf("%s", out)
	}
	if out := h.typed("/root/0.1.0", install["Debian and Ubuntu"]); !strings.Contains(out, "observability-upgrade 0.1.0 ") || !strings.Contains(out, "\nenabled") {
		t.Errorf("%s", out)
	}
	headings, first := chapters(t, "first-upgrade.md")
	if len(headings) != 6 {
		t.Fatalf("what is new in docs/first-upgrade.md? %q", headings)
	}
	for i, heading := range headings {
		out := h.typed("/root", first[heading])
		switch i + 1 {
		case 1: // adopt
			if s := h.state(); len(s.Components) != 3 {
				t.Errorf("adopted: %+v", s)
			}
		case 2: // check
			if !strings.Contains(out, h.release("prometheus", "2.53").Version) {
				t.Errorf("%s does not show the newer Prometheus:\n%s", heading, out)
			}
		case 3: // plan
			if !strings.Contains(out, "Exporters") || h.says("ls /var/backups/observability") != "" {
				t.Errorf("%s:\n%s", heading, out)
			}
		case 4: // apply
			for component, lines := range newer {
				if got := h.agrees(component); got != h.release(component, lines[0]).Version {
					t.Errorf("%s is at %s", component, got)
				}
			}
		case 5: // status, history, verify
			if strings.Count(out, "success") < 3 {
				t.Errorf("%s:\n%s", heading, out)
			}
		case 6: // the way back
			for component, was := range old {
				if got := h.agrees(component); line(got) != was {
					t.Errorf("%s is at %s", component, got)
				}
			}
		}
	}
}
