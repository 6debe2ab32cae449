package stack

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/artifact"
	"github.com/observability-upgrade/observability-upgrade/internal/backup"
	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/health"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	"github.com/observability-upgrade/observability-upgrade/internal/inventory"
	"github.com/observability-upgrade/observability-upgrade/internal/plan"
	"github.com/observability-upgrade/observability-upgrade/internal/preflight"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/state"
)

// Proposal is a plan with the view it was made from and its pre-flight checks.
type Proposal struct {
	Plan     *plan.Plan
	View     *View
	Baseline preflight.Baseline // what was broken before and is not held against the upgrade

	look LookOptions
}

// Failed lists the pre-flight checks that failed.
func (p *Proposal) Failed() []component.Check { return preflight.Failed(p.Plan.Checks) }

// Warned lists the pre-flight checks that warned.
func (p *Proposal) Warned() []component.Check {
	var out []component.Check
	for _, c := range p.Plan.Checks {
		if c.Status == component.CheckWarn {
			out = append(out, c)
		}
	}
	return out
}

// Refusal is the error for pre-flight checks that failed; nil where none did. With
// continueOn a check that concerns one component refuses that one alone, unless no
// other is left; see LeftOut.
func (p *Proposal) Refusal(continueOn bool) error {
	failed := p.Failed()
	if len(failed) == 0 {
		return nil
	}
	wholeHost := slices.ContainsFunc(failed, func(c component.Check) bool { return c.Component == "" })
	if continueOn && !wholeHost {
		if fit, _ := p.fitting(); len(fit) > 0 {
			return nil
		}
	}
	next := "observability-upgrade plan"
	if failed[0].Next != "" {
		next = failed[0].Next
	}
	return &RefusedError{Check: "pre-flight", Err: &ChecksError{Failed: failed}, Next: next}
}

// LeftOut tells what a run that continues on failure leaves out: the steps of
// components that failed a pre-flight check of their own, and what no longer fits
// without them.
func (p *Proposal) LeftOut() []run.Outcome {
	_, left := p.fitting()
	return left
}

// fitting parts the plan's steps by the pre-flight checks of their components.
func (p *Proposal) fitting() (steps []plan.Step, left []run.Outcome) {
	refused := map[string]error{}
	for _, c := range p.Failed() {
		if name, _, _ := strings.Cut(c.Component, "@"); name != "" {
			refused[name] = errors.Join(refused[name], fmt.Errorf("%s: %s", c.Name, c.Detail))
		}
	}
	if len(refused) == 0 {
		return p.Plan.Steps(), nil
	}
	for _, st := range p.Plan.Steps() {
		if err := refused[st.Component]; err != nil {
			left = append(left, outcome(st, run.Failed, err))
			continue
		}
		steps = append(steps, st)
	}
	steps, unfit := fitting(p.View.Input, steps, func(st plan.Step) plan.Step { return st })
	return steps, append(left, unfit...)
}

func outcome(st plan.Step, status run.ComponentStatus, err error) run.Outcome {
	return run.Outcome{Name: st.Component, From: st.From, To: st.To, Status: status, Error: err.Error()}
}

// Propose looks, plans and runs the pre-flight checks. Nothing is changed. For an
// unattended run that is to begin and may not, the error is WindowError.
func (s *Stack) Propose(ctx context.Context, o LookOptions, skipHealth bool) (prop *Proposal, err error) {
	if o.Auto && o.Begin {
		defer func() { s.refused(err) }()
	}
	if err := s.mayBegin(o.Auto && o.Begin, 0); err != nil {
		return nil, err
	}
	looking, end := s.Tracer.Span(ctx, "look")
	v, err := s.Look(looking, o)
	end(err)
	if err != nil {
		return nil, err
	}
	report := s.recordCheck(v, o, o.Auto && o.Begin)
	_, end = s.Tracer.Span(ctx, "plan")
	p, err := plan.Make(v.Input)
	end(err)
	if err != nil {
		return nil, planError(err)
	}
	if o.Auto && o.Begin {
		s.announce(report, p)
	}
	if err := s.mayBegin(o.Auto && o.Begin && len(p.Steps()) > 0, time.Duration(p.EstimatedSeconds)*time.Second); err != nil {
		return nil, err
	}
	p.ID = run.ReserveID(s.Root, s.now())
	p.BackupPath = filepath.Join(s.Root.Backups(), p.ID)
	prop = &Proposal{Plan: p, View: v, look: o}
	checking, end := s.Tracer.Span(ctx, "preflight")
	err = s.check(checking, prop, skipHealth)
	if err != nil {
		end(err)
		return nil, err
	}
	end(prop.Refusal(false))
	return prop, ctx.Err()
}

// check makes the checks before anything is touched.
func (s *Stack) check(ctx context.Context, prop *Proposal, skipHealth bool) error {
	found := s.preflight(ctx, prop.View, prop.Plan, skipHealth, prop.look.DataBackup)
	signed, err := s.checkSignatures(prop.Plan)
	if err != nil {
		return err
	}
	prop.Baseline = found.Baseline
	prop.Plan.Checks = append(append(append(append(found.Checks, s.checkTrees(prop.View, prop.Plan)...), s.checkData(prop.View, prop.Plan, prop.look.DataBackup)...), signed...),
		s.checkAway(ctx, prop.View, prop.Plan, awayFlags(prop.look.DataBackup, prop.look.Force, skipHealth, run.Graceful))...)
	for i := range prop.Plan.Checks {
		prop.Plan.Checks[i].Next = s.Root.Typed(prop.Plan.Checks[i].Next)
	}
	return nil
}

// planError tells mistakes in what was asked for from refusals.
func planError(err error) error {
	var unknown *plan.UnknownVersionError
	var unknownComponent *plan.UnknownComponentError
	var downgrade *plan.DowngradeError
	switch {
	case errors.As(err, &unknown), errors.As(err, &unknownComponent):
		return &UsageError{Message: err.Error(), Hint: "observability-upgrade check"}
	case errors.As(err, &downgrade):
		return &RefusedError{Check: "plan", Err: err, Next: "observability-upgrade rollback --list"}
	}
	return &RefusedError{Check: "plan", Err: err, Next: "observability-upgrade plan"}
}

// ApplyOptions say how a plan is carried out.
type ApplyOptions struct {
	Trigger           string // manual | auto | scheduled
	ContinueOnFailure bool
	SkipHealth        bool
	DataBackup        bool // keep a copy of the data of every component upgraded
	Strategy          run.Strategy

	force bool // as the plan was made with
}

// Apply carries out a proposal; the caller holds the lock. Everything is
// downloaded, verified, probed and checked before the first service stops. The
// result says what became of each component; the error is nil only when all of
// them are at their new version.
func (s *Stack) Apply(ctx context.Context, prop *Proposal, o ApplyOptions) (run.Result, error) {
	res, err := s.apply(ctx, prop, o)
	s.tell.ended(res, err)
	return res, err
}

func (s *Stack) apply(ctx context.Context, prop *Proposal, o ApplyOptions) (run.Result, error) {
	started := s.now().UTC()
	o.force = prop.look.Force
	res := run.Result{ID: prop.Plan.ID, Operation: run.Apply, Trigger: o.Trigger, StartedAt: started, Status: run.StatusFailed}
	steps := prop.Plan.Steps()
	if len(steps) == 0 {
		res.Status, res.Components = run.StatusNothingToDo, []run.Outcome{}
		return res, nil
	}
	if err := prop.Refusal(o.ContinueOnFailure); err != nil {
		res.Components = unattempted(steps)
		return res, err
	}
	fit, left := prop.fitting()
	for _, out := range left {
		s.Notice(fmt.Sprintf("%s %s → %s: %s; it is left out of this run", out.Name, out.From, out.To, out.Error))
	}
	ready, refused, err := s.prepareAll(ctx, prop, fit, o.ContinueOnFailure)
	refused = append(left, refused...)
	if err != nil {
		s.clearStaging(stagingNames(steps)...)
		res.Components = append(refused, remaining(steps, refused)...)
		res.Duration = run.Seconds(s.now().Sub(started))
		if ctx.Err() != nil {
			res.Status = run.StatusCancelled
		}
		return res, err
	}
	// Downloads take as long as they take: the window may be about to close by now.
	if err := s.mayBegin(prop.look.Auto && prop.look.Begin, time.Duration(prop.Plan.EstimatedSeconds)*time.Second); err != nil {
		s.clearStaging(stagingNames(steps)...)
		res.Status, res.Components = run.StatusCancelled, unattempted(steps)
		return res, err
	}
	req := run.Request{
		Operation: run.Apply, Trigger: o.Trigger, Plan: prop.Plan, ContinueOnFailure: o.ContinueOnFailure, ID: prop.Plan.ID, LeftOut: refused,
		Named: func(id, path string) { prop.Plan.ID, prop.Plan.BackupPath = id, path },
	}
	req.Allow = func(ch run.Change, at map[string]component.Version) error {
		return prop.View.Input.Fits(ch.Component, ch.To, at)
	}
	placed := map[string]string{} // digests by path, as the changes so far leave them
	kept := map[string]bool{}
	for _, p := range ready {
		changes, err := s.changes(p, o, placed)
		if err != nil {
			s.clearStaging(stagingNames(steps)...)
			res.Components = unattempted(steps)
			return res, &RefusedError{Component: p.step.Component, Err: err, Next: "observability-upgrade plan"}
		}
		for i := range changes {
			changes[i].Health.Excused = prop.Baseline[changes[i].Set()]
		}
		req.Changes = append(req.Changes, changes...)
		if name := p.step.Component; !kept[name] {
			req.Subjects = append(req.Subjects, s.subject(p.in))
			kept[name] = true
		}
	}
	for _, dir := range stagingNames(steps) {
		req.StagingDirs = append(req.StagingDirs, filepath.Join(s.staging(), dir))
	}
	told := hook{trigger: o.Trigger, components: unattempted(steps)}
	if err := s.hooksBefore(ctx, told); err != nil {
		s.clearStaging(stagingNames(steps)...)
		res.Components = unattempted(steps)
		if ctx.Err() != nil {
			res.Status = run.StatusCancelled
		}
		s.hooksAfter(ctx, told, &res)
		return res, err
	}
	result, err := s.engine().Execute(ctx, req)
	s.hooksAfter(ctx, told, &result)
	s.reloadStale(ctx, &result)
	if !errors.Is(err, hostfs.ErrCrashed) {
		s.assessAgain(ctx)
	}
	s.recordAfter(prop.View, prop.look, reached(result, ready))
	s.pruneCache(ready)
	if len(refused) > 0 && result.Status == run.StatusFailed && err == nil {
		err = fmt.Errorf("%s was left out: %s", refused[0].Name, refused[0].Error)
	}
	return result, err
}

// reached is the version that each component of a run is at afterwards, as far as
// that is known, in the words of its binary, as the next look finds it.
func reached(res run.Result, ready []*prepared) map[string]component.Version {
	at := map[string]component.Version{}
	for _, o := range res.Components {
		if o.Status != run.Upgraded {
			continue
		}
		at[o.Name] = o.To
		for _, p := range ready {
			if p.step.Component == o.Name && p.step.To.Equal(o.To) {
				at[o.Name] = p.says
			}
		}
	}
	return at
}

// prepareAll prepares every step before anything stops. With continueOn, steps
// that are refused are left out, unless all are.
func (s *Stack) prepareAll(ctx context.Context, prop *Proposal, steps []plan.Step, continueOn bool) (ready []*prepared, refused []run.Outcome, err error) {
	store := artifact.New(artifact.Options{
		CacheDir: s.cacheDir(), HTTP: s.http, Authorize: s.upstream.Authorize, Logger: s.Logger, Progress: s.Progress, Notice: s.Notice,
	})
	var first error
	dirs := stagingNames(steps)
	left := map[string]bool{}
	for i, st := range steps {
		if left[st.Component] {
			refused = append(refused, outcome(st, run.NotAttempted, fmt.Errorf("its step to %s was refused", st.From)))
			continue
		}
		p, err := s.prepareStep(ctx, store, st, prop.View.Installed[st.Component], dirs[i])
		if err == nil {
			ready = append(ready, p)
			continue
		}
		if ctx.Err() != nil {
			return nil, refused, ctx.Err()
		}
		refused = append(refused, outcome(st, run.Failed, err))
		left[st.Component] = true
		if first == nil {
			first = err
		}
		if !continueOn {
			return nil, refused, err
		}
		s.Notice(fmt.Sprintf("%v; it is left out of this run", err))
	}
	if len(refused) > 0 {
		var unfit []run.Outcome
		ready, unfit = fitting(prop.View.Input, ready, func(p *prepared) plan.Step { return p.step })
		refused = append(refused, unfit...)
	}
	if len(ready) == 0 {
		return nil, refused, first
	}
	return ready, refused, nil
}

// fitting leaves out what no longer fits the others, since some were refused, and
// the further steps of what it leaves out.
func fitting[T any](in plan.Input, all []T, step func(T) plan.Step) (fit []T, refused []run.Outcome) {
	at := map[string]component.Version{}
	left := map[string]bool{}
	for _, one := range all {
		st := step(one)
		if left[st.Component] {
			refused = append(refused, outcome(st, run.NotAttempted, fmt.Errorf("its step to %s was left out", st.From)))
			continue
		}
		if err := in.Fits(st.Component, st.To, at); err != nil {
			refused = append(refused, outcome(st, run.NotAttempted, err))
			left[st.Component] = true
			continue
		}
		at[st.Component] = st.To
		fit = append(fit, one)
	}
	return fit, refused
}

func unattempted(steps []plan.Step) []run.Outcome { return remaining(steps, nil) }

func remaining(steps []plan.Step, have []run.Outcome) []run.Outcome {
	type key struct{ name, to string }
	seen := map[key]bool{}
	for _, o := range have {
		seen[key{o.Name, o.To.String()}] = true
	}
	var out []run.Outcome
	for _, st := range steps {
		if !seen[key{st.Component, st.To.String()}] {
			out = append(out, run.Outcome{Name: st.Component, From: st.From, To: st.To, Status: run.NotAttempted})
		}
	}
	return out
}

// changes turns a prepared step into what the engine executes: one change, or one
// per instance. placed holds the digests of what earlier steps of the run put in
// place, and is added to.
func (s *Stack) changes(p *prepared, o ApplyOptions, placed map[string]string) ([]run.Change, error) {
	swaps, err := s.swaps(p, placed)
	if err != nil {
		return nil, err
	}
	var out []run.Change
	for _, one := range parts(p.in) {
		if one.Remote() {
			if ch := s.awayChange(p.in, one, p.step.From, p.step.To, o); ch != nil {
				out = append(out, *ch)
			}
			continue
		}
		ch := s.baseChange(one, p.step.From, p.step.To, o.SkipHealth)
		ch.Swaps, ch.Strategy, ch.Rolling = slices.Clone(swaps), o.Strategy, s.rolling(p.in, one)
		ch.ReleasedAt = p.step.Release.PublishedAt
		ch.Archive = string(p.staged.Archive)
		if sig := p.staged.Signed; sig.Type != "" {
			ch.Signature = &state.SignatureVerified{Type: sig.Type, Key: sig.Key, Version: p.step.To.String()}
		}
		need := s.needOf(one.Component, p.step.Reversible, ch.To.Less(ch.From), o.DataBackup)
		why := ""
		if ch.Data, why, err = s.dataOf(p.in, one, need); err != nil {
			return nil, err
		}
		if why != "" {
			s.Notice(fmt.Sprintf("%s: no copy of its data is kept: %s", one.Set(), why))
		}
		ch.TakeBack = need.takeBack
		out = append(out, ch)
	}
	s.listInstances(p.in, out)
	return out, nil
}

// swaps are the files of a step that change places.
func (s *Stack) swaps(p *prepared, placed map[string]string) ([]run.Swap, error) {
	var swaps []run.Swap
	by := map[string]string{}
	for _, f := range p.staged.Files {
		path, ok := p.in.Binaries[f.Name]
		if !ok {
			continue // not installed on this host: nothing to replace
		}
		if other := by[path]; other != "" {
			return nil, fmt.Errorf("its programs %s and %s are links to one file, %s: expected a file each", other, f.Name, path)
		}
		by[path] = f.Name
		old, ok := placed[path]
		if !ok {
			var err error
			if old, err = hostfs.Digest(path); err != nil {
				return nil, err
			}
		}
		// What was verified, whatever lies there by now: placing reads back what it
		// copied, and refuses anything else.
		swaps = append(swaps, run.Swap{
			Kind: backup.Binary, Name: f.Name, Path: path, Source: f.Path, Beside: hostfs.Beside(path, "new"), Old: old, New: f.SHA256, Tree: f.Tree,
		})
		placed[path] = f.SHA256
	}
	if len(swaps) == 0 {
		return nil, fmt.Errorf("none of its binaries (%v) is installed", p.in.Binaries)
	}
	return swaps, nil
}

// baseChange fills in what an upgrade and a rollback of a component share.
func (s *Stack) baseChange(in *inventory.Installed, from, to component.Version, skipHealth bool) run.Change {
	c := in.Component
	vars := s.vars(in)
	vars.Version = to.String()
	ch := run.Change{
		Component: c.Name, Instance: in.Instance, From: from, To: to, Service: in.Service, WasActive: in.Status.Active || in.Status.Activating,
		Executable: in.Path, Binaries: in.Binaries, RunsBinary: in.RunsPath,
		Health: run.Health{Spec: health.NewSpec(c, vars), Skip: skipHealth},
	}
	if !in.Status.Exists {
		ch.Service.Unit, ch.Service.Command = "", nil
	}
	return ch
}

// configPaths are where a component's configuration is on this host.
func (s *Stack) configPaths(c *component.Component) []string {
	var out []string
	for _, p := range c.Config.Paths {
		out = append(out, s.Root.Path(component.Vars{Name: c.Name}.Expand(p)))
	}
	return out
}

// subject is what a backup point keeps of a component.
func (s *Stack) subject(in *inventory.Installed) backup.Subject {
	c := in.Component
	sub := backup.Subject{Name: c.Name, Version: in.Version.String()}
	for _, b := range c.Binaries {
		if path, ok := in.Binaries[b.Name]; ok {
			sub.Binaries = append(sub.Binaries, backup.Source{Name: b.Name, Path: path, Tree: b.Tree})
		}
	}
	sub.Configs = s.configPaths(c)
	for _, one := range in.Local() {
		if one.Status.FragmentPath != "" {
			sub.Units = append(sub.Units, one.Status.FragmentPath)
		}
		sub.Units = append(sub.Units, one.Status.DropIns...)
	}
	slices.Sort(sub.Units)
	sub.Units = slices.Compact(sub.Units)
	return sub
}
