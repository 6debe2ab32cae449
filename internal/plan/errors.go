package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// UnknownComponentError says that a component that was asked for is not
// installed. It is a mistake in what was typed.
type UnknownComponentError struct {
	Name       string
	Suggestion string   // the nearest installed name; "" when none is near
	Known      []string // all installed names, sorted
}

func (e *UnknownComponentError) Error() string {
	msg := fmt.Sprintf("component %q is not installed on this host", e.Name)
	switch {
	case e.Suggestion != "":
		return msg + fmt.Sprintf("; did you mean %s?", e.Suggestion)
	case len(e.Known) > 0:
		return msg + "; installed are " + strings.Join(e.Known, ", ")
	}
	return msg
}

// UnknownVersionError says that upstream lists no such version. It is a mistake
// in what was typed.
type UnknownVersionError struct {
	Component string
	Version   component.Version
	Nearest   []component.Version // newest first; empty when upstream lists none
}

func (e *UnknownVersionError) Error() string {
	msg := fmt.Sprintf("%s: upstream lists no version %s", e.Component, e.Version)
	if len(e.Nearest) == 0 {
		return msg + ", nor any other"
	}
	names := make([]string, len(e.Nearest))
	for i, v := range e.Nearest {
		names[i] = v.String()
	}
	return msg + "; the nearest are " + strings.Join(names, ", ")
}

// DowngradeError says that a named version is older than the installed one.
type DowngradeError struct {
	Component       string
	Current, Wanted component.Version
}

func (e *DowngradeError) Error() string {
	return fmt.Sprintf("%s is at %s; %s is older: use `observability-upgrade rollback`, which restores configuration and binary together",
		e.Component, e.Current, e.Wanted)
}

// CycleError says that components depend on each other in a circle.
type CycleError struct {
	Components []string // each depends on the next, the last on the first
}

func (e *CycleError) Error() string {
	return fmt.Sprintf("depends_on goes in a circle: %s; correct the definitions in components.d",
		strings.Join(append(slices.Clone(e.Components), e.Components[0]), " -> "))
}

// PinRefusedError says that versions a person named cannot be gone to. Make
// returns it together with the plan that it would make of the rest.
type PinRefusedError struct {
	Refused []Held // sorted by component
}

func (e *PinRefusedError) Error() string {
	parts := make([]string, len(e.Refused))
	for i, h := range e.Refused {
		parts[i] = fmt.Sprintf("%s@%s cannot be installed: %s", h.Component, h.Candidate, h.Reason)
	}
	return strings.Join(parts, "; ")
}

// nearestName is the known name that differs least from name, if by little.
func nearestName(name string, known []string) string {
	best, bestDist := "", 3
	for _, k := range known {
		if len(name) > 2 && (strings.HasPrefix(k, name) || strings.HasPrefix(name, k)) {
			return k
		}
		if d := editDistance(strings.ToLower(strings.ReplaceAll(name, "-", "_")), k); d < bestDist {
			best, bestDist = k, d
		}
	}
	return best
}

func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diag := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diag
			if a[i-1] != b[j-1] {
				cost++
			}
			diag = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}

// nearestVersions picks up to five of the releases (newest first) around v.
func nearestVersions(v component.Version, releases []component.Release) []component.Version {
	const most = 5
	at := slices.IndexFunc(releases, func(r component.Release) bool { return r.Version.Less(v) })
	if at < 0 {
		at = len(releases)
	}
	from := max(0, min(at-most/2-1, len(releases)-most))
	var out []component.Version
	for _, r := range releases[from:min(len(releases), from+most)] {
		out = append(out, r.Version)
	}
	return out
}
