package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/artifact"
	"github.com/observability-upgrade/observability-upgrade/internal/catalogue"
	"github.com/observability-upgrade/observability-upgrade/internal/config"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/notify"
	"github.com/observability-upgrade/observability-upgrade/internal/yamlfile"
)

// ConfigReport is the document of `config validate`.
type ConfigReport struct {
	Files    []ConfigFile  `json:"files"`
	Errors   []ConfigError `json:"errors"`
	Warnings []ConfigError `json:"warnings"`
}

// ConfigFile is one file of the configuration.
type ConfigFile struct {
	Path    string `json:"path"`
	Present bool   `json:"present"`
	OK      bool   `json:"ok"`
}

// ConfigError is one thing wrong. Line and column count from 1; both are 0 where
// it concerns the file as a whole.
type ConfigError struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Key     string `json:"key"`
	Message string `json:"message"`
}

// String is FILE:LINE:COLUMN: KEY: MESSAGE.
func (e ConfigError) String() string {
	return yamlfile.Error{File: e.File, Line: e.Line, Column: e.Column, Key: e.Key, Message: e.Message}.Error()
}

// CheckConfig reads every file of the configuration and what they say of each
// other. It needs no service manager, and changes nothing.
func CheckConfig(ctx context.Context, root layout.Root, env func(string) string) ConfigReport {
	r := ConfigReport{Files: []ConfigFile{}, Errors: []ConfigError{}, Warnings: []ConfigError{}}
	policy, policyErr := config.LoadPolicy(root, env)
	matrix, matrixErr := config.LoadMatrix(root)
	notes, notifyErr := config.LoadNotifications(root, env)
	var found yamlfile.Errors
	switch {
	case notifyErr == nil:
		notifyErr = notify.Check(root, notes).Err()
	case notes != nil:
		found = notify.CheckTemplates(notes)
	}
	cat, catErr := catalogue.Load(root.ComponentsDir())
	r.Warnings = append(r.Warnings, misnamed(root)...)
	r.file(root.Policy(), policyErr)
	r.file(root.Matrix(), matrixErr)
	r.file(root.Notifications(), notifyErr)
	if _, err := os.Lstat(root.Environment()); err == nil {
		r.file(root.Environment(), yamlfile.CheckSecure(root.Environment()))
	}
	for _, pattern := range []string{"*.yaml", "*.yml"} {
		overrides, err := filepath.Glob(filepath.Join(root.ComponentsDir(), pattern))
		if err != nil {
			overrides = nil // the pattern is ours; it is well formed
		}
		for _, path := range overrides {
			r.file(path, nil)
			if n, _ := yamlfile.Load(path); n != nil { // what is wrong with the file itself, the catalogue tells
				found = append(found, config.CheckSecrets(root, env, n)...)
			}
		}
	}
	r.add(catErr)
	r.warn(cat.Skipped())
	var own *config.Matrix
	if matrix != nil {
		alone := *matrix
		own = &alone
		matrix.Add(config.Knowledge())
	}
	if policy != nil && matrix != nil {
		var both yamlfile.Errors
		errors.As(config.CheckConflicts(policy, matrix), &both)
		found = append(found, both...)
	}
	wrong, _ := config.Cross(policy, matrix, cat.Names())
	_, warnings := config.Cross(policy, own, cat.Names())
	found = append(append(found, wrong...), unreadableKeys(cat, root)...)
	r.beside(found)
	r.warn(warnings)
	if len(r.Errors) == 0 { // else what it says is not what holds
		r.warn(timerWarnings(ctx, root, policy, matrix, time.Now()))
	}
	for i, f := range r.Files {
		r.Files[i].OK = !slices.ContainsFunc(r.Errors, func(e ConfigError) bool { return e.File == f.Path })
	}
	return r
}

// misnamed finds files of the configuration that end in .yml, which nothing reads.
func misnamed(root layout.Root) []ConfigError {
	var out []ConfigError
	for _, path := range []string{root.Policy(), root.Matrix(), root.Notifications()} {
		short := strings.TrimSuffix(path, ".yaml") + ".yml"
		if _, err := os.Lstat(short); err == nil {
			out = append(out, ConfigError{File: short, Message: fmt.Sprintf("this file is not read: expected the name %s; mv %s %s", filepath.Base(path), short, path)})
		}
	}
	return out
}

func (r *ConfigReport) file(path string, err error) {
	_, missing := os.Lstat(path)
	r.Files = append(r.Files, ConfigFile{Path: path, Present: missing == nil})
	r.add(err)
}

// unreadableKeys are the keys for signatures that definitions name and that cannot
// be used.
func unreadableKeys(cat *catalogue.Catalogue, root layout.Root) yamlfile.Errors {
	var out yamlfile.Errors
	for _, c := range cat.All() {
		err := artifact.CheckKeys(c, root.Prefix())
		if err == nil {
			continue
		}
		at := []any{"signature"}
		switch s := c.Signature; {
		case s.Type == "gpg", s.Type == "minisign":
			at = append(at, "keyring")
		case s.Type == "cosign" && s.Key != "":
			at = append(at, "key")
		case s.Type == "cosign" && s.TrustedRoot != "":
			at = append(at, "trusted_root")
		}
		out = append(out, cat.Errorf(c.Name, at, "%s", strings.TrimPrefix(err.Error(), fmt.Sprint(at[len(at)-1])+": ")))
	}
	return out
}

// beside adds what is wrong besides the errors so far.
func (r *ConfigReport) beside(later yamlfile.Errors) {
	var earlier yamlfile.Errors
	for _, e := range r.Errors {
		earlier = append(earlier, yamlfile.Error(e))
	}
	r.add(earlier.Beside(later)[len(earlier):].Err())
}

func (r *ConfigReport) warn(warnings yamlfile.Errors) {
	for _, w := range warnings {
		r.Warnings = append(r.Warnings, asConfigError(w))
	}
}

// add takes an error apart into the single ones.
func (r *ConfigReport) add(err error) {
	var one yamlfile.Error
	var insecure *yamlfile.InsecureError
	switch many, joined := err.(interface{ Unwrap() []error }); {
	case err == nil:
	case joined:
		for _, e := range many.Unwrap() {
			r.add(e)
		}
	case errors.As(err, &one):
		r.Errors = append(r.Errors, asConfigError(one))
	case errors.As(err, &insecure):
		r.Errors = append(r.Errors, ConfigError{File: insecure.Path, Message: strings.TrimPrefix(err.Error(), insecure.Path+": ")})
	default:
		r.Errors = append(r.Errors, ConfigError{Message: err.Error()})
	}
}

func asConfigError(e yamlfile.Error) ConfigError {
	return ConfigError{File: e.File, Line: e.Line, Column: e.Column, Key: e.Key, Message: e.Message}
}
