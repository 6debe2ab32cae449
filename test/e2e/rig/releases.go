package rig

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// Release is one version of one component as its makers would publish it.
type Release struct {
	// Component is prometheus, alertmanager or node_exporter.
	Component string
	// Version has upstream's form ("2.42.0"); the program itself prints
	// DebianVersion's form ("2.42.0+ds").
	Version string
	// DebianVersion is the package's version without its Debian revision.
	DebianVersion string
	// Suite is the Debian suite that the program came from.
	Suite string
	// Archive is NAME-VERSION.linux-ARCH.tar.gz with one top directory.
	Archive string
	// Dir is the same, unpacked: the top directory's contents.
	Dir string
}

// Repository is where the component's makers publish it on GitHub.
func (r Release) Repository() string { return "prometheus/" + r.Component }

// Tag is the release's tag on GitHub.
func (r Release) Tag() string { return "v" + r.Version }

// Binaries lists the programs in the archive, the service's own first.
func (r Release) Binaries() []string { return programOf(r.Component).binaries }

// program says how a component is packed by Debian and by its makers.
type program struct {
	component string
	packages  []string // the first is required and gives the version
	binaries  []string // upstream's names
	files     map[string]string
}

// programs are the components that the rig has. The keys of files are paths in
// the packages, the values names in upstream's archive.
func programs() []program {
	return []program{
		{
			component: "prometheus",
			packages:  []string{"prometheus", "promtool"}, // promtool is apart from trixie on
			binaries:  []string{"prometheus", "promtool"},
			files: map[string]string{
				"usr/bin/prometheus": "prometheus", "usr/bin/promtool": "promtool",
				"etc/prometheus/prometheus.yml":      "prometheus.yml",
				"usr/share/doc/prometheus/copyright": "LICENSE", "usr/share/doc/prometheus/NOTICE": "NOTICE",
			},
		},
		{
			component: "alertmanager",
			packages:  []string{"prometheus-alertmanager"},
			binaries:  []string{"alertmanager", "amtool"},
			files: map[string]string{
				"usr/bin/prometheus-alertmanager": "alertmanager", "usr/bin/amtool": "amtool",
				"etc/prometheus/alertmanager.yml":                 "alertmanager.yml",
				"usr/share/doc/prometheus-alertmanager/copyright": "LICENSE",
				"usr/share/doc/prometheus-alertmanager/NOTICE":    "NOTICE",
			},
		},
		{
			component: "node_exporter",
			packages:  []string{"prometheus-node-exporter"},
			binaries:  []string{"node_exporter"},
			files: map[string]string{
				"usr/bin/prometheus-node-exporter":                 "node_exporter",
				"usr/share/doc/prometheus-node-exporter/copyright": "LICENSE",
				"usr/share/doc/prometheus-node-exporter/NOTICE":    "NOTICE",
			},
		},
	}
}

func programOf(component string) program {
	for _, p := range programs() {
		if p.component == component {
			return p
		}
	}
	return program{component: component}
}

// suiteSet is what one suite gave; it is stored beside the archives.
type suiteSet struct {
	Releases []Release
	Shared   string
}

const manifestFile = "manifest.json"

// ensureSuite returns the programs of one suite, fetching and packing them when
// they are not in the cache. The cache's lock must be held.
func ensureSuite(ctx context.Context, cache string, m mirror, s suite, log *slog.Logger) (*suiteSet, error) {
	dir := filepath.Join(cache, suiteName(s))
	if set, err := readSuite(dir); err == nil {
		return set, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if m.uri == "" {
		return nil, errNoMirror
	}
	defer timed(log, "Fetched and packed the programs of a Debian suite.", "suite", s.name)()
	tmp, err := os.MkdirTemp(cache, "tmp-"+s.name+"-*")
	if err != nil {
		return nil, err
	}
	set, err := buildSuite(ctx, tmp, m, s)
	if err != nil {
		// Optional suites may be away: leave nothing of them.
		return nil, errors.Join(err, removeTree(tmp))
	}
	data, err := json.MarshalIndent(set, "", "  ")
	if err != nil {
		return nil, err
	}
	out := filepath.Join(tmp, "out")
	if err := os.WriteFile(filepath.Join(out, manifestFile), data, 0o644); err != nil {
		return nil, err
	}
	if err := finish(out, dir); err != nil {
		return nil, err
	}
	if err := removeTree(tmp); err != nil {
		return nil, err
	}
	return readSuite(dir)
}

func suiteName(s suite) string { return "releases-" + s.name + "-1" }

// cached reports whether everything required is in the cache.
func cached(cache string) bool {
	for _, s := range suites() {
		if _, err := readSuite(filepath.Join(cache, suiteName(s))); err != nil && s.required {
			return false
		}
	}
	return isDir(filepath.Join(cache, imageName()))
}

// readSuite reads a finished suite. Paths in the manifest are relative to dir.
func readSuite(dir string) (*suiteSet, error) {
	data, err := os.ReadFile(filepath.Join(dir, manifestFile))
	if err != nil {
		return nil, err
	}
	set := &suiteSet{}
	if err := json.Unmarshal(data, set); err != nil {
		return nil, fmt.Errorf("read %s/%s (remove the directory to fetch it anew): %w", dir, manifestFile, err)
	}
	set.Shared = filepath.Join(dir, set.Shared)
	for i := range set.Releases {
		r := &set.Releases[i]
		r.Archive, r.Dir = filepath.Join(dir, r.Archive), filepath.Join(dir, r.Dir)
	}
	return set, nil
}

// buildSuite fetches the packages of one suite below tmp and packs them below
// tmp/out, with paths relative to that.
func buildSuite(ctx context.Context, tmp string, m mirror, s suite) (*suiteSet, error) {
	apt, err := newApt(ctx, filepath.Join(tmp, "apt"), m, s)
	if err != nil {
		return nil, err
	}
	out := filepath.Join(tmp, "out")
	set := &suiteSet{Shared: "shared"}
	if err := os.MkdirAll(filepath.Join(out, set.Shared, "usr/share"), 0o755); err != nil {
		return nil, err
	}
	for _, p := range programs() {
		rel, err := packProgram(ctx, apt, p, tmp, out)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.component, err)
		}
		rel.Suite = s.name
		set.Releases = append(set.Releases, rel)
	}
	return set, nil
}

func packProgram(ctx context.Context, apt *apt, p program, tmp, out string) (Release, error) {
	tree := filepath.Join(tmp, "tree-"+p.component)
	full := ""
	for i, name := range p.packages {
		version, err := apt.candidate(ctx, name)
		if err != nil {
			return Release{}, err
		}
		if version == "" && i > 0 {
			continue // still part of the first package in this suite
		}
		if version == "" {
			return Release{}, fmt.Errorf("the suite has no package %s", name)
		}
		if i == 0 {
			full = version
		}
		if err := apt.extract(ctx, name, version, tree); err != nil {
			return Release{}, err
		}
	}
	rel := Release{Component: p.component}
	rel.Version, rel.DebianVersion = upstreamVersion(full)
	top := p.component + "-" + rel.Version + ".linux-" + runtime.GOARCH
	rel.Dir, rel.Archive = filepath.Join("dirs", top), filepath.Join("archives", top+".tar.gz")

	dir := filepath.Join(out, rel.Dir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return rel, err
	}
	for from, to := range p.files {
		err := os.Rename(filepath.Join(tree, from), filepath.Join(dir, to))
		if errors.Is(err, fs.ErrNotExist) && !slices.Contains(p.binaries, to) {
			continue
		}
		if err != nil {
			return rel, fmt.Errorf("package %s %s: %w", p.packages[0], full, err)
		}
	}
	share := filepath.Join(tree, "usr/share/prometheus")
	if isDir(share) {
		if _, err := host(ctx, "cp", "-a", share, filepath.Join(out, "shared/usr/share/")); err != nil {
			return rel, err
		}
	}
	if err := os.MkdirAll(filepath.Join(out, "archives"), 0o755); err != nil {
		return rel, err
	}
	return rel, WriteArchive(filepath.Join(out, rel.Archive), top, dir)
}

// upstreamVersion takes "2.42.0+ds-5+deb12u1" apart into "2.42.0" and
// "2.42.0+ds".
func upstreamVersion(full string) (upstream, debian string) {
	if _, rest, ok := strings.Cut(full, ":"); ok {
		full = rest
	}
	debian = full
	if i := strings.LastIndexByte(full, '-'); i > 0 {
		debian = full[:i]
	}
	upstream = debian
	if i := strings.IndexAny(debian, "+~"); i > 0 {
		upstream = debian[:i]
	}
	return upstream, debian
}

// Release returns the newest release of a component whose version is line, or
// begins with line and a dot. An empty line takes the newest of all.
func (k *Kit) Release(component, line string) (Release, error) {
	for i := len(k.Releases) - 1; i >= 0; i-- {
		r := k.Releases[i]
		if r.Component == component && (line == "" || r.Version == line || strings.HasPrefix(r.Version, line+".")) {
			return r, nil
		}
	}
	var have []string
	for _, r := range k.Releases {
		if r.Component == component {
			have = append(have, r.Version)
		}
	}
	return Release{}, fmt.Errorf("the rig has no %s %s, only %v (suites away: %v)", component, line, have, k.Missing)
}

// ReleaseDir lays out releases below dest as the release server takes them:
// dest/github/OWNER/REPO/TAG/ARCHIVE. which maps a component to the versions or
// lines ("2.53") wanted. Archives are hard-linked, or copied across devices:
// tests must replace them, never write into them.
func (k *Kit) ReleaseDir(dest string, which map[string][]string) error {
	for component, lines := range which {
		for _, line := range lines {
			r, err := k.Release(component, line)
			if err != nil {
				return err
			}
			dir := filepath.Join(dest, "github", filepath.FromSlash(r.Repository()), r.Tag())
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			to := filepath.Join(dir, filepath.Base(r.Archive))
			if err := os.Link(r.Archive, to); err != nil {
				if err := copyFile(r.Archive, to, 0o644); err != nil {
					return fmt.Errorf("lay out %s: %w", to, err)
				}
			}
		}
	}
	return nil
}

func compareReleases(a, b Release) int {
	if c := cmp.Compare(a.Component, b.Component); c != 0 {
		return c
	}
	return slices.Compare(numbers(a.Version), numbers(b.Version))
}

func numbers(version string) []int {
	var list []int
	for _, w := range strings.Split(version, ".") {
		n, _ := strconv.Atoi(w)
		list = append(list, n)
	}
	return list
}
