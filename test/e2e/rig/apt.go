package rig

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const baseSuite = "bookworm"

// errNoMirror says that the machine's apt names no Debian mirror.
var errNoMirror = errors.New("no Debian mirror in this machine's apt sources: " +
	"the rig takes its base image and programs from there")

// suite is a Debian suite that programs are taken from.
type suite struct {
	name     string
	base     bool   // the base image's own: its shared files are used
	required bool   // without it the rig cannot do its work
	options  string // for its line in sources.list
}

func suites() []suite {
	return []suite{
		{name: "bullseye", options: "check-valid-until=no"},
		{name: baseSuite, base: true, required: true},
		{name: "trixie", required: true},
		{name: "sid", options: "check-valid-until=no"},
	}
}

// mirror is where this machine gets Debian from. The zero value is none.
type mirror struct{ uri, keyring string }

// findMirror reads the Debian mirror from the machine's own apt sources.
func findMirror(ctx context.Context) (mirror, error) {
	out, err := host(ctx, "apt-get", "indextargets", "--format", "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(ORIGIN)")
	if err != nil {
		return mirror{}, err
	}
	names := []string{"stable", "testing", "unstable", "oldstable"}
	for _, s := range suites() {
		names = append(names, s.name)
	}
	lines := bufio.NewScanner(strings.NewReader(out))
	for lines.Scan() {
		f := strings.Split(lines.Text(), "|")
		if len(f) != 4 || f[2] != "main" || !slices.Contains(names, f[1]) {
			continue
		}
		if f[3] != "" && f[3] != "Debian" && !strings.HasPrefix(f[3], "$(") {
			continue
		}
		m := mirror{uri: strings.TrimSuffix(f[0], "/")}
		const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
		if _, err := os.Stat(keyring); err == nil {
			m.keyring = keyring
		}
		return m, nil
	}
	return mirror{}, errNoMirror
}

// apt is a private apt for one suite: it shares the machine's transport
// settings (proxies), and neither its sources nor its state.
type apt struct {
	dir     string
	options []string
}

func newApt(ctx context.Context, dir string, m mirror, s suite) (*apt, error) {
	for _, sub := range []string{"state", "lists/partial", "cache/archives/partial", "debs"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	options := "target=Packages"
	if m.keyring != "" {
		options += " signed-by=" + m.keyring
	}
	if s.options != "" {
		options += " " + s.options
	}
	line := fmt.Sprintf("deb [%s] %s %s main\n", options, m.uri, s.name)
	files := map[string]string{"sources.list": line, "status": ""}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	a := &apt{dir: dir}
	for key, value := range map[string]string{
		"Dir::Etc::SourceList": dir + "/sources.list", "Dir::Etc::SourceParts": "/dev/null",
		"Dir::Etc::Preferences": "/dev/null", "Dir::Etc::PreferencesParts": "/dev/null",
		"Dir::State": dir + "/state", "Dir::State::Lists": dir + "/lists",
		"Dir::State::status": dir + "/status", "Dir::Cache": dir + "/cache",
		"APT::Sandbox::User": "root", "Acquire::Languages": "none",
		"Acquire::Retries": "3", "Acquire::http::Timeout": "20",
	} {
		a.options = append(a.options, "-o", key+"="+value)
	}
	// By itself apt-get calls a suite that it could not reach a warning.
	_, err := a.run(ctx, dir, "apt-get", "update", "-q", "--error-on=any")
	return a, err
}

func (a *apt) run(ctx context.Context, dir, program string, args ...string) (string, error) {
	all := append([]string{"-C", dir, program}, a.options...)
	return host(ctx, "env", append(all, args...)...)
}

// candidate returns the version that the suite has, or "" when it has none.
func (a *apt) candidate(ctx context.Context, name string) (string, error) {
	out, err := a.run(ctx, a.dir, "apt-cache", "madison", name)
	if err != nil {
		return "", err
	}
	f := strings.Split(out, "|")
	if len(f) < 3 {
		return "", nil
	}
	return strings.TrimSpace(f[1]), nil
}

// extract fetches a package, which apt verifies against the signed index, and
// unpacks it into tree.
func (a *apt) extract(ctx context.Context, name, version, tree string) error {
	debs := filepath.Join(a.dir, "debs")
	if _, err := a.run(ctx, debs, "apt-get", "download", "-q", name+"="+version); err != nil {
		return err
	}
	found, err := filepath.Glob(filepath.Join(debs, name+"_*.deb"))
	if err != nil {
		return err
	}
	if len(found) != 1 {
		return fmt.Errorf("apt-get download %s=%s left %d files, want 1", name, version, len(found))
	}
	if _, err := host(ctx, "dpkg-deb", "-x", found[0], tree); err != nil {
		return err
	}
	return os.Remove(found[0])
}
