package config

import (
	"errors"
	"slices"
	"strings"

	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/yamlfile"
)

// SalvagePolicy reads what can be used of the policy: a top-level key with a
// mistake in it, or with a secret that cannot be had, is taken for not given, and
// of a file that cannot be read at all nothing is used. The policy is never nil.
// The error is what LoadPolicy says of the whole file; nil when all of it holds.
func SalvagePolicy(root layout.Root, env func(string) string) (*Policy, error) {
	p, first := LoadPolicy(root, env)
	if first == nil {
		return p, nil
	}
	var unread []string
	for err := first; ; {
		keys := wrongKeys(err)
		if len(keys) == 0 || slices.Contains(unread, keys[0]) {
			break
		}
		unread = append(unread, keys...)
		if p, err = LoadPolicy(root, env, unread...); err == nil {
			return p, first
		}
	}
	p = defaults()
	p.File = root.Policy()
	return p, first
}

// wrongKeys lists the top-level keys that errors are about; none where an error
// is about the file itself.
func wrongKeys(err error) []string {
	var errs yamlfile.Errors
	if !errors.As(err, &errs) {
		return nil
	}
	var keys []string
	for _, e := range errs {
		key := e.Key
		if i := strings.IndexAny(key, ".["); i >= 0 {
			key = key[:i]
		}
		if strings.HasPrefix(e.File, inEnvironment) {
			key = "upstream"
		}
		if key == "" {
			return nil
		}
		keys = append(keys, key)
	}
	return keys
}
