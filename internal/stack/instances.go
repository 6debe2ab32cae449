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
	"strings"
	"syscall"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/artifact"
	"github.com/observability-upgrade/observability-upgrade/internal/balancer"
	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/config"
	"github.com/observability-upgrade/observability-upgrade/internal/discovery"
	"github.com/observability-upgrade/observability-upgrade/internal/health"
	"github.com/observability-upgrade/observability-upgrade/internal/inventory"
	"github.com/observability-upgrade/observability-upgrade/internal/plan"
	"github.com/observability-upgrade/observability-upgrade/internal/preflight"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
)

// finder looks for what is installed, instances included.
func (s *Stack) finder() *inventory.Finder {
	return &inventory.Finder{
		Root: s.Root, Services: s.services, Probe: s.probe, Logger: s.Logger,
		Instances: func(ctx context.Context, c *component.Component) ([]component.Instance, error) {
			return discovery.Instances(ctx, c, discovery.Options{Expand: config.Expander(s.Root, s.Env), Root: s.Root.Prefix()})
		},
	}
}

// vars are the placeholders of a component, or of an instance of it.
func (s *Stack) vars(in *inventory.Installed) component.Vars {
	return component.Vars{Name: in.Component.Name, Version: in.Version.String(), Root: s.Root.Prefix(), Instance: in.Instance}
}

// parts are what a change of a component is made on: its instances, or itself.
func parts(in *inventory.Installed) []*inventory.Installed {
	if len(in.Copies) > 0 {
		return in.Copies
	}
	return []*inventory.Installed{in}
}

// rolling says how one of several instances leaves traffic and comes back; nil for
// a component that has not several.
func (s *Stack) rolling(whole, one *inventory.Installed) *run.Rolling {
	if len(whole.Copies) == 0 {
		return nil
	}
	r := &run.Rolling{Remote: one.Exec}
	if b := whole.Component.Balancer; b != nil {
		r.Balancer, r.Server = b, s.vars(one).Expand(cmp.Or(one.Server, b.Server, "{instance}"))
	}
	return r
}

// openBalancer is the engine's way to a load balancer.
func (s *Stack) openBalancer(b component.Balancer, server string) (balancer.Balancer, error) {
	return balancer.New(b, server, balancer.Options{
		Host: s.host, Root: s.Root, Exec: artifact.RunTool, Expand: config.Expander(s.Root, s.Env),
	})
}

// loneNotice tells of a component with instances declared that has fewer than two:
// as specification section 5 says it is upgraded the standard way.
func (s *Stack) loneNotice(declared *component.Component, in *inventory.Installed) {
	if declared.Instances.IsZero() || len(in.Copies) > 0 || in.Problem != "" {
		return
	}
	s.Notice(declared.Name + ": fewer than two instances were found, so it is upgraded the standard way, with a short time down")
}

// checkAway asks the hosts of the plan's remote instances whether they are ready
// for it: the program there makes its own plan and pre-flight checks. What it says
// of the version it has is kept.
func (s *Stack) checkAway(ctx context.Context, v *View, p *plan.Plan) []component.Check {
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
			if c.Detail, err = s.checkOneAway(ctx, one, to[name]); err != nil {
				c.Status, c.Detail = component.CheckFail, err.Error()
				c.Next = strings.Join(append(append([]string{}, one.Exec...), "status"), " ")
			}
			checks = append(checks, c)
		}
	}
	return checks
}

const awayLimit = 3 * time.Minute

func (s *Stack) checkOneAway(ctx context.Context, one *inventory.Installed, to component.Version) (string, error) {
	name := one.Component.Name
	if err := isPlace(one.Component); err != nil {
		return "", err
	}
	var status struct {
		Components []struct {
			Name, Current string
			Healthy       bool
			Detail        string
		} `json:"components"`
		Error run.ErrorText `json:"error"`
	}
	if err := s.askAway(ctx, one, &status, "status"); err != nil {
		return "", err
	}
	var at component.Version
	for _, c := range status.Components {
		if c.Name != name {
			continue
		}
		var err error
		if at, err = component.ParseVersion(c.Current); err != nil {
			return "", fmt.Errorf("expected the version that its host has, found %q: %w", c.Current, err)
		}
		if !c.Healthy {
			return "", fmt.Errorf("expected it healthy before the upgrade, found on its host: %s", cmp.Or(c.Detail, "it does not run"))
		}
	}
	if at.IsZero() {
		return "", fmt.Errorf("expected %s on its host, found none%s", name, prefixed(": ", string(status.Error)))
	}
	one.Version = at
	if !at.Less(to) {
		return fmt.Sprintf("its host has %s already", at), nil
	}
	var res struct {
		Status string        `json:"status"`
		Error  run.ErrorText `json:"error"`
	}
	if err := s.askAway(ctx, one, &res, "apply", "--dry-run", "--component="+name+"@"+to.String()); err != nil {
		return "", err
	}
	if res.Error != "" || res.Status != run.StatusDryRun && res.Status != run.StatusNothingToDo {
		return "", fmt.Errorf("its host is not ready for %s: %s", to, cmp.Or(string(res.Error), "its plan has the status "+res.Status))
	}
	return fmt.Sprintf("its host is at %s and ready for %s", at, to), nil
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

// askAway runs this program on an instance's host and reads the document it prints.
func (s *Stack) askAway(ctx context.Context, one *inventory.Installed, doc any, args ...string) error {
	words := append(append(append([]string{}, one.Exec...), args...), "--output=json")
	text, err := runRemote(ctx, words, awayLimit)
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

// awayChange is the change of an instance on another host; nil when it is at the
// version already.
func (s *Stack) awayChange(whole, one *inventory.Installed, from, to component.Version, skipHealth bool) *run.Change {
	if one.Version.Less(to) && from.Less(to) && from.Less(one.Version) {
		from = one.Version
	}
	if from.Less(to) && !one.Version.IsZero() && !one.Version.Less(to) {
		return nil
	}
	vars := s.vars(one)
	vars.Version = to.String()
	return &run.Change{
		Component: whole.Component.Name, Instance: one.Instance, Rolling: s.rolling(whole, one), From: from, To: to,
		Health: run.Health{Spec: health.NewSpec(one.Component, vars), Skip: skipHealth},
	}
}

// isPlace reports whether a component is found by an address that can be probed
// from here, as an instance on another host must be.
func isPlace(c *component.Component) error {
	if c.Health.URL == "" && c.Health.MetricsURL == "" {
		return errors.New("it needs health.url or health.metrics_url, so that it can be probed from here")
	}
	return nil
}
