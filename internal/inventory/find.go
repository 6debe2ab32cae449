// Package inventory finds what is installed on this host: binaries, their
// versions, the units that run them, and whether a package owns them. It trusts
// the disk and the service manager over the state file.
package inventory

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/service"
	"github.com/observability-upgrade/observability-upgrade/internal/state"
)

// Installed is one component found on the host.
type Installed struct {
	Component *component.Component
	Version   component.Version // zero when it could not be read; see Problem
	Path      string            // main binary, links resolved
	Binaries  map[string]string // name -> path, for those that are there
	Service   service.Service
	Status    service.Status
	RunsPath  bool   // the unit starts Path
	Owner     string // package that owns the binary; "" for none
	Known     bool   // recorded in the state file
	Drift     string // how the disk differs from the state file; "" when it does not
	Problem   string // why its version is unknown, or why it cannot be upgraded

	// Untold is why its binary, which is there, told no version; nil when it did.
	Untold error

	// Gone is where its main binary should be, of a component that the state file
	// knows and whose binary is not there; Path and Version are empty then. What ran
	// from it may run on, and must not be stopped: nothing could start it again.
	Gone string

	// Unlisted is why its instances could not be looked up; "" when they could. What
	// is said of the component then is what is so of its plain service, which is not
	// what runs: it must not be stopped, started or judged by it.
	Unlisted string

	// Instance, Server and Exec are those of one of several instances; see
	// component.Instance. One with Exec is on another host: nothing more is known.
	Instance string
	Server   string
	Exec     []string
	// Copies are the instances, two or more, in the order they are upgraded in. What
	// is said of the component itself is then what is so of the first one here.
	Copies []*Installed
	// Listed are the names of all instances that it is declared or found to have,
	// wherever they are, also where that is one.
	Listed []string
}

// Set names the component, or the one instance of it.
func (in *Installed) Set() string { return component.SetName(in.Component.Name, in.Instance) }

// Remote reports whether it is an instance on another host.
func (in *Installed) Remote() bool { return len(in.Exec) > 0 }

// Local lists what runs on this host: the component itself, or those of its
// instances that are here; nothing where these are not known.
func (in *Installed) Local() []*Installed {
	if in.Unlisted != "" {
		return nil
	}
	if len(in.Copies) == 0 {
		return []*Installed{in}
	}
	var out []*Installed
	for _, one := range in.Copies {
		if !one.Remote() {
			out = append(out, one)
		}
	}
	return out
}

// Services is what the inventory asks of the service manager.
type Services interface {
	// Status tells the state of a unit; a missing one is not an error.
	Status(ctx context.Context, s service.Service) (service.Status, error)
}

// Finder looks for components. It is safe for concurrent use.
type Finder struct {
	Root     layout.Root
	Services Services
	// Probe asks an executable for its version.
	Probe func(ctx context.Context, path string, v component.VersionProbe) (component.Version, error)
	// Owners maps each path that a package owns to that package; nil asks dpkg
	// and rpm where they are there.
	Owners func(ctx context.Context, root layout.Root, paths []string) (map[string]string, error)
	// Instances lists a component's instances; nil takes them from its definition,
	// where they are listed.
	Instances func(ctx context.Context, c *component.Component) ([]component.Instance, error)
	Logger    *slog.Logger
}

// ServiceOf is the unit or command line that runs a component, or an instance of
// it.
func ServiceOf(c *component.Component, root layout.Root, instance string) service.Service {
	vars := component.Vars{Name: c.Name, Root: root.Prefix(), OS: runtime.GOOS, Arch: runtime.GOARCH, Instance: instance}
	s := service.Service{Name: c.Name, Unit: vars.Expand(c.Unit()), Dir: vars.Expand(c.Process.Dir)}
	if instance != "" {
		s.Name += "@" + instance
	}
	s.Command = vars.ExpandAll(c.Process.Command)
	s.Env = vars.ExpandAll(c.Process.Env)
	return s
}

// Find looks for each component and returns those that are installed, in the
// given order. known is what the state file holds of them; it may be nil.
func (f *Finder) Find(ctx context.Context, comps []*component.Component, known map[string]state.Component) ([]*Installed, error) {
	found := make([]*Installed, len(comps))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for i, c := range comps {
		g.Go(func() error {
			k, isKnown := known[c.Name]
			in, err := f.find(gctx, c, k)
			if err != nil {
				return fmt.Errorf("%s: %w", c.Name, err)
			}
			if in != nil {
				in.Known = isKnown && k.CurrentVersion != ""
				found[i] = in
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var out []*Installed
	var paths []string
	for _, in := range found {
		if in != nil {
			out = append(out, in)
			if in.Path != "" {
				paths = append(paths, in.Path)
			}
		}
	}
	return out, f.setOwners(ctx, out, paths)
}

func (f *Finder) setOwners(ctx context.Context, found []*Installed, paths []string) error {
	ask := f.Owners
	if ask == nil {
		ask = PackageOwners
	}
	owners, err := ask(ctx, f.Root, paths)
	if err != nil {
		return err
	}
	for _, in := range found {
		in.Owner = owners[in.Path]
	}
	return nil
}

// find looks for a component, and for each of its instances where it has some.
func (f *Finder) find(ctx context.Context, c *component.Component, known state.Component) (*Installed, error) {
	if c.Instances.IsZero() {
		return f.one(ctx, c, "", known)
	}
	list, err := f.instances(ctx, c)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		return f.unlisted(ctx, c, known, err)
	case len(list) == 0:
		return f.one(ctx, c, "", known)
	}
	return f.several(ctx, c, list, known)
}

// unlisted is a component whose instances cannot be looked up. One of which nothing
// is here, nor was by the state file, is not this host's.
func (f *Finder) unlisted(ctx context.Context, c *component.Component, known state.Component, why error) (*Installed, error) {
	in, err := f.one(ctx, c, "", known)
	if err != nil {
		return nil, err
	}
	if in == nil && known.CurrentVersion == "" {
		f.Logger.Warn("the instances of a component are not known", "component", c.Name, "error", why)
		return nil, nil
	}
	if in == nil {
		in = &Installed{Component: c, Service: ServiceOf(c, f.Root, ""), Binaries: map[string]string{}}
	}
	in.Unlisted = why.Error()
	in.Problem = "its instances are not known: " + in.Unlisted
	return in, nil
}

func (f *Finder) instances(ctx context.Context, c *component.Component) ([]component.Instance, error) {
	if f.Instances != nil {
		return f.Instances(ctx, c)
	}
	return c.Instances.List, nil
}

// several finds the instances of a component. They share its files: one set of
// them is swapped, and the instances are restarted one at a time.
func (f *Finder) several(ctx context.Context, c *component.Component, list []component.Instance, known state.Component) (*Installed, error) {
	var copies []*Installed
	var first *Installed
	problem := ""
	for _, i := range list {
		own := c.Of(i)
		if len(i.Exec) > 0 {
			vars := component.Vars{Name: c.Name, Instance: i.Name, Root: f.Root.Prefix()}
			copies = append(copies, &Installed{Component: own, Instance: i.Name, Server: i.Server, Exec: vars.ExpandAll(i.Exec)})
			continue
		}
		in, err := f.one(ctx, own, i.Name, known)
		if err != nil {
			return nil, err
		}
		if in == nil {
			problem = fmt.Sprintf("its instance %s is not installed here", i.Name)
			continue
		}
		in.Instance, in.Server = i.Name, i.Server
		copies = append(copies, in)
		switch {
		case !in.Status.Exists && problem == "":
			problem = fmt.Sprintf("its instance %s has no service: expected %s, found none", i.Name, in.Service.Label())
		case first != nil && first.Path != in.Path && problem == "":
			problem = fmt.Sprintf("its instances start different files: %s starts %s, %s starts %s; describe them as components of their own", first.Instance, first.Path, in.Instance, in.Path)
		}
		if first == nil {
			first = in
		}
	}
	if first == nil {
		f.Logger.Warn("no instance of a component is on this host", "component", c.Name)
		return nil, nil
	}
	whole := *first
	whole.Instance, whole.Server = "", ""
	for _, i := range list {
		whole.Listed = append(whole.Listed, i.Name)
	}
	if problem != "" && whole.Gone == "" {
		whole.Problem = problem
	}
	if len(list) > 1 {
		whole.Component, whole.Copies = c, copies
	}
	return &whole, nil
}

// one finds a component, or one instance of it, on this host.
func (f *Finder) one(ctx context.Context, c *component.Component, instance string, known state.Component) (*Installed, error) {
	in := &Installed{Component: c, Service: ServiceOf(c, f.Root, instance), Binaries: map[string]string{}}
	var err error
	if in.Status, err = f.Services.Status(ctx, in.Service); err != nil {
		return nil, err
	}
	main, ok := c.MainBinary()
	if !ok {
		// Nothing to swap (a distribution package): it is there when its unit is.
		if !in.Status.Exists {
			return nil, nil
		}
		in.Problem = "managed by the distribution's package manager"
		return in, nil
	}
	in.Path = f.mainPath(c, main, in.Status, known)
	if in.Path == "" {
		if known.CurrentVersion == "" {
			return nil, nil
		}
		in.Gone = cmp.Or(known.BinaryPath, f.Root.Path(expand(c, main.Install)))
		in.Problem = fmt.Sprintf("binary missing: %s; the state file says %s", in.Gone, known.CurrentVersion)
		return in, nil
	}
	in.RunsPath = startsPath(in.Status, in.Path)
	f.otherPaths(c, main, in, known)
	probe := c.Version
	in.Version, err = f.Probe(ctx, in.Path, probe)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		in.Problem, in.Untold = err.Error(), err
	}
	if known.CurrentVersion != "" && !in.Version.IsZero() && known.CurrentVersion != in.Version.String() {
		in.Drift = fmt.Sprintf("the state file says %s, the binary says %s: it was changed by other means", known.CurrentVersion, in.Version)
	}
	return in, nil
}

// startsPath reports whether the unit starts the file at path. What runs now may be
// another: one that was moved away, and goes on running from there.
func startsPath(st service.Status, path string) bool {
	if st.ExecPath == path {
		return path != ""
	}
	if len(st.ExecStart) == 0 || path == "" {
		return false
	}
	real, err := filepath.EvalSymlinks(st.ExecStart[0])
	return err == nil && real == path
}

// mainPath is where the component's main binary is: where its unit starts it
// from, or where the state file or the definition says; "" when it is not
// installed.
func (f *Finder) mainPath(c *component.Component, main component.Binary, st service.Status, known state.Component) string {
	var candidates []string
	if !main.Tree && st.Exists && len(st.ExecStart) > 0 && filepath.IsAbs(st.ExecStart[0]) {
		candidates = append(candidates, st.ExecStart[0])
	}
	if known.BinaryPath != "" {
		candidates = append(candidates, known.BinaryPath)
	}
	candidates = append(candidates, f.Root.Path(expand(c, main.Install)))
	for i, p := range candidates {
		real, err := filepath.EvalSymlinks(p)
		if err != nil {
			continue
		}
		if info, err := os.Stat(real); err != nil || !info.Mode().IsRegular() && !main.Tree {
			continue
		}
		// A unit may start a wrapper (env, a shell): then what it starts first is
		// not the component.
		if i == 0 && !main.Tree && len(candidates) > 1 && filepath.Base(p) != filepath.Base(main.Install) && filepath.Base(p) != main.Name && isWrapper(p) {
			continue
		}
		return real
	}
	return ""
}

func isWrapper(path string) bool {
	switch filepath.Base(path) {
	case "env", "sh", "bash", "dash", "nice", "ionice", "setpriv", "chroot", "taskset", "numactl", "python3", "perl":
		return true
	}
	return false
}

// otherPaths fills in every binary that is there: those beside the main one
// first, then where the definition says. The state file comes last: where links
// lead to a directory per version and a person changed them, it names the old one.
func (f *Finder) otherPaths(c *component.Component, main component.Binary, in *Installed, known state.Component) {
	for _, b := range c.Binaries {
		if b.Name == main.Name {
			in.Binaries[b.Name] = in.Path
			continue
		}
		install := f.Root.Path(expand(c, b.Install))
		for _, p := range []string{filepath.Join(filepath.Dir(in.Path), filepath.Base(install)), install, known.Binaries[b.Name]} {
			if p == "" {
				continue
			}
			if real, err := filepath.EvalSymlinks(p); err == nil {
				in.Binaries[b.Name] = real
				break
			}
		}
	}
}

func expand(c *component.Component, s string) string {
	return component.Vars{Name: c.Name, OS: runtime.GOOS, Arch: runtime.GOARCH}.Expand(s)
}
