package stack

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/history"
	"github.com/observability-upgrade/observability-upgrade/internal/inventory"
	"github.com/observability-upgrade/observability-upgrade/internal/plan"
	"github.com/observability-upgrade/observability-upgrade/internal/state"
	"github.com/observability-upgrade/observability-upgrade/internal/upstream"
)

// View is what is known of the stack at one moment: the planner's input and
// what it was made from.
type View struct {
	Input     plan.Input
	Installed map[string]*inventory.Installed
	Errors    map[string]error // upstreams that could not be asked
	CutOff    string           // tells of a run that was cut off; "" where none was
}

// LookOptions narrow a look.
type LookOptions struct {
	Components []string // empty: all that are installed
	Pins       map[string]component.Version
	Target     plan.Target
	Refresh    bool
	Force      bool
	Auto       bool   // an unattended run
	Begin      bool   // the run is to begin now: maintenance windows bind it where it is unattended
	DataBackup bool   // --backup-data: keep a copy of the data of all that is upgraded
	Policy     string // of an unattended run, in place of auto_upgrade.default_policy; may be empty
}

// Look finds what is installed and asks upstream for releases. When not one
// upstream could be asked the error is UpstreamUnknownError.
func (s *Stack) Look(ctx context.Context, o LookOptions) (*View, error) {
	comps, err := s.Components(o.Components)
	if err != nil {
		return nil, err
	}
	st, err := s.State()
	if err != nil {
		return nil, err
	}
	s.upstream = s.ask(o.Refresh)
	defer s.upstream.Begin(ctx, onRecord(comps, st))()
	// Rules speak of components that were not named too, so all are looked for.
	found, err := s.Inventory(ctx, s.Catalogue.All())
	if err != nil {
		return nil, err
	}
	s.neighbours = found
	v := &View{Installed: map[string]*inventory.Installed{}, Errors: map[string]error{}}
	unsettled, cutOff := s.unsettled()
	if v.CutOff = cutOff; cutOff != "" {
		s.Notice(cutOff + "; next: observability-upgrade recover")
	}
	for _, in := range found {
		v.Installed[in.Component.Name] = in
		if in.Drift != "" && !unsettled(in.Component.Name) {
			s.Notice(in.Component.Name + ": " + in.Drift)
		}
		if declared, ok := s.Catalogue.Get(in.Component.Name); ok {
			s.loneNotice(declared, in)
		}
	}
	for _, name := range o.Components {
		if v.Installed[name] == nil {
			return nil, notInstalled(name)
		}
	}
	var ask []*component.Component
	named := map[string]bool{}
	for _, c := range comps {
		named[c.Name] = true
	}
	for _, in := range found {
		if named[in.Component.Name] && in.Component.Swappable() {
			ask = append(ask, in.Component)
		}
	}
	results := s.upstream.All(ctx, ask)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	v.Input = s.planInput(found, results, st, o)
	if o.Auto {
		if err := s.addTakenBack(ctx, &v.Input); err != nil {
			return nil, err
		}
	}
	if v.Input.Holds, err = s.holds(); err != nil {
		return nil, err
	}
	if err := s.addPolicies(&v.Input, o.Policy); err != nil {
		return nil, err
	}
	if err := s.addSecurity(ctx, &v.Input, found); err != nil {
		return nil, err
	}
	asked := 0
	for name, r := range results {
		asked++
		if r.Err != nil {
			v.Errors[name] = r.Err
		}
	}
	if asked > 0 && len(v.Errors) == asked {
		return v, &UpstreamUnknownError{Errs: v.Errors}
	}
	return v, nil
}

// onRecord are those of the components that the state file knows to be installed,
// which upstream is asked for while they are looked for.
func onRecord(comps []*component.Component, st *state.File) []*component.Component {
	var out []*component.Component
	for _, c := range comps {
		if c.Swappable() && st.Components[c.Name].CurrentVersion != "" {
			out = append(out, c)
		}
	}
	return out
}

func (s *Stack) planInput(found []*inventory.Installed, results map[string]upstream.Result, st *state.File, o LookOptions) plan.Input {
	in := plan.Input{
		Target: o.Target, Selected: o.Components, Pins: o.Pins, Force: o.Force, Auto: o.Auto, Now: s.now(),
		OS: runtime.GOOS, Arch: runtime.GOARCH, Root: s.Root.Prefix(), Estimate: s.estimates(),
	}
	shared := sharedFiles(found)
	for _, f := range found {
		d := f.Component.Data
		none := d.Path == "" && d.Flag == "" && len(d.Fingerprint) == 0 // what keeps no data can lose none
		p := plan.Installed{Component: f.Component, Current: f.Version, DataKept: none || s.dataDir(f) != ""}
		for _, one := range f.Copies {
			p.Instances = append(p.Instances, one.Instance)
		}
		switch {
		case !f.Component.Swappable():
			p.Excluded = "managed by the distribution's package manager; upgrade it there"
		case f.Owner != "":
			p.Excluded = fmt.Sprintf("%s belongs to the package %s; upgrade it with the package manager, or install upstream's binary elsewhere and run `observability-upgrade adopt`", f.Path, f.Owner)
		case f.Gone != "":
			p.Amiss = fmt.Sprintf("%s; %s", f.Problem, bringBack(f))
		case f.Version.IsZero():
			p.Amiss = "its version cannot be read: " + f.Problem
		case f.Problem != "":
			p.Excluded = f.Problem
		case shared[f.Component.Name] != "":
			p.Excluded = shared[f.Component.Name]
		}
		if r, ok := results[f.Component.Name]; ok {
			p.Releases, p.Err = r.Releases, r.Err
			// A pre-release is there for who names it, and for nobody else.
			named := func(r component.Release) bool {
				return !o.Pins[f.Component.Name].IsZero() && r.Version.Equal(o.Pins[f.Component.Name])
			}
			if i := slices.IndexFunc(r.Prereleases, named); i >= 0 && !slices.ContainsFunc(r.Releases, named) {
				p.Releases = append(slices.Clip(p.Releases), r.Prereleases[i])
			}
		}
		for _, bad := range st.Components[f.Component.Name].FailedVersions {
			if v, err := component.ParseVersion(bad.Version); err == nil {
				p.Failed = append(p.Failed, plan.Failed{Version: v, Reason: bad.Reason, At: bad.FailedAt})
			}
		}
		in.Installed = append(in.Installed, p)
	}
	s.addRules(&in)
	return in
}

// sharedFiles says, by component, which of its programs is another's too: whichever is
// upgraded, the other is changed unasked, and what undoes one undoes both.
func sharedFiles(found []*inventory.Installed) map[string]string {
	out := map[string]string{}
	by := map[string]string{}
	for _, in := range found {
		name := in.Component.Name
		for _, b := range slices.Sorted(maps.Keys(in.Binaries)) {
			path := in.Binaries[b]
			other := by[path]
			by[path] = name
			if other == "" || other == name {
				continue
			}
			for who, with := range map[string]string{name: other, other: name} {
				if out[who] == "" {
					out[who] = fmt.Sprintf("%s is a program of %s too, and an upgrade of one would change both: describe them as instances of one component, or give each a file of its own", path, with)
				}
			}
		}
	}
	return out
}

// addTakenBack keeps unattended runs from installing again what a person rolled
// back: until a newer version appears, or somebody installs that one by hand.
func (s *Stack) addTakenBack(ctx context.Context, in *plan.Input) error {
	db, err := history.OpenReadOnly(ctx, s.Root.History())
	if err != nil {
		return err
	}
	defer db.Close()
	for i := range in.Installed {
		p := &in.Installed[i]
		rows, err := db.List(ctx, history.Filter{Components: []string{p.Component.Name}, Limit: 100})
		if err != nil {
			return err
		}
		seen := map[string]bool{}
		for _, r := range rows {
			v, err := component.ParseVersion(r.NewVersion)
			if err != nil || seen[r.NewVersion] {
				continue
			}
			seen[r.NewVersion] = true // the newest row of a version counts
			if r.Status == history.RolledBack && r.ErrorMessage == "" && r.RollbackTimestamp != nil {
				p.Failed = append(p.Failed, plan.Failed{Version: v, At: *r.RollbackTimestamp, TakenBack: true})
			}
		}
	}
	return nil
}

// estimates tells how long a component's upgrade took here before, so that the
// next is foretold by it.
func (s *Stack) estimates() func(string) time.Duration {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	known := map[string]time.Duration{}
	if db, err := history.OpenReadOnly(ctx, s.Root.History()); err == nil {
		defer db.Close()
		for _, c := range s.Catalogue.All() {
			if d, err := db.Durations(ctx, c.Name); err == nil && d > 0 {
				known[c.Name] = d
			}
		}
	}
	return func(name string) time.Duration { return known[name] }
}
