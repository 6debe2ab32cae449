package stack

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	"github.com/observability-upgrade/observability-upgrade/internal/inventory"
	"github.com/observability-upgrade/observability-upgrade/internal/state"
)

// Adoption is what adopt found of one component.
type Adoption struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Path    string `json:"path"`
	Service string `json:"service"`
	Action  string `json:"action"` // adopt | update | unchanged | refused | forget
	Reason  string `json:"reason"`

	entry state.Component
}

// PlanAdopt finds the installed components and tells what the state file would
// gain. Nothing is written.
func (s *Stack) PlanAdopt(ctx context.Context, names []string) ([]Adoption, error) {
	comps, err := s.Components(names)
	if err != nil {
		return nil, err
	}
	found, err := s.Inventory(ctx, comps)
	if err != nil {
		return nil, err
	}
	st, err := s.State()
	if err != nil {
		return nil, err
	}
	var out []Adoption
	seen := map[string]bool{}
	for _, in := range found {
		seen[in.Component.Name] = true
		if !in.Component.Swappable() {
			if len(names) > 0 {
				out = append(out, Adoption{
					Name: in.Component.Name, Version: in.Version.String(), Path: in.Path, Action: "refused",
					Reason: "it is managed by the distribution's package manager: upgrade it there",
				})
			}
			continue
		}
		a := s.adoption(in, st.Components[in.Component.Name])
		if in.Gone != "" && len(names) > 0 { // only what is named is forgotten
			a.Action, a.Reason = "forget", in.Problem+"; it is taken out of the state file, its backups stay: observability-upgrade rollback --list"
		}
		out = append(out, a)
	}
	for _, name := range names {
		if !seen[name] {
			e := notInstalled(name)
			e.Message += ": its program is not where the definition says, nor does its unit lead to it"
			e.Hint = "observability-upgrade components show " + name
			return nil, e
		}
	}
	return out, nil
}

func (s *Stack) adoption(in *inventory.Installed, known state.Component) Adoption {
	a := Adoption{Name: in.Component.Name, Version: in.Version.String(), Path: cmp.Or(in.Path, in.Gone)}
	if in.Status.Exists {
		a.Service = in.Service.Label()
	}
	switch {
	case in.Owner != "":
		a.Action = "refused"
		a.Reason = fmt.Sprintf("%s belongs to the package %s: upgrade it with the package manager, or move to upstream's binary (stop the service, install the binary to %s, point the unit's ExecStart there by a drop-in) and adopt again", in.Path, in.Owner, mainInstall(in.Component))
		return a
	case in.Unlisted != "":
		a.Action, a.Reason = "refused", in.Problem
		return a
	case in.Gone != "":
		a.Action, a.Reason = "refused", in.Problem+"; "+bringBack(in)
		return a
	case in.Version.IsZero():
		a.Action = "refused"
		a.Reason = "its version cannot be read: " + in.Problem
		return a
	}
	entry, err := s.stateEntry(in, known)
	if err != nil {
		a.Action, a.Reason = "refused", err.Error()
		return a
	}
	a.entry = entry
	switch {
	case known.CurrentVersion == "":
		a.Action = "adopt"
	case sameEntry(known, entry):
		a.Action = "unchanged"
	default:
		a.Action, a.Reason = "update", in.Drift
	}
	if in.Status.Exists && in.Status.ExecPath != "" && in.Status.ExecPath != in.Path {
		a.Reason = strings.TrimPrefix(a.Reason+fmt.Sprintf("; note: %s runs %s", in.Service.Label(), in.Status.ExecPath), "; ")
	}
	return a
}

func mainInstall(c *component.Component) string {
	b, _ := c.MainBinary()
	return b.Install
}

func sameEntry(a, b state.Component) bool {
	return a.CurrentVersion == b.CurrentVersion && a.Checksum == b.Checksum && a.BinaryPath == b.BinaryPath &&
		a.Service == b.Service && maps.Equal(a.Binaries, b.Binaries)
}

// stateEntry is a state file entry made from what is on disk, keeping what the
// known one remembers.
func (s *Stack) stateEntry(in *inventory.Installed, known state.Component) (state.Component, error) {
	e := known
	if e.CurrentVersion != in.Version.String() {
		e.PreviousVersion, e.CurrentVersion, e.Archive = e.CurrentVersion, in.Version.String(), ""
	}
	e.BinaryPath, e.Binaries, e.Service = in.Path, in.Binaries, in.Service.Unit
	e.Checksums = map[string]string{}
	for name, path := range in.Binaries {
		sum, err := hostfs.Digest(path)
		if err != nil {
			return e, err
		}
		e.Checksums[name] = sum
		if path == in.Path {
			e.Checksum = sum
		}
	}
	if e.InstalledAt.IsZero() {
		if st, err := os.Stat(in.Path); err == nil {
			e.InstalledAt = st.ModTime().UTC().Truncate(time.Second)
		}
	}
	return e, nil
}

// Adopt writes what PlanAdopt found into the state file; the caller holds the
// lock. It reports whether anything changed.
func (s *Stack) Adopt(ctx context.Context, found []Adoption) (bool, error) {
	f, err := s.books().State(ctx)
	if err != nil {
		return false, err
	}
	changed := false
	for _, a := range found {
		if a.Action == "adopt" || a.Action == "update" {
			f.Components[a.Name] = a.entry
			changed = true
		}
		if _, known := f.Components[a.Name]; a.Action == "forget" && known {
			delete(f.Components, a.Name)
			changed = true
		}
	}
	if !changed {
		return false, nil
	}
	f.LastUpdated = s.now().UTC().Truncate(time.Second)
	return true, state.Save(s.host, s.Root.State(), f)
}
