package main

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// inspect looks at a release of 1.2.3 for amd64 with the tools that will have to
// do with it.
func inspect(t *testing.T, dir string) {
	t.Helper()
	base := filepath.Join(dir, name+"-1.2.3.linux-amd64")
	output := func(args ...string) string {
		t.Helper()
		if _, err := exec.LookPath(args[0]); err != nil {
			t.Logf("as root: apt-get install %s", args[0])
			return ""
		}
		out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput()
		if err != nil {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	has := func(what, in string, want ...string) {
		t.Helper()
		for _, w := range want {
			if in != "" && !strings.Contains(in, w) {
				t.Errorf("%s has no %q:\n%s", what, w, in)
			}
		}
	}

	top := t.TempDir()
	output("tar", "-xzf", base+".tar.gz", "-C", top)
	top = filepath.Join(top, filepath.Base(base))
	program := filepath.Join(top, name)
	has("the program", output(program, "version", "--output=json"), `"version": "1.2.3"`, `"date": "2024-12-27T03:10:00Z"`)
	has("ldd", output("sh", "-c", "ldd "+program+" 2>&1 || true"), "not a dynamic executable")
	installs(t, top)

	// The bill names what is in the binary, each with a licence.
	var bill struct {
		SerialNumber string
		Components   []struct {
			Name, Version string
			Licenses      []any
		}
	}
	data, err := os.ReadFile(base + ".cdx.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &bill); err != nil {
		t.Fatal(err)
	}
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]string{}
	for _, c := range bill.Components {
		if named[c.Name] = c.Version; len(c.Licenses) == 0 {
			t.Errorf("%s has no licence", c.Name)
		}
	}
	for _, m := range info.Deps {
		if named[m.Path] != m.Version {
			t.Errorf("the bill has %s %q, the binary %s", m.Path, named[m.Path], m.Version)
		}
	}
	if len(named) != len(info.Deps)+1 || named["std"] != info.GoVersion || bill.SerialNumber != "" {
		t.Errorf("%d in the bill, %d in the binary; std %q, serial number %q", len(named), len(info.Deps), named["std"], bill.SerialNumber)
	}
	notices, err := os.ReadFile(filepath.Join(top, "THIRD-PARTY-NOTICES.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range info.Deps {
		if !bytes.Contains(notices, []byte("\n"+m.Path+" "+m.Version+"\n")) {
			t.Errorf("the notices have no %s", m.Path)
		}
	}
	// What only tests and tools need is not in the program.
	for _, m := range []string{"github.com/CycloneDX/cyclonedx-go", "github.com/goreleaser/nfpm/v2", "github.com/chromedp/chromedp", "go.etcd.io/etcd/server/v3"} {
		if named[m] != "" {
			t.Errorf("%s is in the program", m)
		}
	}

	deb := filepath.Join(dir, name+"_1.2.3_amd64.deb")
	has("the Debian package", output("dpkg-deb", "-c", deb), "-rwxr-xr-x root/root", "./usr/bin/observability-rollback -> observability-upgrade", "./usr/lib/systemd/system/observability-upgrade-recover.service", "./usr/share/man/man1/observability-upgrade.1.gz", "drwx------ root/root         0 2024-12-27 03:10 ./etc/observability/secrets/")
	has("its control", output("dpkg-deb", "-f", deb), "Package: observability-upgrade\n", "Version: 1.2.3\n", "Architecture: amd64\n")
	if list := output("dpkg-deb", "-c", deb); strings.Contains(list, "./usr/local") {
		t.Errorf("a package has nothing to do below /usr/local:\n%s", list)
	}
	has("its unit", output("sh", "-c", "dpkg-deb --fsys-tarfile "+deb+" | tar -xO ./usr/lib/systemd/system/observability-upgrade-serve.service"), "ExecStart=/usr/bin/observability-upgrade serve", "ExecPaths=/usr/bin/observability-upgrade")

	rpm := filepath.Join(dir, name+"-1.2.3-1.x86_64.rpm")
	has("the RPM package", output("rpm", "-qp", "--queryformat", "%{NAME} %{VERSION} %{ARCH} %{LICENSE} %{BUILDHOST}", rpm), "observability-upgrade 1.2.3 x86_64 Apache-2.0 localhost")
	has("its files", output("rpm", "-qpl", rpm), "/usr/bin/observability-upgrade\n", "/usr/share/zsh/site-functions/_observability-upgrade", "/usr/share/licenses/observability-upgrade/LICENSE")
	has("its configuration", output("rpm", "-qpc", rpm), "/etc/observability/upgrade-policy.yaml")
	has("its digests", output("rpm", "-K", "--nosignature", rpm), "digests OK")
}

// installs runs the install script of an unpacked archive: what it puts where, a
// second time, with a damaged file, and how it takes all away.
func installs(t *testing.T, top string) {
	t.Helper()
	dest := filepath.Join(t.TempDir(), "root")
	script := func(code int, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "sh", append([]string{filepath.Join(top, "install.sh")}, args...)...)
		out, err := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != code {
			t.Errorf("install.sh %v: exit code %d, want %d: %v\n%s", args, got, code, err, out)
		}
		return string(out)
	}
	files := func() string {
		out, err := exec.CommandContext(t.Context(), "sh", "-c", "cd "+dest+" && find . -printf '%p %m %i %l %T@\\n' | sort").CombinedOutput()
		if err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return string(out)
	}
	if out := script(0, "--destdir="+dest); !strings.Contains(out, "observability-upgrade 1.2.3") {
		t.Errorf("%s", out)
	}
	first := files()
	for _, want := range []string{
		"./usr/local/bin/observability-upgrade 755", "./usr/local/bin/upgrade-rollback 777", "./usr/local/lib/systemd/system/observability-upgrade-recover.service 644",
		"./usr/local/share/man/man1/observability-upgrade.1 644", "./usr/local/share/bash-completion/completions/observability-rollback 777", "./etc/observability/secrets 700", "./etc/observability/upgrade-policy.yaml 644",
	} {
		if !strings.Contains(first, want) {
			t.Errorf("it did not install %s:\n%s", want, first)
		}
	}
	script(0, "--destdir="+dest)
	if again := files(); again != first {
		t.Errorf("a second time it changed files:\n%s\n%s", first, again)
	}
	// A file of an older version goes with the next; a policy of a person's stays.
	for path, text := range map[string]string{"usr/local/share/observability-upgrade/installed": "/usr/local/bin/observability-upgrade\n/usr/local/bin/old-name\n", "usr/local/bin/old-name": "", "etc/observability/upgrade-policy.yaml": "on_failure: continue\n"} {
		if err := os.WriteFile(filepath.Join(dest, path), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	script(0, "--destdir="+dest)
	if now := files(); strings.Contains(now, "old-name") {
		t.Errorf("an old file stays:\n%s", now)
	}
	// Elsewhere, units name the program where it is.
	script(0, "--destdir="+dest, "--prefix=/opt/upgrade")
	unit, err := os.ReadFile(filepath.Join(dest, "etc/systemd/system/observability-upgrade-serve.service"))
	if err != nil || !strings.Contains(string(unit), "\nExecStart=/opt/upgrade/bin/observability-upgrade serve") || strings.Contains(string(unit), "/usr/local/bin") {
		t.Errorf("%v\n%s", err, unit)
	}
	script(0, "--destdir="+dest, "--prefix=/opt/upgrade", "--uninstall")
	script(0, "--destdir="+dest, "--uninstall")
	if out := script(0, "--destdir="+dest, "--uninstall"); !strings.Contains(out, "nothing to take away") {
		t.Errorf("%s", out)
	}
	left := files()
	for line := range strings.Lines(left) {
		path, rest, _ := strings.Cut(line, " ")
		if st, err := os.Lstat(filepath.Join(dest, path)); err != nil || !st.IsDir() && !strings.HasPrefix(path, "./etc/observability/") {
			t.Errorf("it left %s %s (%v)", path, rest, err)
		}
	}
	if policy, err := os.ReadFile(filepath.Join(dest, "etc/observability/upgrade-policy.yaml")); err != nil || string(policy) != "on_failure: continue\n" {
		t.Errorf("the policy is %q, %v", policy, err)
	}
	script(2, "--prefix=relative")
	script(2, "--frobnicate")
	script(1, "--destdir="+dest, "--prefix=/x;y")
	damaged := filepath.Join(top, "docs", "install.md")
	if err := os.WriteFile(damaged, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out := script(1, "--destdir="+dest); !strings.Contains(out, "files are not those of the release: docs/install.md: FAILED") {
		t.Errorf("%s", out)
	}
}
