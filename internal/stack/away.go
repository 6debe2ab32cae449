package stack

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/health"
	"github.com/observability-upgrade/observability-upgrade/internal/inventory"
	"github.com/observability-upgrade/observability-upgrade/internal/plan"
	"github.com/observability-upgrade/observability-upgrade/internal/preflight"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
)

// checkAway asks the hosts of the plan's remote instances whether they are ready
// for it: the program there makes its own plan and pre-flight checks. What it says
// of the version it has is kept.
func (s *Stack) checkAway(ctx context.Context, v *View, p *plan.Plan, flags []string) []component.Check {
	to := map[string]component.Version{}
	var names []string
	for _, st := range p.Steps() {
		if to[st.Component].IsZero() {
			names = append(names, st.Component)
		}
		to[st.Component] = st.To
	}
	var checks []component.Check
	for _, name := range names {
		for _, one := range v.Installed[name].Copies {
			if !one.Remote() {
				continue
			}
			c := component.Check{Name: preflight.ServiceHealth, Component: one.Set(), Status: component.CheckOK}
			var err error
			if c.Detail, err = s.checkOneAway(ctx, one, to[name], flags); err != nil {
				c.Status, c.Detail = component.CheckFail, err.Error()
				c.Next = strings.Join(append(append([]string{}, one.Exec...), "status"), " ")
			}
			checks = append(checks, c)
		}
	}
	return checks
}

// How long a host may take to look at what it has, to test it, and to plan.
const (
	lookLimit = 30 * time.Second
	testLimit = time.Minute
	awayLimit = 3 * time.Minute
)

func (s *Stack) checkOneAway(ctx context.Context, one *inventory.Installed, to component.Version, flags []string) (string, error) {
	if err := isPlace(one.Component); err != nil {
		return "", err
	}
	at, err := s.statusAway(ctx, one)
	if err != nil {
		return "", err
	}
	if !at.Healthy {
		return "", fmt.Errorf("expected it healthy before the upgrade, found on its host: %s", cmp.Or(at.Detail, "it does not run"))
	}
	if !one.Version.Less(to) {
		return fmt.Sprintf("its host has %s already", one.Version), nil
	}
	var res struct {
		Status string        `json:"status"`
		Error  run.ErrorText `json:"error"`
	}
	args := append([]string{"apply", "--dry-run", "--component=" + one.Component.Name + "@" + to.String()}, flags...)
	if err := s.askAway(ctx, one, awayLimit, &res, args...); err != nil {
		return "", err
	}
	if res.Error != "" || res.Status != run.StatusDryRun && res.Status != run.StatusNothingToDo {
		return "", fmt.Errorf("its host is not ready for %s: %s", to, cmp.Or(string(res.Error), "its plan has the status "+res.Status))
	}
	return fmt.Sprintf("its host is at %s and ready for %s", one.Version, to), nil
}

// statusAway asks an instance's host how the component is there, and keeps its
// version.
func (s *Stack) statusAway(ctx context.Context, one *inventory.Installed) (ComponentStatus, error) {
	name := one.Component.Name
	var doc struct {
		Components []ComponentStatus `json:"components"`
		Error      run.ErrorText     `json:"error"`
	}
	if err := s.askAway(ctx, one, lookLimit, &doc, "status"); err != nil {
		return ComponentStatus{}, err
	}
	for _, c := range doc.Components {
		if c.Name != name {
			continue
		}
		at, err := component.ParseVersion(c.Current)
		if err != nil {
			return c, fmt.Errorf("expected the version that its host has, found %q: %w", c.Current, err)
		}
		one.Version = at
		return c, nil
	}
	return ComponentStatus{}, fmt.Errorf("expected %s on its host, found none%s", name, prefixed(": ", string(doc.Error)))
}

// verifyAway has an instance's host make its tests, and returns what they showed.
func (s *Stack) verifyAway(ctx context.Context, one *inventory.Installed) (health.Report, error) {
	out := health.Report{Name: one.Component.Name, Instance: one.Instance}
	var doc struct {
		Verification
		Error run.ErrorText `json:"error"`
	}
	if err := s.askAway(ctx, one, testLimit, &doc, "verify", "--component="+one.Component.Name); err != nil {
		return out, err
	}
	if doc.Error != "" || len(doc.Components) == 0 {
		return out, fmt.Errorf("expected its tests on its host, found none%s", prefixed(": ", string(doc.Error)))
	}
	first := doc.Components[0]
	out.Healthy, out.Verdict, out.Version, out.Checks = first.Healthy, first.Verdict, first.Version, first.Checks
	for _, more := range doc.Components[1:] { // it has several there
		if out.Checks = append(out.Checks, more.Checks...); !more.Healthy {
			out.Healthy, out.Verdict = false, more.Verdict
		}
	}
	return out, nil
}

// unasked is the report of what could not be asked: it is not known to be healthy.
func unasked(in *inventory.Installed, check, detail string) health.Report {
	return health.Report{
		Name: in.Component.Name, Instance: in.Instance, Verdict: health.Unhealthy,
		Checks: []health.Check{{Name: check, Status: health.Fail, Detail: detail}},
	}
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

// askAway runs this program on an instance's host and reads the document it prints.
func (s *Stack) askAway(ctx context.Context, one *inventory.Installed, limit time.Duration, doc any, args ...string) error {
	words := run.RemoteArgs(one.Exec, args...)
	text, err := runRemote(ctx, words, limit)
	if jsonErr := json.Unmarshal([]byte(text), doc); jsonErr != nil {
		return fmt.Errorf("`%s`: expected one JSON document, found %.200q: %w", strings.Join(words, " "), text, cmp.Or(err, jsonErr))
	}
	return nil
}

// maxAnswer bounds what is read of the program on another host.
const maxAnswer = 8 << 20

// runRemote runs a command with this process's environment, as ssh needs it, and
// returns its standard output. A cancelled context asks it to end, and kills it
// when it does not.
func runRemote(ctx context.Context, words []string, limit time.Duration) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it did not end within %s", limit))
	defer cancel()
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &limitedBuffer{to: &stderr, left: 64 << 10}
	var out bytes.Buffer
	cmd.Stdout = &limitedBuffer{to: &out, left: maxAnswer}
	err := cmd.Run()
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		if tail := strings.TrimSpace(stderr.String()); tail != "" {
			lines := strings.Split(tail, "\n")
			err = fmt.Errorf("%w: %s", err, lines[len(lines)-1])
		}
	}
	return out.String(), err
}

// limitedBuffer keeps the first bytes and swallows the rest.
type limitedBuffer struct {
	to   io.Writer
	left int
}

func (l *limitedBuffer) Write(p []byte) (int, error) {
	keep := min(l.left, len(p))
	l.left -= keep
	if _, err := l.to.Write(p[:keep]); err != nil {
		return 0, err
	}
	return len(p), nil
}

// awayFlags are the flags of an upgrade that its part on another host is made with
// too.
func awayFlags(data, force, skipHealth bool, strategy run.Strategy) []string {
	var out []string
	for flag, given := range map[string]bool{
		"--backup-data": data, "--force": force, "--skip-health-checks": skipHealth, "--strategy=" + string(run.Fast): strategy == run.Fast,
	} {
		if given {
			out = append(out, flag)
		}
	}
	slices.Sort(out)
	return out
}

// awayChange is the upgrade of an instance on another host; nil when it is at the
// version already.
func (s *Stack) awayChange(whole, one *inventory.Installed, from, to component.Version, o ApplyOptions) *run.Change {
	if one.Version.Less(to) && from.Less(to) && from.Less(one.Version) {
		from = one.Version
	}
	if from.Less(to) && !one.Version.IsZero() && !one.Version.Less(to) {
		return nil
	}
	args := append([]string{"apply", "--yes", "--component=" + whole.Component.Name + "@" + to.String()}, awayFlags(o.DataBackup, o.force, o.SkipHealth, o.Strategy)...)
	return s.awayTo(whole, one, from, to, o.SkipHealth, args)
}

func (s *Stack) awayTo(whole, one *inventory.Installed, from, to component.Version, skipHealth bool, args []string) *run.Change {
	vars := s.vars(one)
	vars.Version = to.String()
	ch := &run.Change{
		Component: whole.Component.Name, Instance: one.Instance, Rolling: s.rolling(whole, one), From: from, To: to,
		Health: run.Health{Spec: health.NewSpec(one.Component, vars), Skip: skipHealth},
	}
	ch.Rolling.Args = args
	return ch
}

// rollbackAway is the rollback of an instance on another host: to the newest backup
// there of that version. It is nil when the instance is at that version.
func (s *Stack) rollbackAway(ctx context.Context, whole, one *inventory.Installed, to component.Version, o RollbackOptions) (*run.Change, error) {
	name := whole.Component.Name
	if _, err := s.statusAway(ctx, one); err != nil {
		return nil, err
	}
	if one.Version.SameRelease(to) && !o.RestoreData {
		return nil, nil
	}
	stamp, err := run.BackupOf(func(doc any, args ...string) error { return s.askAway(ctx, one, lookLimit, doc, args...) }, name, to)
	if err != nil {
		return nil, err
	}
	args := []string{"rollback", "--to=" + stamp, "--yes", "--component=" + name}
	if o.RestoreData {
		args = append(args, "--restore-data")
	}
	if o.Force {
		args = append(args, "--force")
	}
	return s.awayTo(whole, one, one.Version, to, o.SkipHealth, args), nil
}

// isPlace reports whether a component is found by an address that can be probed
// from here, as an instance on another host must be.
func isPlace(c *component.Component) error {
	if c.Health.URL == "" && c.Health.MetricsURL == "" {
		return errors.New("it needs health.url or health.metrics_url, so that it can be probed from here")
	}
	return nil
}
