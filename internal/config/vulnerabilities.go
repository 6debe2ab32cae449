package config

import (
	"errors"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// Vulnerabilities says where known vulnerabilities are looked up.
type Vulnerabilities struct {
	Enabled bool `yaml:"enabled"`
	// Database is a Go vulnerability database: the address of https://vuln.go.dev or
	// of a mirror of it, or the path of a directory that holds one.
	Database string `yaml:"database"`
	// OSV are more records in the OSV format: directories, .zip or .json files, or
	// addresses of .zip or .json files.
	OSV    []string           `yaml:"osv"`
	MaxAge component.Duration `yaml:"max_age"` // with an older database nothing is taken to be without vulnerabilities
	Ignore []Ignored          `yaml:"ignore"`
}

// Ignored is a known vulnerability that somebody has looked at and set aside.
type Ignored struct {
	ID        string `yaml:"id"`        // the record's, or an alias, such as a CVE
	Component string `yaml:"component"` // empty: all
	Reason    string `yaml:"reason"`
	Until     string `yaml:"until"` // YYYY-MM-DD or RFC 3339; empty: for good
}

// UntilTime is when it ends to be set aside; zero for never.
func (i Ignored) UntilTime() (time.Time, error) { return Hold{Until: i.Until}.UntilTime() }

// IsAddress reports whether a source is an address rather than a path.
func IsAddress(source string) bool { return strings.Contains(source, "://") }

func (v *validator) vulnerabilities(x Vulnerabilities) {
	at := func(more ...any) []any { return append([]any{"vulnerabilities"}, more...) }
	source := func(path []any, s string, check func(string) error) {
		if err := check(s); err != nil {
			v.fail(path, "%s %v", v.quote(path, showURL(s)), err)
		}
	}
	source(at("database"), x.Database, checkPlace)
	for i, s := range x.OSV {
		if slices.Contains(x.OSV[:i], s) {
			v.fail(at("osv", i), "%s is listed twice", v.quote(at("osv", i), s))
			continue
		}
		source(at("osv", i), s, checkRecords)
	}
	if x.MaxAge <= 0 {
		v.fail(at("max_age"), "must be more than 0")
	}
	for i, e := range x.Ignore {
		if e.ID == "" {
			v.fail(at("ignore", i), "id is not given: of the record, such as GO-2024-3240, or an alias of it")
		}
		if strings.TrimSpace(e.Reason) == "" {
			v.fail(at("ignore", i), "reason is not given: whoever reads this will want to know why")
		}
		if _, err := e.UntilTime(); err != nil {
			v.fail(at("ignore", i, "until"), "%v", err)
		}
	}
}

// checkPlace checks an address or the absolute path of a directory.
func checkPlace(s string) error {
	u, err := url.Parse(s)
	switch {
	case IsAddress(s) && err == nil && u.User != nil:
		return errors.New("holds a user or password, for which there is no place here; let the mirror be read without")
	case IsAddress(s):
		return checkURL(s)
	case !filepath.IsAbs(s) || filepath.Clean(s) == "/":
		return errors.New("is neither an http or https address nor the absolute path of a directory")
	}
	return nil
}

// checkRecords checks where records are.
func checkRecords(s string) error {
	if err := checkPlace(s); err != nil || !IsAddress(s) {
		return err
	}
	u, err := url.Parse(s)
	if err != nil {
		return err
	}
	if ext := filepath.Ext(u.Path); ext != ".zip" && ext != ".json" {
		return errors.New("does not end in .zip or .json: a server's directory cannot be listed")
	}
	return nil
}
