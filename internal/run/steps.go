package run

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/health"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

// place copies the new bytes beside the old ones while the service still runs,
// and reads them back: from here on the swap itself cannot run out of space.
func (r *running) place(ctx context.Context, ch Change) error {
	for _, s := range ch.Swaps {
		if err := ctx.Err(); err != nil {
			return err
		}
		have, err := hostfs.Digest(s.Path)
		if err != nil {
			return err
		}
		if ch.Rolling != nil {
			// Instances share the files: an earlier one may have put them there.
			if r.already[s.Path] = have == s.New; r.already[s.Path] {
				continue
			}
		}
		if have != s.Old {
			// An undo puts back what was planned to be there, and must find it.
			return &ChangedError{Path: s.Path, Want: s.Old, Have: have}
		}
		if err := r.Host.RemoveAll(s.Beside); err != nil {
			return err
		}
		if err := r.Host.MkdirAll(filepath.Dir(s.Path), 0o755); err != nil {
			return err
		}
		if err := r.Host.Copy(s.Source, s.Beside, r.like(s)); err != nil {
			return err
		}
		got, err := hostfs.Digest(s.Beside)
		if err != nil {
			return err
		}
		if got != s.New {
			return fmt.Errorf("%s: copied bytes have sha256 %s, expected %s; %s was changed since it was verified", s.Beside, got, s.New, s.Source)
		}
	}
	return nil
}

// ChangedError says that a file is not what it was when the run was planned.
type ChangedError struct {
	Path       string
	Want, Have string // digests; "" where there was or is no file
}

func (e *ChangedError) Error() string {
	told := func(digest string) string {
		if digest == "" {
			return "no file"
		}
		return "sha256 " + digest
	}
	return fmt.Sprintf("%s was changed since this run was planned: expected %s, found %s; look at it, and start again", e.Path, told(e.Want), told(e.Have))
}

// like is the file whose owner, mode and attributes a swap keeps: for an
// upgrade those of the file in place; a backup carries its own.
func (r *running) like(s Swap) string {
	if s.Old == "" || r.head.Operation == Rollback {
		return ""
	}
	return s.Path
}

// stop ends the service; the detail says when it had to be forced.
func (r *running) stop(ctx context.Context, ch Change) (string, error) {
	if !ch.hasService() {
		return "no service", nil
	}
	if err := r.Host.Check("service.stop", ch.Service.Label()); err != nil {
		return "", err
	}
	res, err := r.Services.Stop(ctx, ch.Service, r.Timeouts.Stop)
	if err != nil {
		return "", err
	}
	if res.Idle {
		return "it did not run", nil
	}
	if res.Forced {
		r.warn("%s did not stop within %s and was killed", ch.Service.Label(), r.Timeouts.Stop)
		return fmt.Sprintf("killed after %s", r.Timeouts.Stop), nil
	}
	return fmt.Sprintf("stopped in %s", res.Took.Round(time.Millisecond)), nil
}

// swap exchanges every file of the component. The directories are synced later,
// while the new version starts: until the change is committed its undo goes by
// what is on disk, whichever of the two states a power cut leaves there.
func (r *running) swap(ctx context.Context, ch Change) error {
	for _, s := range ch.Swaps {
		if r.already[s.Path] {
			continue
		}
		if s.Old == "" {
			if err := r.Host.Rename(s.Beside, s.Path); err != nil {
				return err
			}
			continue
		}
		if err := r.Host.Exchange(s.Path, s.Beside); err != nil {
			return err
		}
	}
	if ch.touchesUnits() {
		return r.daemonReload(ctx)
	}
	return nil
}

// paths are the places of a change's files.
func paths(ch Change) []string {
	var out []string
	for _, s := range ch.Swaps {
		out = append(out, s.Path)
	}
	return out
}

func (r *running) daemonReload(ctx context.Context) error {
	if err := r.Host.Check("service.daemon-reload", ""); err != nil {
		return err
	}
	return r.Services.DaemonReload(ctx)
}

// startLimit bounds a start. A unit that tells when it is ready (Type=notify) has
// started only then, for which its definition may give it longer.
func (r *running) startLimit(ch Change) time.Duration {
	return max(r.Timeouts.Start, ch.Health.Spec.Health.Timeout.Std())
}

func (r *running) start(ctx context.Context, ch Change) error {
	if err := r.Host.Check("service.start", ch.Service.Label()); err != nil {
		return err
	}
	limit := r.startLimit(ch)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("%s did not start within %s", ch.Service.Label(), limit))
	defer cancel()
	err := r.Services.Start(ctx, ch.Service)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	return err
}

// restart restarts the service in one go of its manager.
func (r *running) restart(ctx context.Context, ch Change) error {
	if err := r.Host.Check("service.restart", ch.Service.Label()); err != nil {
		return err
	}
	limit := r.Timeouts.Stop + r.startLimit(ch)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("%s did not restart within %s", ch.Service.Label(), limit))
	defer cancel()
	err := r.Services.Restart(ctx, ch.Service, r.Timeouts.Stop)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	return err
}

// reload has a running component re-read its configuration, where that is the
// strategy; done is false where it must be restarted after all.
func (r *running) reload(ctx context.Context, ch Change) (done bool, at time.Time, err error) {
	if ch.Strategy != Reload || !ch.WasActive || r.ReloadConfig == nil {
		return false, r.Now(), nil
	}
	if err := r.Host.Check("service.reload", ch.Service.Label()); err != nil {
		return false, r.Now(), err
	}
	before := r.restarts(ctx, ch)
	err = r.step(ctx, ch, StepReload, func() (string, error) {
		done, err = r.ReloadConfig(ctx, ch)
		if err == nil && !done {
			return "it cannot re-read its configuration; it is restarted gracefully", nil
		}
		return "", err
	})
	if done {
		r.goesOn(ch, before)
	}
	return done, r.Now(), err
}

// restarts is how often the service was restarted by itself since it was last
// started by hand.
func (r *running) restarts(ctx context.Context, ch Change) int {
	st, err := r.Services.Status(ctx, ch.Service)
	if err != nil || !st.Active {
		return 0
	}
	return st.Restarts
}

// goesOn notes that a change leaves the process as it is: only a restart beyond
// those before it is a crash.
func (r *running) goesOn(ch Change, restarts int) {
	r.crashed[ch.key()] = restarts
}

// UnhealthyError says why a component that was started is not healthy.
type UnhealthyError struct {
	Component string
	Version   string
	Report    health.Report
}

func (e *UnhealthyError) Error() string {
	return fmt.Sprintf("%s %s is not healthy: %s", e.Component, e.Version, e.Report.Failures())
}

// tellBlind warns of a fingerprint without one answer: what would show that data is
// lost cannot be asked, as where credentials are missing.
func (r *running) tellBlind(ch Change) {
	if print, ok := r.prints[ch.key()]; ok && print.Known() == 0 && len(print.Values) > 0 {
		r.warn("%s: nothing can tell whether its data is still there afterwards: %s", ch.Set(), print.Missing())
	}
}

// prove waits until the component is healthy at a version and stays so.
func (r *running) prove(ctx context.Context, ch Change, version string, ready func(time.Time)) (string, error) {
	if err := r.Host.Check("health", ch.Component); err != nil {
		return "", err
	}
	t, err := r.target(ch, version)
	if err != nil {
		return "", err
	}
	rep, err := r.prober(ch).Await(ctx, t, health.Watcher{
		Ready: func(health.Report) { ready(r.Now()) },
		Progress: func(how string) {
			r.tell(Event{Component: ch.Component, Instance: ch.Instance, Step: StepHealth, Detail: how})
		},
	})
	if err != nil {
		return "", err
	}
	if !rep.Healthy {
		return "", &UnhealthyError{Component: ch.Set(), Version: version, Report: rep}
	}
	for _, c := range rep.Checks {
		if c.Status == health.Warn {
			r.warn("%s: %s: %s", ch.Component, c.Name, c.Detail)
		}
	}
	if ch.Health.Skip {
		r.warn("%s runs at %s, but its health was not checked (--skip-health-checks); look: observability-upgrade verify --component=%s", ch.Set(), version, ch.Component)
		return fmt.Sprintf("running at %s; health was not checked", version), nil
	}
	if rep.Verdict == health.Inconclusive {
		return fmt.Sprintf("runs at %s, but whether it is healthy could not be decided", version), nil
	}
	return fmt.Sprintf("healthy at %s", version), nil
}

func (r *running) target(ch Change, version string) (health.Target, error) {
	t := health.Target{Component: ch.Component, Instance: ch.Instance, Service: ch.Service, Timeout: ch.Health.Spec.Health.Timeout.Std(), Restarts: r.crashed[ch.key()]}
	if t.Timeout == 0 {
		t.Timeout = r.Timeouts.Health
	}
	if ch.RunsBinary {
		t.Executable = ch.Executable
	}
	if ch.Health.Skip {
		t.Spec.Health.Settle = ch.Health.Spec.Health.Settle
		return t, nil
	}
	t.Spec, t.Excused = ch.Health.Spec, ch.Health.Excused
	if version != "" {
		v, err := component.ParseVersion(version)
		if err != nil {
			return t, err
		}
		t.Version = v
	}
	return t, nil
}

// clearBeside removes what a finished change left beside its files. Where instances
// share them, that is what the undo of another needs: clearShared does it in the end.
func (r *running) clearBeside(ch Change) error {
	if ch.Rolling != nil && !ch.remote() {
		return nil
	}
	return r.clear(ch)
}

// clearShared removes what lies beside files that instances share, once nothing of
// the run will be undone any more.
func (r *running) clearShared() error {
	var errs []error
	for _, ch := range r.req.Changes {
		if ch.Rolling != nil && !ch.remote() {
			errs = append(errs, r.clear(ch))
		}
	}
	return errors.Join(errs...)
}

func (r *running) clear(ch Change) error {
	for _, s := range ch.Swaps {
		if err := r.keepEdited(s); err != nil {
			return err
		}
		for _, path := range []string{s.Beside, s.unfinished(), hostfs.Aside(s.Beside)} {
			if err := r.Host.RemoveAll(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}
