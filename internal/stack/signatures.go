package stack

import (
	"fmt"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/observability-upgrade/observability-upgrade/internal/artifact"
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
	byName := map[string]*health.Check{} // of several steps the first that will be refused
	var names []string
	for _, st := range p.Steps() {
		c, ok := s.Catalogue.Get(st.Component)
		if !ok {
			continue
		}
		had := byName[st.Component]
		if had != nil && had.Status == health.Fail {
			continue
		}
		if check := s.checkSigned(c, st, before[st.Component]); check != nil {
			if had == nil {
				names = append(names, st.Component)
			}
			byName[st.Component] = check
		}
	}
	var out []health.Check
	for _, name := range names {
		out = append(out, *byName[name])
	}
	return out, nil
}

// checkSigned foretells what the download will say of a release's signature: the
// refusal where none is named or published though one is wanted, or where the
// pinned keys cannot be read. Where nothing asks for a signature there is nothing
// to report, and the result is nil.
func (s *Stack) checkSigned(c *component.Component, st plan.Step, before string) *health.Check {
	req := artifact.Request{
		Component: c, Release: st.Release, OS: runtime.GOOS, Arch: runtime.GOARCH, Root: s.Root.Prefix(),
		SignatureRequired: s.Policy.Verification.Signature == "required", AllowUnsigned: s.mayBeUnsigned(c.Name), SignedBefore: before,
	}
	check := &health.Check{Name: "signature", Component: c.Name}
	err := artifact.ForetellSignature(req)
	switch {
	case err != nil:
		check.Status, check.Detail, check.Next = health.Fail, fmt.Sprintf("expected a signature of %s that can be checked, found: %v", st.To, err), s.nextAfter(err, c, st.To)
	case c.Signature == nil && before == "" && !req.SignatureRequired:
		return nil
	case req.AllowUnsigned:
		check.Status, check.Detail = health.Warn, "verification.allow_unsigned lets it come without a signature"
	default:
		check.Status, check.Detail = health.OK, fmt.Sprintf("a %s signature is checked at apply", c.Signature.Type)
	}
	return check
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
