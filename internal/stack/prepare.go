package stack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/artifact"
	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/inventory"
	"github.com/observability-upgrade/observability-upgrade/internal/plan"
	"github.com/observability-upgrade/observability-upgrade/internal/sandbox"
)

// prepared is a step whose new files are staged, verified, probed and checked.
type prepared struct {
	step   plan.Step
	in     *inventory.Installed
	staged *artifact.Staged
	says   component.Version // what the new binary says of itself
}

// prepareStep is prepare as a span.
func (s *Stack) prepareStep(ctx context.Context, store *artifact.Store, step plan.Step, in *inventory.Installed, dir string) (*prepared, error) {
	ctx, end := s.Tracer.Span(ctx, "prepare "+step.Component,
		slog.String("component", step.Component), slog.String("from", step.From.String()), slog.String("to", step.To.String()))
	p, err := s.prepare(ctx, store, step, in, dir)
	end(err)
	return p, err
}

// prepare downloads and verifies a step, runs the new binary for its version
// and the new tools on the configuration in place. Nothing on the host changes
// but the staging directory and the cache. An error is a RefusedError.
func (s *Stack) prepare(ctx context.Context, store *artifact.Store, step plan.Step, in *inventory.Installed, dir string) (*prepared, error) {
	c := in.Component
	refuse := func(check string, err error, next string) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return &RefusedError{Component: step.Component, Check: check, Err: err, Next: next}
	}
	rel, err := s.upstream.Resolve(ctx, c, step.Release)
	if err != nil {
		return nil, refuse("release", err, "observability-upgrade check --refresh --component="+c.Name)
	}
	dctx, cancel := context.WithTimeoutCause(ctx, s.Policy.Timeouts.Download.Std(),
		fmt.Errorf("not downloaded within timeouts.download (%s)", s.Policy.Timeouts.Download.Std()))
	defer cancel()
	before, err := s.signedBefore()
	if err != nil {
		return nil, refuse("state", err, "observability-upgrade status")
	}
	// In one pass it is downloaded, verified and unpacked.
	dctx, end := s.Tracer.Span(dctx, "download", slog.String("component", c.Name), slog.String("asset", step.Asset))
	staged, err := store.Stage(dctx, artifact.Request{
		Component: c, Release: rel, OS: runtime.GOOS, Arch: runtime.GOARCH, Root: s.Root.Prefix(), Staging: s.staging(), Dir: dir,
		ChecksumRequired:  s.Policy.Verification.Checksum == "required",
		SignatureRequired: s.Policy.Verification.Signature == "required",
		AllowUnsigned:     s.mayBeUnsigned(c.Name),
		SignedBefore:      before[c.Name],
	})
	if err != nil {
		if cause := context.Cause(dctx); cause != nil && ctx.Err() == nil {
			err = errors.Join(cause, err)
		}
		end(err)
		return nil, refuse("download and verification", err, s.nextAfter(err, c, step.To))
	}
	end(nil, slog.Int64("bytes", staged.Size), slog.Bool("cached", staged.FromCache), slog.String("checksum", staged.ChecksumSource), slog.String("signature", staged.Signed.Type))
	p := &prepared{step: step, in: in, staged: staged}
	_, end = s.Tracer.Span(ctx, "probe", slog.String("component", c.Name))
	err = s.checkVersion(ctx, p)
	end(err)
	if err != nil {
		return nil, refuse("version of the new binary", err, "observability-upgrade check --refresh --component="+c.Name)
	}
	_, end = s.Tracer.Span(ctx, "config check", slog.String("component", c.Name))
	err = s.checkConfig(ctx, p)
	end(err)
	if err != nil {
		return nil, refuse("configuration check by the new version", err, "correct the configuration, then: observability-upgrade apply --component="+c.Name)
	}
	return p, nil
}

func (s *Stack) staging() string {
	if s.Policy.Paths.Staging != "" {
		return s.Root.Path(s.Policy.Paths.Staging)
	}
	return s.Root.Staging()
}

// file is the staged file of a binary by its name; for a tree, the probe's path
// inside it is appended by the caller.
func (p *prepared) file(name string) (artifact.File, bool) {
	for _, f := range p.staged.Files {
		if f.Name == name {
			return f, true
		}
	}
	return artifact.File{}, false
}

func (s *Stack) checkVersion(ctx context.Context, p *prepared) error {
	c := p.in.Component
	main, ok := c.MainBinary()
	if !ok {
		return errors.New("the definition names no binary that tells the version")
	}
	f, ok := p.file(main.Name)
	if !ok {
		return fmt.Errorf("the archive holds no %s", main.Name)
	}
	spec := artifact.ProbeSpec{Path: filepath.Join(f.Path, c.Version.Path), Args: c.Version.Args, Regexp: c.Version.Regexp, Gaps: s.sandboxGaps}
	if f.Tree {
		spec.Tree = f.Path
	}
	got, out, err := artifact.Probe(ctx, spec)
	if err != nil {
		return fmt.Errorf("%s %s: %w", f.Name, strings.Join(c.Version.Args, " "), err)
	}
	if !p.step.To.SameRelease(got) {
		return fmt.Errorf("expected %s, the downloaded %s says %s (%.120q)", p.step.To, f.Name, got, firstLine(out))
	}
	p.says = got
	return nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}

// checkConfig runs the definition's config.check commands; a command that names
// a binary of the component is the new, staged one, in a sandbox.
func (s *Stack) checkConfig(ctx context.Context, p *prepared) error {
	c := p.in.Component
	vars := component.Vars{Name: c.Name, Version: p.step.To.String(), Root: s.Root.Prefix(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	for _, words := range c.Config.Check {
		args := vars.ExpandAll(words)
		tool, staged := args[0], false
		for _, f := range p.staged.Files {
			if f.Name == filepath.Base(tool) && (f.Name == tool || tool == p.in.Binaries[f.Name] || isInstall(c, s.Root.Path, tool)) {
				args[0], staged = f.Path, true
			}
		}
		var res string
		var err error
		if staged && !c.Config.Unconfined {
			res, err = artifact.RunNewTool(ctx, s.newTool(p, args, vars))
		} else {
			res, err = artifact.RunTool(ctx, args, configCheckLimit)
		}
		if err != nil {
			return fmt.Errorf("`%s`: %w%s", strings.Join(vars.ExpandAll(words), " "), err, indent(res))
		}
	}
	return nil
}

const configCheckLimit = 60 * time.Second

// newTool is how a new tool sees the host: with the component's configuration,
// wherever it lies, and without what this program keeps.
func (s *Stack) newTool(p *prepared, args []string, vars component.Vars) artifact.NewTool {
	t := artifact.NewTool{
		Args: args, Timeout: configCheckLimit, Gaps: s.sandboxGaps,
		Hide: []string{s.Root.SecretsDir(), s.Root.Lib(), s.Root.Backups(), s.Root.Cache()},
	}
	if !s.Root.IsHost() {
		t.Show = append(t.Show, s.Root.Prefix())
	}
	for _, path := range p.in.Component.Config.Paths {
		t.Show = append(t.Show, s.Root.Path(vars.Expand(path)))
	}
	for _, f := range p.staged.Files {
		if f.Tree {
			t.Show = append(t.Show, f.Path)
		}
	}
	return t
}

// sandboxGaps tells, once, what this host does not give to keep new programs in.
func (s *Stack) sandboxGaps(missing []sandbox.Gap) {
	if s.gapsTold {
		return
	}
	s.gapsTold = true
	words := make([]string, len(missing))
	for i, g := range missing {
		words[i] = g.String()
	}
	s.Notice(fmt.Sprintf("new programs are tried with less protection than there could be; this host does not give: %s; see docs/security.md", strings.Join(words, ", ")))
}

func isInstall(c *component.Component, root func(...string) string, tool string) bool {
	for _, b := range c.Binaries {
		if root(b.Install) == tool || b.Install == tool {
			return true
		}
	}
	return false
}

// indent shows the last lines a tool printed, below the error.
func indent(out string) string {
	out = strings.TrimSpace(out)
	if out == "" {
		return ""
	}
	lines := strings.Split(out, "\n")
	if len(lines) > 8 {
		lines = lines[len(lines)-8:]
	}
	return "\n    " + strings.Join(lines, "\n    ")
}

// stagingNames gives each step the name of its staging directory: the
// component's, and for its further steps the version with it.
func stagingNames(steps []plan.Step) []string {
	seen := map[string]bool{}
	out := make([]string, len(steps))
	for i, st := range steps {
		out[i] = st.Component
		if seen[st.Component] {
			out[i] += "-" + st.To.Core()
		}
		seen[st.Component] = true
	}
	return out
}

// clearStaging removes what was staged.
func (s *Stack) clearStaging(names ...string) {
	for _, n := range names {
		if err := os.RemoveAll(filepath.Join(s.staging(), n)); err != nil {
			s.Logger.Warn("staging not removed", "directory", n, "error", err)
		}
	}
}
