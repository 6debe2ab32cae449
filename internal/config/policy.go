// Package config reads what an administrator writes: the policy, the
// compatibility matrix, the notifications and the secrets they name. Files are
// decoded strictly, all mistakes of a file are reported at once with file and
// line, and files that others can write are refused.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/yamlfile"
)

// Policy is etc/observability/upgrade-policy.yaml with defaults filled in.
type Policy struct {
	Upstream           Upstream       `yaml:"upstream"`
	Verification       Verification   `yaml:"verification"`
	ServiceManager     string         `yaml:"service_manager"` // auto | systemd | process
	Timeouts           Timeouts       `yaml:"timeouts"`
	Retention          Retention      `yaml:"retention"`
	OnFailure          string         `yaml:"on_failure"` // abort | continue
	Paths              Paths          `yaml:"paths"`
	Holds              []Hold         `yaml:"holds"`
	AutoUpgrade        *AutoUpgrade   `yaml:"auto_upgrade"`
	MaintenanceWindows []Window       `yaml:"maintenance_windows"`
	File               string         `yaml:"-"`
	Root               *yamlfile.Node `yaml:"-"`
}

// Upstream says where releases are listed.
type Upstream struct {
	GitHub      Forge              `yaml:"github"`
	GitLab      Forge              `yaml:"gitlab"`
	Grafana     Forge              `yaml:"grafana"`
	CacheTTL    component.Duration `yaml:"cache_ttl"`
	Concurrency int                `yaml:"concurrency"`
}

// Forge is one API.
type Forge struct {
	APIURL string `yaml:"api_url"`
	Token  Secret `yaml:"token"`
}

// Verification says what must vouch for a download.
type Verification struct {
	Checksum  string `yaml:"checksum"`  // required | if_available
	Signature string `yaml:"signature"` // if_configured | required
}

// Timeouts bound the steps of a run.
type Timeouts struct {
	Stop     component.Duration `yaml:"stop"`
	Start    component.Duration `yaml:"start"`
	Health   component.Duration `yaml:"health"`
	Download component.Duration `yaml:"download"`
}

// Retention says what is kept.
type Retention struct {
	Backups int `yaml:"backups"`
}

// Paths moves directories.
type Paths struct {
	Staging string `yaml:"staging"`
}

// Hold keeps a component from versions.
type Hold struct {
	Component string `yaml:"component"`
	Version   string `yaml:"version"`
	Reason    string `yaml:"reason"`
	Until     string `yaml:"until"` // YYYY-MM-DD, the hold ends as that day begins, or RFC 3339
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

// AutoUpgrade are the rules of unattended runs, specification section 8.
type AutoUpgrade struct {
	DefaultPolicy     string                `yaml:"default_policy"`
	MinReleaseAgeDays *int                  `yaml:"min_release_age_days"`
	Policies          map[string]AutoPolicy `yaml:"policies"`
}

// AutoPolicy is the rule of one component.
type AutoPolicy struct {
	Policy            string `yaml:"policy"`
	MaxAgeDays        *int   `yaml:"max_age_days"`
	MinReleaseAgeDays *int   `yaml:"min_release_age_days"`
}

// Window is a maintenance window: {day, start, end, timezone} or "HH:MM-HH:MM".
type Window struct {
	Day      string `yaml:"day"`
	Start    string `yaml:"start"`
	End      string `yaml:"end"`
	Timezone string `yaml:"timezone"`
}

// UnmarshalYAML reads both forms.
func (w *Window) UnmarshalYAML(decode func(any) error) error {
	var text string
	if err := decode(&text); err == nil {
		start, end, ok := strings.Cut(text, "-")
		if !ok {
			return fmt.Errorf("window %q: want HH:MM-HH:MM", text)
		}
		*w = Window{Start: strings.TrimSpace(start), End: strings.TrimSpace(end)}
		return nil
	}
	type plain Window
	return decode((*plain)(w))
}

// Secret is text that must not be shown.
type Secret string

const redacted = "[redacted]"

// String, GoString and MarshalText hide the value.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// GoString hides the value in %#v.
func (s Secret) GoString() string { return s.String() }

// MarshalText hides the value in JSON and logs.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

func defaults() *Policy {
	seconds := func(n int) component.Duration { return component.Duration(time.Duration(n) * time.Second) }
	return &Policy{
		Upstream: Upstream{
			GitHub: Forge{APIURL: "https://api.github.com"}, GitLab: Forge{APIURL: "https://gitlab.com/api/v4"},
			Grafana: Forge{APIURL: "https://grafana.com/api"}, CacheTTL: seconds(15 * 60), Concurrency: 8,
		},
		Verification:   Verification{Checksum: "required", Signature: "if_configured"},
		ServiceManager: "auto", OnFailure: "abort",
		Timeouts:  Timeouts{Stop: seconds(30), Start: seconds(60), Health: seconds(60), Download: seconds(600)},
		Retention: Retention{Backups: 5},
	}
}

// LoadPolicy reads the policy below root; a missing file means the defaults. env
// gives environment variables: OBSERVABILITY_UPGRADE_GITHUB_API_URL,
// OBSERVABILITY_UPGRADE_GITLAB_API_URL and GITHUB_TOKEN override the file.
func LoadPolicy(root layout.Root, env func(string) string) (*Policy, error) {
	p := defaults()
	p.File = root.Policy()
	node, err := yamlfile.Load(p.File)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if node != nil {
		expanded, errs := node.MapStrings(func(s string) (string, bool, error) { return expandSecrets(root, env, s) })
		if err := errs.Err(); err != nil {
			return nil, err
		}
		if err := expanded.Decode(p); err != nil {
			return nil, err
		}
		node = expanded
	}
	p.Root = node
	for key, into := range map[string]*string{
		"OBSERVABILITY_UPGRADE_GITHUB_API_URL": &p.Upstream.GitHub.APIURL, "OBSERVABILITY_UPGRADE_GITLAB_API_URL": &p.Upstream.GitLab.APIURL,
	} {
		if v := env(key); v != "" {
			*into = v
		}
	}
	if v := env("GITHUB_TOKEN"); v != "" {
		p.Upstream.GitHub.Token = Secret(v)
	}
	return p, p.validate()
}

func (p *Policy) validate() error {
	var errs yamlfile.Errors
	bad := func(path []any, format string, args ...any) {
		e := p.Root.Errorf(path, format, args...)
		if e.File == "" {
			e.File = p.File
		}
		errs = append(errs, e)
	}
	oneOf := func(got string, path []any, want ...string) {
		for _, w := range want {
			if got == w {
				return
			}
		}
		bad(path, "%q: want %s", got, strings.Join(want, ", "))
	}
	for name, f := range map[string]Forge{"github": p.Upstream.GitHub, "gitlab": p.Upstream.GitLab, "grafana": p.Upstream.Grafana} {
		u, err := url.Parse(f.APIURL)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			bad([]any{"upstream", name, "api_url"}, "%q is not an http or https URL", f.APIURL)
		}
	}
	if p.Upstream.Concurrency < 1 || p.Upstream.Concurrency > 64 {
		bad([]any{"upstream", "concurrency"}, "%d: want 1 to 64", p.Upstream.Concurrency)
	}
	oneOf(p.Verification.Checksum, []any{"verification", "checksum"}, "required", "if_available")
	oneOf(p.Verification.Signature, []any{"verification", "signature"}, "if_configured", "required")
	oneOf(p.ServiceManager, []any{"service_manager"}, "auto", "systemd", "process")
	oneOf(p.OnFailure, []any{"on_failure"}, "abort", "continue")
	for name, d := range map[string]component.Duration{"stop": p.Timeouts.Stop, "start": p.Timeouts.Start, "health": p.Timeouts.Health, "download": p.Timeouts.Download} {
		if d <= 0 {
			bad([]any{"timeouts", name}, "must be more than 0")
		}
	}
	if p.Retention.Backups < 1 {
		bad([]any{"retention", "backups"}, "%d: at least 1 is kept, or nothing could be rolled back", p.Retention.Backups)
	}
	if p.Paths.Staging != "" && (!filepath.IsAbs(p.Paths.Staging) || filepath.Clean(p.Paths.Staging) == "/") {
		bad([]any{"paths", "staging"}, "%q: want an absolute path of a directory of its own", p.Paths.Staging)
	}
	for i, h := range p.Holds {
		if h.Component == "" {
			bad([]any{"holds", i, "component"}, "is missing")
		}
		if _, err := ParseRange(h.Version); h.Version != "" && err != nil {
			bad([]any{"holds", i, "version"}, "%v", err)
		}
		if _, err := h.UntilTime(); err != nil {
			bad([]any{"holds", i, "until"}, "%v", err)
		}
	}
	errs = append(errs, validateAuto(p.Root, p.AutoUpgrade)...)
	errs = append(errs, validateWindows(p.Root, p.MaintenanceWindows)...)
	return errs.Err()
}

var autoPolicies = []string{"patch_only", "minor", "any", "none"}

func validateAuto(n *yamlfile.Node, a *AutoUpgrade) yamlfile.Errors {
	var errs yamlfile.Errors
	if a == nil {
		return nil
	}
	check := func(policy string, path ...any) {
		if policy == "" {
			return
		}
		for _, p := range autoPolicies {
			if p == policy {
				return
			}
		}
		errs = append(errs, n.Errorf(path, "%q: want %s", policy, strings.Join(autoPolicies, ", ")))
	}
	check(a.DefaultPolicy, "auto_upgrade", "default_policy")
	for name, p := range a.Policies {
		check(p.Policy, "auto_upgrade", "policies", name, "policy")
		for key, v := range map[string]*int{"max_age_days": p.MaxAgeDays, "min_release_age_days": p.MinReleaseAgeDays} {
			if v != nil && *v < 0 {
				errs = append(errs, n.Errorf([]any{"auto_upgrade", "policies", name, key}, "%d is negative", *v))
			}
		}
	}
	return errs
}

var days = []string{"", "daily", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"}

func validateWindows(n *yamlfile.Node, windows []Window) yamlfile.Errors {
	var errs yamlfile.Errors
	for i, w := range windows {
		known := false
		for _, d := range days {
			known = known || strings.EqualFold(d, w.Day)
		}
		if !known {
			errs = append(errs, n.Errorf([]any{"maintenance_windows", i, "day"}, "%q: want a day of the week", w.Day))
		}
		for key, v := range map[string]string{"start": w.Start, "end": w.End} {
			if _, err := time.Parse("15:04", v); err != nil {
				errs = append(errs, n.Errorf([]any{"maintenance_windows", i, key}, "%q: want HH:MM", v))
			}
		}
		if w.Start == w.End {
			errs = append(errs, n.Errorf([]any{"maintenance_windows", i}, "begins and ends at %s", w.Start))
		}
		if _, err := time.LoadLocation(w.Timezone); err != nil {
			errs = append(errs, n.Errorf([]any{"maintenance_windows", i, "timezone"}, "%q is not an IANA time zone", w.Timezone))
		}
	}
	return errs
}

var reference = regexp.MustCompile(`\$\{([^}]*)\}`)

// expandSecrets replaces ${SECRET:name} and ${NAME} in a value.
func expandSecrets(root layout.Root, env func(string) string, s string) (string, bool, error) {
	var failure error
	hidden := false
	out := reference.ReplaceAllStringFunc(s, func(m string) string {
		name := m[2 : len(m)-1]
		hidden = true
		if secret, ok := strings.CutPrefix(name, "SECRET:"); ok {
			v, err := readSecret(root, env, secret)
			if err != nil {
				failure = err
			}
			return v
		}
		v := env(name)
		if v == "" {
			failure = fmt.Errorf("environment variable %s is not set", name)
		}
		return v
	})
	return out, hidden, failure
}

// readSecret reads a secret: systemd's credential of that name first, then the
// file in the secrets directory, which nobody else may read.
func readSecret(root layout.Root, env func(string) string, name string) (string, error) {
	if name == "" || !filepath.IsLocal(name) || strings.Contains(name, "/") {
		return "", fmt.Errorf("secret %q: not a file name", name)
	}
	if dir := env("CREDENTIALS_DIRECTORY"); dir != "" {
		if data, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
			return strings.TrimRight(string(data), "\r\n"), nil
		}
	}
	path := filepath.Join(root.SecretsDir(), name)
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("secret %s does not exist: write it to %s, mode 0600", name, path)
	}
	if err != nil {
		return "", err
	}
	if uid, ok := owner(st); ok && uid != 0 && int(uid) != os.Geteuid() {
		return "", fmt.Errorf("secret %s belongs to uid %d: `chown %d %s`", path, uid, os.Geteuid(), path)
	}
	if st.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("secret %s can be read by others (mode %04o): `chmod 0600 %s`", path, st.Mode().Perm(), path)
	}
	data, err := os.ReadFile(path)
	return strings.TrimRight(string(data), "\r\n"), err
}
