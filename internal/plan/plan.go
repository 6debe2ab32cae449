package plan

import (
	"fmt"
	"math"
	"slices"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// Plan is the document of `plan` (docs/reference.md). ID, Checks and
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

	UpToDate []string `json:"-"` // components that are at the version wanted, sorted
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
	Instances        []string          `json:"instances,omitempty"` // upgraded one at a time, in this order
	Fixes            []string          `json:"fixes,omitempty"`     // known vulnerabilities of the installed version that To is known not to have
	Release          component.Release `json:"-"`
}

// Held is a component that is not upgraded though something newer, or a named
// version, was wanted, or though nobody knows.
type Held struct {
	Component string            `json:"component"`
	Current   component.Version `json:"current"`   // zero when it is not known
	Candidate component.Version `json:"candidate"` // zero when upstream is not known
	Reason    string            `json:"reason"`
}

// Versions tells what is installed and, where something newer or else was wanted,
// what: "1.0.0 → 1.1.0".
func (h Held) Versions() string {
	versions := orDash(h.Current.String())
	if !h.Current.IsZero() && !h.Candidate.IsZero() && !h.Candidate.Equal(h.Current) {
		versions += " → " + h.Candidate.String()
	}
	return versions
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

// Make plans a run: the best set of versions that is compatible as a whole, and
// an order of steps whose every intermediate state is compatible too; see solver
// for what best means. A component may have several steps, through stepping
// stones. Errors are UnknownComponentError, UnknownVersionError,
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
	s, err := solve(in, cands)
	if err != nil {
		return nil, err
	}
	p := &Plan{Phases: []Phase{}, Held: []Held{}, Checks: []component.Check{}, Warnings: s.warnings()}
	for _, m := range s.steps {
		p.add(s.cands[m.cand].Component.Role, s.step(in, m))
	}
	var refused []Held
	for i, c := range cands {
		if s.upgraded(i) || !c.selected {
			continue
		}
		if c.staying.cause == causeNewest {
			p.UpToDate = append(p.UpToDate, c.name)
		}
		h := Held{Component: c.name, Current: c.Current, Candidate: c.wanted, Reason: s.outcome(i).reason}
		if top := c.ladder.top(); top > 0 {
			h.Candidate = s.version(i, top)
		}
		if c.staying.cause == causeUpstream && c.pin.IsZero() {
			h.Candidate = component.Version{}
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

// step makes the step of a move. What the component's outcome has to say is told
// with its last step; a step to a stepping stone says what asks for it.
func (s *solver) step(in Input, m move) Step {
	c := s.cands[m.cand]
	from, to := &c.ladder.nodes[m.from], &c.ladder.nodes[m.to]
	st := Step{
		Component: c.name, From: from.version, To: to.version, Type: component.BumpBetween(from.version, to.version),
		Asset: to.asset, DownloadBytes: to.bytes, EstimatedSeconds: estimate(in, c.name) * max(1, len(c.Instances)), Reversible: c.ladder.reversible(in, m.from, m.to),
		NotesURL: to.release.NotesURL, Release: to.release, Instances: c.Instances, Fixes: c.Security.fixes(to.version),
	}
	target := s.target[m.cand]
	if m.to == target {
		st.Reason = s.outcome(m.cand).reason
		return st
	}
	goal := s.version(m.cand, target)
	if p, ok := c.ladder.missing(m.from, target); ok {
		st.Reason = p.demand(goal)
	} else {
		st.Reason = fmt.Sprintf("a step on the way to %s, so that all fit together in between", goal)
	}
	return st
}

// reversible is the worst of the doors that a step goes through.
func (l *ladder) reversible(in Input, from, to int) string {
	worst := "yes"
	for _, e := range in.OneWay {
		if e.Component != l.c.name || e.Reversible == "yes" || worst == "no" || l.nodes[to].at < 0 {
			continue
		}
		if l.crosses(e, l.nodes[from].at+1, l.nodes[to].at+1) {
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
