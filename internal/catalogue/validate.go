package catalogue

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/yamlfile"
)

var (
	namePattern   = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]*$`)
	unitPattern   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9:_.@{}-]*$`)
	metricPattern = regexp.MustCompile(`^[a-zA-Z_:][a-zA-Z0-9_:]*(\|[a-zA-Z_:][a-zA-Z0-9_:]*)*$`)
	// archs are the architectures Go has for Linux.
	archs = []string{"386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le", "riscv64", "s390x"}
	// signals are those a reload may use; the names go without "SIG".
	signals = []string{"HUP", "USR1", "USR2", "WINCH", "INT", "TERM", "QUIT", "CONT"}
)

const (
	maxSettle  = 10 * time.Minute
	maxTimeout = 2 * time.Hour
)

// validator checks one definition and notes where each error was written.
type validator struct {
	node *yamlfile.Node
	c    *component.Component
	errs yamlfile.Errors
}

func (v *validator) fail(path []any, format string, args ...any) {
	v.errs = append(v.errs, v.node.Errorf(path, format, args...))
}

func at(path ...any) []any { return path }

func below(path []any, more ...any) []any { return append(slices.Clip(path), more...) }

func (v *validator) all(known map[string]*component.Component) {
	c := v.c
	if !slices.Contains(component.Roles(), c.Role) {
		v.fail(at("role"), "%s; want one of %s", given(string(c.Role)), words(component.Roles()))
	}
	v.source()
	v.artifact()
	v.binaries()
	v.variants()
	v.versionProbe()
	v.signature()
	v.service(at("service"), c.Service)
	v.process(at("process"), &c.Process)
	v.config()
	v.health(at("health"), &c.Health)
	v.reload()
	v.client()
	v.tests(at("functional"), c.Functional, false)
	v.links()
	v.data(at("data"), c.Data)
	v.vulnerabilities()
	v.instances()
	v.balancer()
	for i, d := range c.DependsOn {
		if known[d] == nil {
			hint := ""
			if near := yamlfile.Nearest(d, slices.Sorted(maps.Keys(known))); near != "" {
				hint = fmt.Sprintf("; did you mean %q?", near)
			}
			v.fail(at("depends_on", i), "unknown component %q%s", d, hint)
		}
	}
}

func (v *validator) source() {
	s := v.c.Source
	need := func(field, value, what string) {
		if value == "" {
			v.fail(at("source"), "a %s source needs %s: %s", s.Type, field, what)
		}
	}
	switch s.Type {
	case component.SourceGitHub:
		need("repo", s.Repo, "OWNER/NAME")
		if owner, name, ok := strings.Cut(s.Repo, "/"); s.Repo != "" && (!ok || owner == "" || name == "" || strings.ContainsAny(s.Repo, " :?#%") || strings.Contains(name, "/")) {
			v.fail(at("source", "repo"), "%q: want OWNER/NAME", s.Repo)
		}
	case component.SourceGitLab:
		need("repo", s.Repo, "the project's path or number")
	case component.SourceGrafana:
		need("repo", s.Repo, "the product, such as grafana")
	case component.SourceDirectory:
		need("path", s.Path, "the directory that holds VERSION/ASSET")
		if s.Path != "" {
			v.absolute(at("source", "path"), strings.TrimPrefix(s.Path, "{root}"))
		}
	case component.SourceHTTP:
		need("url", s.URL, "the address below which VERSION/ASSET lie")
		v.url(at("source", "url"), s.URL)
	case component.SourcePackage:
		need("repo", s.Repo, "the package's name")
	default:
		v.fail(at("source", "type"), "%s; want one of github, gitlab, grafana, directory, http, package", given(string(s.Type)))
	}
	if s.Tag != "" {
		v.placeholders(at("source", "tag"), s.Tag)
		if strings.Count(s.Tag, "{version}") != 1 {
			v.fail(at("source", "tag"), "%q: want a form with {version} once, such as \"v{version}\"", s.Tag)
		}
	}
}

// swapped reports whether the definition is one of files that are replaced.
func (v *validator) swapped() bool { return v.c.Source.Type != component.SourcePackage }

func (v *validator) artifact() {
	c := v.c
	if !v.swapped() {
		if c.Asset != "" || len(c.Binaries) > 0 {
			v.fail(at("source", "type"), "a package source is upgraded by the package manager; asset and binaries do not belong to it (asset: null, binaries: null removes them)")
		}
		return
	}
	if c.Asset == "" {
		v.fail(nil, "asset is not given: the name of the file to download, such as \"%s-{version}.{os}-{arch}.tar.gz\"", c.Name)
	}
	v.fileName(at("asset"), c.Asset)
	v.fileName(at("checksums"), c.Checksums)
	v.arches(at("arches"), c.Arches)
}

func (v *validator) binaries() {
	if !v.swapped() {
		return
	}
	if len(v.c.Binaries) == 0 {
		v.fail(nil, "binaries is not given: a list of {name, path, install}")
	}
	names, installs := map[string]int{}, map[string]int{}
	for i, b := range v.c.Binaries {
		p := at("binaries", i)
		switch first, twice := names[b.Name]; {
		case b.Name == "":
			v.fail(p, "name is not given")
		case strings.ContainsAny(b.Name, "/{} ") || b.Name == "." || b.Name == "..":
			v.fail(below(p, "name"), "%q: want a plain file name", b.Name)
		case twice:
			v.fail(below(p, "name"), "%q is the name of binary %d too", b.Name, first+1)
		default:
			names[b.Name] = i
		}
		v.insideArchive(below(p, "path"), b.Path)
		if b.Tree && b.Path == "" {
			v.fail(p, "a tree needs path: the directory inside the archive, or \"*\" for its only top directory")
		}
		if b.Install == "" {
			v.fail(p, "install is not given: where the file belongs, such as /usr/local/bin/%s", b.Name)
			continue
		}
		v.placeholders(below(p, "install"), b.Install)
		v.absolute(below(p, "install"), b.Install)
		if strings.Contains(b.Install, "{version}") || strings.Contains(b.Install, "{tag}") {
			v.fail(below(p, "install"), "%q: the place must not change with the version", b.Install)
		}
		if first, twice := installs[b.Install]; twice {
			v.fail(below(p, "install"), "%q is where binary %d is installed", b.Install, first+1)
		}
		installs[b.Install] = i
	}
}

func (v *validator) versionProbe() {
	p := v.c.Version
	if !v.swapped() {
		return
	}
	if len(p.Args) == 0 {
		v.fail(at("version"), "args is not given: how the binary is asked for its version, such as [\"--version\"]")
	}
	if p.Regexp == "" {
		v.fail(at("version"), `regexp is not given: what finds the version in the answer, such as 'version (\S+)'`)
	} else if re, err := regexp.Compile(p.Regexp); err != nil {
		v.fail(at("version", "regexp"), "%v", err)
	} else if re.NumSubexp() < 1 {
		v.fail(at("version", "regexp"), "%q has no group; put the version in ( )", p.Regexp)
	}
	main, ok := v.c.MainBinary()
	switch {
	case len(v.c.Binaries) == 0:
	case !ok && p.Binary != "":
		v.fail(at("version", "binary"), "%q is none of the binaries", p.Binary)
	case !ok:
		v.fail(at("version"), "all binaries are trees; name one as binary, and the executable inside it as path")
	case main.Tree && p.Path == "":
		v.fail(at("version"), "%s is a tree; give path, the executable inside it", main.Name)
	case !main.Tree && p.Path != "":
		v.fail(at("version", "path"), "%s is not a tree; leave path out", main.Name)
	}
	if strings.HasPrefix(p.Path, "/") || slices.Contains(strings.Split(p.Path, "/"), "..") {
		v.fail(at("version", "path"), "%q: want a path inside the tree", p.Path)
	}
}

func (v *validator) config() {
	for i, p := range v.c.Config.Paths {
		v.absolute(at("config", "paths", i), p)
	}
	for i, cmd := range v.c.Config.Check {
		v.command(at("config", "check", i), cmd)
	}
}

func (v *validator) reload() {
	r := v.c.Reload
	v.url(at("reload", "http"), r.HTTP)
	if r.Service && (r.HTTP != "" || r.Signal != "") {
		v.fail(at("reload"), "give either service, or http and signal, of which http is tried first")
	}
	if r.Confirm != nil {
		v.test(at("reload", "confirm"), *r.Confirm, false)
	}
	if r.Signal != "" && !slices.Contains(signals, strings.TrimPrefix(r.Signal, "SIG")) {
		v.fail(at("reload", "signal"), "unknown signal %q; want one of %s", r.Signal, strings.Join(signals, ", "))
	}
}
