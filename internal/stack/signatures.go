package stack

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/observability-upgrade/observability-upgrade/internal/backup"
	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/health"
	"github.com/observability-upgrade/observability-upgrade/internal/plan"
	"github.com/observability-upgrade/observability-upgrade/internal/state"
)

// mayBeUnsigned reports whether a person allowed a component to come without a
// signature.
func (s *Stack) mayBeUnsigned(name string) bool {
	return slices.Contains(s.Policy.Verification.AllowUnsigned, name)
}

// signedBefore tells how a version of each component was verified by a signature
// on this host; a component of which none was is not in the map. From then on it never goes back to checksums
// alone by itself: who can put a release in place of upstream's could as well
// leave out its signature.
func (s *Stack) signedBefore() (map[string]string, error) {
	st, err := s.State()
	if err != nil {
		return nil, err
	}
	before := map[string]string{}
	for name, c := range st.Components {
		if c.SignatureVerified != nil {
			before[name] = c.SignatureVerified.String()
		}
	}
	return before, nil
}

// checkSignatures tells, per component of the plan, what stands for its signature.
func (s *Stack) checkSignatures(p *plan.Plan) ([]health.Check, error) {
	before, err := s.signedBefore()
	if err != nil {
		return nil, err
	}
	var out []health.Check
	seen := map[string]bool{}
	for _, st := range p.Steps() {
		if c, ok := s.Catalogue.Get(st.Component); ok && !seen[st.Component] {
			seen[st.Component] = true
			out = append(out, s.checkSigned(c, before[st.Component])...)
		}
	}
	return out, nil
}

// checkSigned foretells the refusal of a component whose definition names no
// signature though one is wanted. It is no failure of the whole run: apply
// refuses that component alone, so --continue-on-failure can leave it out. Where
// nothing asks for a signature there is nothing to report.
func (s *Stack) checkSigned(c *component.Component, before string) []health.Check {
	check := func(st health.Status, format string, args ...any) []health.Check {
		return []health.Check{{Name: "signature", Component: c.Name, Status: st, Detail: fmt.Sprintf(format, args...)}}
	}
	required := s.Policy.Verification.Signature == "required"
	switch {
	case before == "" && !required && c.Signature == nil:
		return nil
	case s.mayBeUnsigned(c.Name):
		return check(health.Warn, "verification.allow_unsigned lets it come without a signature")
	case c.Signature != nil:
		return check(health.OK, "a %s signature is checked at apply", c.Signature.Type)
	case before != "":
		return check(health.Warn, "apply will refuse it: it was verified by a signature before (%s), and its definition names none any more; %s", before, s.unsignedNext(c.Name))
	}
	return check(health.Warn, "apply will refuse it: verification.signature is required, and its definition names none; %s", s.unsignedNext(c.Name))
}

// unsignedNext is what a person does about a component that lacks a signature.
func (s *Stack) unsignedNext(name string) string {
	return fmt.Sprintf("give `signature` in %s (docs/signatures.md), or wait for a signed release; to go without all the same, write allow_unsigned: [%s] below verification in %s",
		filepath.Join(s.Root.ComponentsDir(), name+".yaml"), name, s.Root.Policy())
}

// signedInBackups is what the state files in the backup points, newest first,
// know of verified signatures, so that a state file that has to be rebuilt does
// not forget them. A record that a person did away with since may come back:
// that is refused once more, and allowed by the same key of the policy.
func signedInBackups(points []*backup.Point) map[string]*state.SignatureVerified {
	signed := map[string]*state.SignatureVerified{}
	for _, p := range points {
		f, err := state.Load(p.StateFile())
		if err != nil {
			continue // it held none, or one that cannot be read either
		}
		for name, c := range f.Components {
			if _, known := signed[name]; !known && c.SignatureVerified != nil {
				signed[name] = c.SignatureVerified
			}
		}
	}
	return signed
}
