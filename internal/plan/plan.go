package plan

import (
	"math"
	"slices"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// Plan is the document of `plan` (CONTRACT.md section 4). ID, Checks and
// BackupPath are the caller's to fill in.
type Plan struct {
	ID               string            `json:"id"`
	Phases           []Phase           `json:"phases"` // in the order they run; only those with steps
	Held             []Held            `json:"held"`   // sorted by component
	Checks           []component.Check `json:"checks"`
	EstimatedSeconds int               `json:"estimated_seconds"`
	DownloadBytes    int64             `json:"download_bytes"` // of the files whose size upstream states
	BackupPath       string            `json:"backup_path"`
	Warnings         []string          `json:"warnings,omitempty"` // what a person should know and what stops nothing
}

// Phase is a group of steps of one role.
type Phase struct {
	Number           int    `json:"number"` // from 1, as they run
	Name             string `json:"name"`
	EstimatedSeconds int    `json:"estimated_seconds"`
	Steps            []Step `json:"steps"`
}

// Step is the upgrade of one component.
type Step struct {
	Component     string            `json:"component"`
	From          component.Version `json:"from"`
	To            component.Version `json:"to"` // older than From only where a person forced it
	Type          component.Bump    `json:"type"`
	Asset         string            `json:"asset"`
	DownloadBytes int64             `json:"download_bytes"` // 0 when upstream does not say

	EstimatedSeconds int               `json:"estimated_seconds"`
	Reversible       string            `json:"reversible"`       // yes | with-backup | no
	Reason           string            `json:"reason,omitempty"` // why not a newer version, or what follows
	NotesURL         string            `json:"notes_url,omitempty"`
	Release          component.Release `json:"-"`
}

// Held is a component that is not upgraded though something newer, or a named
// version, was wanted, or though nobody knows.
type Held struct {
	Component string            `json:"component"`
	Current   component.Version `json:"current"`
	Candidate component.Version `json:"candidate"` // zero when upstream is not known
	Reason    string            `json:"reason"`
}

// Steps lists all steps in the order they run.
func (p *Plan) Steps() []Step {
	var out []Step
	for _, ph := range p.Phases {
		out = append(out, ph.Steps...)
	}
	return out
}

// AllPhases lists the phases that run and, numbered on after them, one empty
// phase for each role that has none.
func (p *Plan) AllPhases() []Phase {
	out := slices.Clone(p.Phases)
	for _, r := range component.Roles() {
		if !slices.ContainsFunc(p.Phases, func(ph Phase) bool { return ph.Name == r.Phase() }) {
			out = append(out, Phase{Number: len(out) + 1, Name: r.Phase(), Steps: []Step{}})
		}
	}
	return out
}

// Make plans a run. Errors are UnknownComponentError, UnknownVersionError,
// DowngradeError, CycleError or a bad target; with a PinRefusedError the plan is
// not nil, and is what could be done without the refused versions.
func Make(in Input) (*Plan, error) {
	if _, err := ParseTarget(string(in.Target)); err != nil {
		return nil, err
	}
	cands, unknown := gather(in)
	if len(unknown) > 0 {
		return nil, unknownComponent(unknown[0], cands)
	}
	for _, c := range cands {
		if c.err != nil {
			return nil, c.err
		}
	}
	s := newSet(in, cands)
	order, tight, err := s.order()
	if err != nil {
		return nil, err
	}
	p := &Plan{Phases: []Phase{}, Held: []Held{}, Checks: []component.Check{}, Warnings: append(s.warnings(), tight...)}
	for _, i := range order {
		p.add(s.cands[i].Component.Role, s.step(in, i))
	}
	var refused []Held
	for i, c := range cands {
		if s.upgraded(i) || !c.selected {
			continue
		}
		h := Held{Component: c.name, Current: c.Current, Candidate: c.wanted, Reason: s.outcome(i).reason}
		if len(c.options) > 0 {
			h.Candidate = s.version(i, 0)
		}
		pinned := !c.pin.IsZero() && !c.pin.Equal(c.Current)
		if pinned {
			refused = append(refused, h)
		}
		if pinned || c.tellHeld(in) {
			p.Held = append(p.Held, h)
		}
	}
	if len(refused) > 0 {
		return p, &PinRefusedError{Refused: refused}
	}
	return p, nil
}

// tellHeld reports whether a component that stays belongs among the held ones:
// all that could have gone further, and those that were asked for by name.
func (c *candidate) tellHeld(in Input) bool {
	switch c.staying.cause {
	case causeNewest:
		return false
	case causeExcluded:
		return c.Current.Less(c.wanted) && !c.Current.IsZero() || slices.Contains(in.Selected, c.name)
	}
	return true
}

// step makes the step of an upgraded candidate.
func (s *set) step(in Input, i int) Step {
	c := s.cands[i]
	o := c.options[s.choice[i]]
	return Step{
		Component: c.name, From: c.Current, To: o.release.Version, Type: component.BumpBetween(c.Current, o.release.Version),
		Asset: o.asset, DownloadBytes: o.bytes, EstimatedSeconds: estimate(in, c.name), Reversible: reversible(in, c, o.release.Version),
		Reason: s.outcome(i).reason, NotesURL: o.release.NotesURL, Release: o.release,
	}
}

// reversible is the worst of the doors that a step goes through.
func reversible(in Input, c *candidate, to component.Version) string {
	worst := "yes"
	d := &doors{c: c}
	for _, e := range in.OneWay {
		if e.Component != c.name || e.Reversible == "yes" || worst == "no" {
			continue
		}
		if at, ok := d.crossing(e); ok && !to.Less(at) {
			worst = e.Reversible
		}
	}
	return worst
}

func estimate(in Input, name string) int {
	d := DefaultEstimate
	if in.Estimate != nil {
		if known := in.Estimate(name); known > 0 {
			d = known
		}
	}
	return int(math.Ceil(d.Seconds()))
}

// add appends a step, in the last phase where that has the step's role.
func (p *Plan) add(role component.Role, st Step) {
	if n := len(p.Phases); n == 0 || p.Phases[n-1].Name != role.Phase() {
		p.Phases = append(p.Phases, Phase{Number: n + 1, Name: role.Phase()})
	}
	ph := &p.Phases[len(p.Phases)-1]
	ph.Steps = append(ph.Steps, st)
	ph.EstimatedSeconds += st.EstimatedSeconds
	p.EstimatedSeconds += st.EstimatedSeconds
	p.DownloadBytes += st.DownloadBytes
}

func unknownComponent(name string, cands []*candidate) *UnknownComponentError {
	known := make([]string, len(cands))
	for i, c := range cands {
		known[i] = c.name
	}
	return &UnknownComponentError{Name: name, Suggestion: nearestName(name, known), Known: known}
}
