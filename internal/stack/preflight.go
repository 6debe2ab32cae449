package stack

import (
	"context"
	"runtime"

	"github.com/observability-upgrade/observability-upgrade/internal/artifact"
	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/health"
	"github.com/observability-upgrade/observability-upgrade/internal/history"
	"github.com/observability-upgrade/observability-upgrade/internal/inventory"
	"github.com/observability-upgrade/observability-upgrade/internal/plan"
	"github.com/observability-upgrade/observability-upgrade/internal/preflight"
)

// preflight makes the checks that a plan must pass.
func (s *Stack) preflight(ctx context.Context, v *View, p *plan.Plan, skipHealth, dataBackup bool) preflight.Report {
	return preflight.Run(ctx, preflight.Input{
		Data: s.dataCopies(v, p, dataBackup),
		Plan: p, Installed: v.Installed, Root: s.Root, Staging: s.staging(), StagingDirs: stagingNames(p.Steps()),
		SkipHealth: skipHealth, HoldsLock: s.holdsLock, CutOff: v.CutOff,
		Prober: s.prober, Target: s.target,
		Tool: func(ctx context.Context, args []string) (string, error) {
			return artifact.RunTool(ctx, args, preflight.DefaultDeadline)
		},
		TryWrite: s.host.TryWrite, History: s.historyOpens, Window: func(context.Context) component.Check { return s.checkWindow(p) },
		Downloads: s.downloads(p, v), HTTP: s.http, Gate: s.alertGate(), Now: s.now,
	})
}

// alertGate is the policy's gate, or nil.
func (s *Stack) alertGate() *preflight.Gate {
	g := s.Policy.AlertGate
	if g == nil {
		return nil
	}
	return &preflight.Gate{URL: g.URL, Queries: g.Queries, OnError: component.CheckStatus(g.OnError)}
}

// historyOpens proves that what the run does can be recorded.
func (s *Stack) historyOpens(ctx context.Context) error {
	db, err := history.OpenReadOnly(ctx, s.Root.History())
	if err != nil {
		return err
	}
	return db.Close()
}

// downloads lists where the files of each step come from.
func (s *Stack) downloads(p *plan.Plan, v *View) []preflight.Download {
	store := artifact.New(artifact.Options{CacheDir: s.cacheDir(), Logger: s.Logger})
	var out []preflight.Download
	for _, st := range p.Steps() {
		c := v.Installed[st.Component].Component
		d := preflight.Download{
			Component: st.Component, URL: s.sourceURL(c),
			Authorize: s.upstream.Authorize,
			Cached: store.Offline(artifact.Request{
				Component: c, Release: st.Release, OS: runtime.GOOS, Arch: runtime.GOARCH, Root: s.Root.Prefix(),
				SignatureRequired: s.Policy.Verification.Signature == "required",
			}),
		}
		if a, ok := st.Release.FindAsset(st.Asset); ok && a.URL != "" {
			d.URL = a.URL
		}
		out = append(out, d)
	}
	return out
}

// sourceURL is where a component's releases are listed, for those whose files
// have no address before they are resolved.
func (s *Stack) sourceURL(c *component.Component) string {
	switch c.Source.Type {
	case component.SourceGitHub:
		return s.Policy.Upstream.GitHub.APIURL
	case component.SourceGitLab:
		return s.Policy.Upstream.GitLab.APIURL
	case component.SourceGrafana:
		return s.Policy.Upstream.Grafana.APIURL
	case component.SourceHTTP:
		return component.Vars{Name: c.Name, Root: s.Root.Prefix()}.Expand(c.Source.URL)
	}
	return "" // of this host
}

// client is how a component is talked to.
func (s *Stack) client(in *inventory.Installed) component.Client {
	return health.NewClient(in.Component, s.vars(in))
}

// target is the probe of a component as it is installed now: what runs must be
// what is installed.
func (s *Stack) target(in *inventory.Installed) (health.Target, error) {
	t := health.NewTarget(in.Component, in.Service, s.vars(in), s.Policy.Timeouts.Health.Std())
	if in.RunsPath {
		t.Executable = in.Path
	}
	t.Version, t.Mend = in.Version, "observability-upgrade restart --component="+in.Component.Name
	return t, nil
}
