package plan

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// Action is what becomes of a component, as `check` prints it.
type Action string

// The actions.
const (
	ActionUpgrade Action = "upgrade" // a step is possible
	ActionSkip    Action = "skip"    // nothing to do, or not this program's to do
	ActionHold    Action = "hold"    // a hold, a failure here or the target stands in the way
	ActionBlocked Action = "blocked" // the matrix, the blacklist, a path, a missing file or a broken installation stands in the way
)

// Candidate is one component in the report of `check`.
type Candidate struct {
	Name            string            `json:"name"`
	Current         component.Version `json:"current"`
	Latest          component.Version `json:"latest"` // newest stable release, whatever stands in its way; zero when unknown
	Type            component.Bump    `json:"type"`   // of the step from Current to Latest
	ReleaseDate     string            `json:"release_date"`
	VersionsBehind  int               `json:"versions_behind"`
	Action          Action            `json:"action"`
	Reason          string            `json:"reason"`
	Vulnerabilities []Vulnerability   `json:"vulnerabilities"`

	Target   component.Version `json:"target,omitzero"`     // where the upgrade goes; zero unless Action is upgrade
	NotesURL string            `json:"notes_url,omitempty"` // of Target, else of Latest

	Vulnerable       *bool           `json:"vulnerable"`                        // of the installed version; null: not known
	VulnerableReason string          `json:"vulnerable_reason,omitempty"`       // why it is not known, or what should be known besides
	Fixes            []string        `json:"fixes,omitempty"`                   // of Vulnerabilities, what Target is known not to have
	Offered          []Vulnerability `json:"offered_vulnerabilities,omitempty"` // of Target, else of Latest, by its version
	OfferedState     SecurityState   `json:"offered_state,omitempty"`           // of that version
}

// ComponentError is an upstream that could not be asked.
type ComponentError struct {
	Component string `json:"component"`
	Error     string `json:"error"`
}

// CheckReport is the document of `check` (docs/reference.md).
type CheckReport struct {
	CheckedAt  time.Time        `json:"checked_at"`
	Components []Candidate      `json:"components"` // sorted by name
	Errors     []ComponentError `json:"errors"`     // sorted by component
}

// Updates reports whether any component can be upgraded (exit code 3 of
// `check --exit-code`).
func (r CheckReport) Updates() bool {
	for _, c := range r.Components {
		if c.Action == ActionUpgrade {
			return true
		}
	}
	return false
}

// Check reports on each selected component what upstream has and what would
// become of it in a run. What Make returns as an error is a reason here.
func Check(in Input) CheckReport {
	cands, unknown := gather(in)
	s, _ := solve(in, cands) // a circle of dependencies is told by Make
	r := CheckReport{CheckedAt: in.Now, Components: []Candidate{}, Errors: []ComponentError{}}
	for i, c := range cands {
		if !c.selected {
			continue
		}
		r.Components = append(r.Components, s.report(i))
		if c.Err != nil {
			r.Errors = append(r.Errors, ComponentError{Component: c.name, Error: c.Err.Error()})
		}
	}
	for _, name := range unknown {
		r.Errors = append(r.Errors, ComponentError{Component: name, Error: unknownComponent(name, cands).Error()})
	}
	return r
}

func (s *solver) report(i int) Candidate {
	c := s.cands[i]
	v := s.outcome(i)
	out := Candidate{
		Name: c.name, Current: c.Current, Type: component.BumpUnknown, VersionsBehind: c.behind(),
		Action: v.cause.action(), Reason: v.reason, Vulnerabilities: slices.Clone(c.Security.Found),
		Vulnerable: c.Security.State.vulnerable(), VulnerableReason: c.Security.Reason,
	}
	if out.Vulnerabilities == nil {
		out.Vulnerabilities = []Vulnerability{}
	}
	if latest, ok := c.latest(); ok {
		out.Latest, out.NotesURL = latest.Version, latest.NotesURL
		out.Type = component.BumpBetween(c.Current, latest.Version)
		if latest.Version.Less(c.Current) {
			out.Type = component.BumpNone
		}
		if !latest.PublishedAt.IsZero() {
			out.ReleaseDate = latest.PublishedAt.UTC().Format(time.DateOnly)
		}
	}
	if s.upgraded(i) {
		r := c.ladder.nodes[s.target[i]].release
		out.Target, out.NotesURL = r.Version, r.NotesURL
		if via := s.via(i); via != "" {
			out.Reason = strings.TrimSuffix(via+"; "+out.Reason, "; ")
		}
		out.Fixes = c.Security.fixes(r.Version)
	}
	if offered := cmp.Or(out.Target.String(), out.Latest.String()); offered != "" && offered != out.Current.String() {
		o := c.Security.Releases[offered]
		out.Offered, out.OfferedState = o.Found, o.State
	}
	return out
}

// via tells of the steps of candidate i before its last; "" when it has one.
func (s *solver) via(i int) string {
	var stops []string
	why := ""
	for _, m := range s.steps {
		if m.cand != i || m.to == s.target[i] {
			continue
		}
		stops = append(stops, s.version(i, m.to).String())
		if p, ok := s.cands[i].ladder.missing(m.from, s.target[i]); ok && why == "" {
			why = ": " + p.demand(s.version(i, s.target[i]))
		}
	}
	if len(stops) == 0 {
		return ""
	}
	return "through " + strings.Join(stops, ", then ") + why
}
