// Package config reads what an administrator writes: the policy, the
// compatibility matrix, the notifications, and the secrets they name. Files are
// decoded strictly, all mistakes of a file are reported at once with file and
// line, and files that others can write are refused.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/yamlfile"
)

// Policy is etc/observability/upgrade-policy.yaml with defaults filled in
// (docs/reference.md).
type Policy struct {
	Upstream           Upstream        `yaml:"upstream"`
	Verification       Verification    `yaml:"verification"`
	ServiceManager     string          `yaml:"service_manager"` // auto | systemd | process
	Timeouts           Timeouts        `yaml:"timeouts"`
	Retention          Retention       `yaml:"retention"`
	OnFailure          string          `yaml:"on_failure"` // abort | continue
	Paths              Paths           `yaml:"paths"`
	Holds              []Hold          `yaml:"holds"`
	Pins               []Hold          `yaml:"pins"`       // a version is required: the component stays within it
	AlertGate          *AlertGate      `yaml:"alert_gate"` // nil: none
	Hooks              Hooks           `yaml:"hooks"`
	Metrics            Metrics         `yaml:"metrics"`             // where they are written, besides being served
	AutoUpgrade        *AutoUpgrade    `yaml:"auto_upgrade"`        // nil: not given here
	MaintenanceWindows []Window        `yaml:"maintenance_windows"` // nil: not given here
	Vulnerabilities    Vulnerabilities `yaml:"vulnerabilities"`
	File               string          `yaml:"-"`
	Root               *yamlfile.Node  `yaml:"-"` // the file as written, secrets filled in; nil without a file
}

// Upstream says where releases are listed.
type Upstream struct {
	GitHub      Forge              `yaml:"github"`
	GitLab      Forge              `yaml:"gitlab"`
	Grafana     Forge              `yaml:"grafana"`
	CacheTTL    component.Duration `yaml:"cache_ttl"`
	Concurrency int                `yaml:"concurrency"` // requests at a time
}

// Forge is one API. Its address has no slash at the end.
type Forge struct {
	APIURL string `yaml:"api_url"`
	Token  Secret `yaml:"token"`
}

// Verification says what must vouch for a download.
type Verification struct {
	Checksum  string `yaml:"checksum"`  // required | if_available
	Signature string `yaml:"signature"` // if_configured | required
	// AllowUnsigned names the components that may come without a signature in
	// spite of all that asks for one; a signature that is there must hold.
	AllowUnsigned []string `yaml:"allow_unsigned"`
}

// Timeouts bound the steps of a run.
type Timeouts struct {
	Stop     component.Duration `yaml:"stop"`
	Start    component.Duration `yaml:"start"`
	Health   component.Duration `yaml:"health"`
	Download component.Duration `yaml:"download"`
}

// maxCacheMiB is more than any disk has, and fits in bytes.
const maxCacheMiB = 1 << 30

// Retention says what is kept.
type Retention struct {
	Backups  int `yaml:"backups"`   // backup points
	Runs     int `yaml:"runs"`      // what is recorded of a run: steps, result, evidence, journal
	CacheMiB int `yaml:"cache_mib"` // size of the cached archives; those that are needed stay beyond it
}

// Paths moves directories.
type Paths struct {
	Staging string `yaml:"staging"`
}

// Metrics says where metrics are written, besides being served.
type Metrics struct {
	Textfile string `yaml:"textfile"` // file for node_exporter's textfile collector, absolute and ending in .prom; empty: none
}

// Hold keeps a component from versions.
type Hold struct {
	Component string `yaml:"component"`
	Version   string `yaml:"version"` // a range; empty for all
	Reason    string `yaml:"reason"`
	Until     string `yaml:"until"` // YYYY-MM-DD, the hold ends as that day begins in UTC, or RFC 3339
}

// UntilTime is the end of the hold; zero for never.
func (h Hold) UntilTime() (time.Time, error) {
	if h.Until == "" {
		return time.Time{}, nil
	}
	for _, form := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(form, h.Until); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q: want a date such as 2026-12-31 or a time such as 2026-12-31T06:00:00Z", h.Until)
}

func defaults() *Policy {
	seconds := func(n int) component.Duration { return component.Duration(time.Duration(n) * time.Second) }
	return &Policy{
		Upstream: Upstream{
			GitHub: Forge{APIURL: "https://api.github.com"}, GitLab: Forge{APIURL: "https://gitlab.com/api/v4"},
			Grafana: Forge{APIURL: "https://grafana.com/api"}, CacheTTL: seconds(15 * 60), Concurrency: 50,
		},
		Verification:   Verification{Checksum: "required", Signature: "if_configured"},
		ServiceManager: "auto", OnFailure: "abort",
		Timeouts:        Timeouts{Stop: seconds(30), Start: seconds(60), Health: seconds(60), Download: seconds(600)},
		Retention:       Retention{Backups: 5, Runs: 200, CacheMiB: 2048},
		Hooks:           Hooks{Timeout: seconds(60)},
		Vulnerabilities: Vulnerabilities{Enabled: true, Database: "https://vuln.go.dev", MaxAge: seconds(7 * 24 * 3600)},
	}
}

// LoadPolicy reads the policy below root; a missing file means the defaults. env
// gives environment variables: OBSERVABILITY_UPGRADE_GITHUB_API_URL,
// OBSERVABILITY_UPGRADE_GITLAB_API_URL and GITHUB_TOKEN override the file, and a
// secret that is overridden need not exist. Top-level keys named in unread are
// taken for not given, with what they say and the secrets they need. Errors are
// yamlfile.Errors, all of them at once, or a yamlfile.InsecureError. Beside errors
// the policy is what could be read of it, for those who look for further mistakes;
// nil where that is nothing.
func LoadPolicy(root layout.Root, env func(string) string, unread ...string) (*Policy, error) {
	p := defaults()
	p.File = root.Policy()
	node, errs, err := load(p.File)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if slices.Contains(unread, "upstream") {
		env = unset(env, "GITHUB_TOKEN", "OBSERVABILITY_UPGRADE_GITHUB_API_URL", "OBSERVABILITY_UPGRADE_GITLAB_API_URL")
	}
	for _, key := range unread {
		node = without(node, key)
	}
	token := env("GITHUB_TOKEN")
	if token != "" {
		node = without(node, "upstream", "github", "token")
	}
	x := &expander{root: root, env: env}
	node, unknown := node.MapStrings(x.expand)
	p.Root = node
	errs = errs.Beside(append(unknown, decode(node, p)...))
	if token != "" {
		p.Upstream.GitHub.Token = Secret(token)
	}
	for _, f := range []struct {
		variable string
		into     *string
	}{
		{"OBSERVABILITY_UPGRADE_GITHUB_API_URL", &p.Upstream.GitHub.APIURL},
		{"OBSERVABILITY_UPGRADE_GITLAB_API_URL", &p.Upstream.GitLab.APIURL},
	} {
		if v := env(f.variable); v != "" {
			*f.into = v
			if err := checkURL(v); err != nil {
				errs = append(errs, yamlfile.Error{File: inEnvironment + f.variable, Message: fmt.Sprintf("%q %v", showURL(v), err)})
				*f.into = "https://example.invalid" // reported; not once more below
			}
		}
	}
	if err := errs.Beside(p.validate()).Err(); err != nil {
		return p, err
	}
	for _, f := range []*Forge{&p.Upstream.GitHub, &p.Upstream.GitLab, &p.Upstream.Grafana} {
		f.APIURL = strings.TrimRight(f.APIURL, "/")
	}
	p.AlertGate.complete()
	return p, nil
}

// inEnvironment begins the place of an error that is in no file.
const inEnvironment = "environment variable "

func (p *Policy) validate() yamlfile.Errors {
	v := validator{node: p.Root, file: p.File}
	for _, f := range []struct {
		name  string
		forge Forge
	}{{"github", p.Upstream.GitHub}, {"gitlab", p.Upstream.GitLab}, {"grafana", p.Upstream.Grafana}} {
		if err := checkURL(f.forge.APIURL); err != nil {
			path := []any{"upstream", f.name, "api_url"}
			v.fail(path, "%s %v", v.quote(path, showURL(f.forge.APIURL)), err)
		}
	}
	if n := p.Upstream.Concurrency; n < 1 || n > 64 {
		v.fail([]any{"upstream", "concurrency"}, "%d: want 1 to 64", n)
	}
	v.oneOf([]any{"verification", "checksum"}, p.Verification.Checksum, "required", "if_available")
	v.oneOf([]any{"verification", "signature"}, p.Verification.Signature, "if_configured", "required")
	for i, name := range p.Verification.AllowUnsigned {
		if at := []any{"verification", "allow_unsigned", i}; name == "" || slices.Contains(p.Verification.AllowUnsigned[:i], name) {
			v.fail(at, "%s: want the name of a component, once", v.quote(at, name))
		}
	}
	v.oneOf([]any{"service_manager"}, p.ServiceManager, "auto", "systemd", "process")
	v.oneOf([]any{"on_failure"}, p.OnFailure, "abort", "continue")
	for _, d := range []struct {
		name string
		d    component.Duration
	}{{"stop", p.Timeouts.Stop}, {"start", p.Timeouts.Start}, {"health", p.Timeouts.Health}, {"download", p.Timeouts.Download}} {
		if d.d <= 0 {
			v.fail([]any{"timeouts", d.name}, "must be more than 0")
		}
	}
	if n := p.Retention.Backups; n < 1 {
		v.fail([]any{"retention", "backups"}, "%d: at least 1 is kept, or nothing could be rolled back", n)
	}
	if n := p.Retention.Runs; n < 1 {
		v.fail([]any{"retention", "runs"}, "%d: at least 1 is kept, that of the newest run", n)
	}
	if n := p.Retention.CacheMiB; n < 0 || n > maxCacheMiB {
		v.fail([]any{"retention", "cache_mib"}, "%d: want a number of MiB, at most %d; 0 keeps only what is needed", n, maxCacheMiB)
	}
	if s := p.Paths.Staging; s != "" && (!filepath.IsAbs(s) || filepath.Clean(s) == "/") {
		path := []any{"paths", "staging"}
		v.fail(path, "%s: want the absolute path of a directory of its own", v.quote(path, s))
	}
	v.holds("holds", p.Holds)
	v.holds("pins", p.Pins)
	for i, h := range p.Pins {
		if h.Version == "" {
			v.fail([]any{"pins", i}, "version is not given: which versions may %s be at?", h.Component)
		}
	}
	v.alertGate(p.AlertGate)
	v.hooks(p.Hooks)
	if s := p.Metrics.Textfile; s != "" && (!filepath.IsAbs(s) || filepath.Ext(s) != ".prom" || strings.HasSuffix(s, "/.prom")) {
		path := []any{"metrics", "textfile"}
		v.fail(path, "%s: want the absolute path of a file that ends in .prom, which is what node_exporter reads", v.quote(path, s))
	}
	v.autoUpgrade(p.AutoUpgrade)
	v.windows(p.MaintenanceWindows)
	v.vulnerabilities(p.Vulnerabilities)
	return v.errs
}

func (v *validator) holds(key string, list []Hold) {
	for i, h := range list {
		if h.Component == "" {
			v.fail([]any{key, i}, "component is not given")
		}
		if h.Version != "" {
			v.versions([]any{key, i, "version"}, h.Version)
		}
		if _, err := h.UntilTime(); err != nil {
			v.fail([]any{key, i, "until"}, "%v", err)
		}
	}
}

// validator gathers errors of one file.
type validator struct {
	node *yamlfile.Node
	file string
	errs yamlfile.Errors
}

func (v *validator) fail(path []any, format string, args ...any) {
	e := v.node.Errorf(path, format, args...)
	if e.File == "" {
		e.File = v.file
	}
	v.errs = append(v.errs, e)
}

// quote shows a value, unless it came from a secret or the environment.
func (v *validator) quote(path []any, value string) string {
	if n := v.node.At(path...); n != nil && n.Hidden {
		return "the value that ${…} stands for"
	}
	return fmt.Sprintf("%q", value)
}

func (v *validator) oneOf(path []any, got string, want ...string) {
	if slices.Contains(want, got) {
		return
	}
	hint := ""
	if near := yamlfile.Nearest(got, want); near != "" {
		hint = fmt.Sprintf("; did you mean %q?", near)
	}
	v.fail(path, "%s: want %s%s", v.quote(path, got), strings.Join(want, ", "), hint)
}

func (v *validator) versions(path []any, text string) {
	if _, err := ParseRange(text); err != nil {
		v.fail(path, "%v", err)
	}
}

func checkURL(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return errors.New("is not an http or https address")
	case u.User != nil:
		return errors.New("holds a user or password; give a token instead")
	case u.RawQuery != "" || u.Fragment != "":
		return errors.New("has a query (?) or a fragment (#), which an API's address must not have")
	}
	return nil
}

// showURL leaves out of an address what may be a password or a token.
func showURL(s string) string {
	u, err := url.Parse(s)
	switch {
	case err != nil && strings.ContainsAny(s, "@?"):
		return "…"
	case err != nil || u.User == nil && u.RawQuery == "":
		return s
	}
	return u.Scheme + "://" + u.Host + u.Path
}

// decode is Node.Decode with the errors as a list.
func decode(n *yamlfile.Node, out any) yamlfile.Errors {
	err := n.Decode(out)
	var errs yamlfile.Errors
	if err != nil && !errors.As(err, &errs) {
		errs = yamlfile.Errors{{Message: err.Error()}}
	}
	return errs
}

// load reads a file as far as it can be read: node is nil and failed is not where
// nothing of it can be used, or where there is none.
func load(file string) (node *yamlfile.Node, wrong yamlfile.Errors, failed error) {
	node, err := yamlfile.Load(file)
	if node != nil && errors.As(err, &wrong) {
		return node, wrong, nil
	}
	return node, nil, err
}

// unset is an environment without some variables.
func unset(env func(string) string, names ...string) func(string) string {
	return func(name string) string {
		if slices.Contains(names, name) {
			return ""
		}
		return env(name)
	}
}

// without removes the key that a path of maps leads to.
func without(n *yamlfile.Node, path ...string) *yamlfile.Node {
	switch next := n.Get(path[0]); { //nolint:gosec // a path has a key at least
	case next == nil:
		return n
	case len(path) == 1:
		return n.Without(path[0]) //nolint:gosec // as above
	default:
		return n.With(path[0], without(next, path[1:]...)) //nolint:gosec // as above
	}
}
