package stack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/observability-upgrade/observability-upgrade/internal/artifact"
	"github.com/observability-upgrade/observability-upgrade/internal/monitoring"
)

// promtoolDeadline bounds the check of the rules.
const promtoolDeadline = 30 * time.Second

// MonitoringOptions say what is installed where.
type MonitoringOptions struct {
	Rules     string // directory or file of the alert rules; empty: none
	Dashboard string // directory or file of the dashboard; empty: none
	Force     bool   // also over files that people changed
	DryRun    bool
}

// Monitoring is what became of it; its JSON form is the document of `monitoring
// install`.
type Monitoring struct {
	Files   []monitoring.Outcome `json:"files"`
	DryRun  bool                 `json:"dry_run"`
	Checked string               `json:"checked_with"` // the promtool that found no fault in the rules; empty: there is none
	// Loaded tells whether the rule_files of the Prometheus here name the rules; nil
	// where that is not known, or no rules were asked for.
	Loaded *bool `json:"loaded"`
}

// InstallMonitoring places the alert rules and the dashboard. The caller holds the
// lock, but for a dry run.
func (s *Stack) InstallMonitoring(ctx context.Context, o MonitoringOptions) (*Monitoring, error) {
	doc := &Monitoring{DryRun: o.DryRun}
	var files []monitoring.File
	for _, f := range []struct {
		kind, given string
		data        []byte
	}{
		{monitoring.KindRules, o.Rules, monitoring.Rules()},
		{monitoring.KindDashboard, o.Dashboard, monitoring.Dashboard()},
	} {
		if f.given == "" {
			continue
		}
		path, err := filepath.Abs(f.given)
		if err != nil {
			return nil, err
		}
		files = append(files, monitoring.File{Kind: f.kind, Path: monitoring.PathIn(f.kind, path), Data: f.data})
	}
	if o.Rules != "" {
		var err error
		if doc.Checked, err = s.checkRules(ctx, files[0].Data); err != nil {
			return nil, err
		}
	}
	var err error
	doc.Files, err = monitoring.Install(s.host, s.Root.Monitoring(), files, o.Force, o.DryRun)
	var edited *monitoring.EditedError
	if errors.As(err, &edited) {
		return nil, &RefusedError{
			Check: "monitoring", Err: err,
			Next: fmt.Sprintf("observability-upgrade monitoring show %s | diff %s -; to give up what is there, run the same command with --force", edited.Kind, edited.Path),
		}
	}
	if err != nil {
		return nil, err
	}
	if o.Rules != "" {
		if doc.Loaded, err = s.loadsRules(files[0].Path); err != nil {
			s.Notice(fmt.Sprintf("whether Prometheus loads the rules is not known: %v", err))
		}
	}
	return doc, nil
}

// checkRules has promtool look at the rules, where there is one, and returns its
// path. An old one may not know what they use.
func (s *Stack) checkRules(ctx context.Context, data []byte) (promtool string, err error) {
	promtool = s.Root.Path("usr/local/bin/promtool")
	if _, err := os.Stat(promtool); err != nil {
		if promtool, err = exec.LookPath("promtool"); err != nil {
			return "", nil // there is none
		}
	}
	dir, err := os.MkdirTemp("", "obsup-rules-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	file := filepath.Join(dir, "upgrade-alerts.yml")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		return "", err
	}
	out, err := artifact.RunTool(ctx, []string{promtool, "check", "rules", file}, promtoolDeadline)
	if err != nil {
		return "", &RefusedError{
			Check: "monitoring", Err: fmt.Errorf("%s check rules: %w: %s; nothing was written", promtool, err, strings.TrimSpace(out)),
			Next: "observability-upgrade check --component=prometheus",
		}
	}
	return promtool, nil
}

// loadsRules looks whether the configuration of the Prometheus here names a file
// of rules; nil where it has none.
func (s *Stack) loadsRules(path string) (*bool, error) {
	config := s.Root.Path("etc/prometheus/prometheus.yml")
	data, err := os.ReadFile(config)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var doc struct {
		RuleFiles []string `yaml:"rule_files"`
	}
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("%s: %w", config, err)
	}
	loaded := false
	for _, pattern := range doc.RuleFiles {
		if filepath.IsAbs(pattern) {
			pattern = s.Root.Path(pattern)
		} else {
			pattern = filepath.Join(filepath.Dir(config), pattern)
		}
		if ok, err := filepath.Match(pattern, path); err == nil && ok {
			loaded = true
		}
	}
	return &loaded, nil
}
