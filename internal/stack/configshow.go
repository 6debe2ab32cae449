package stack

import (
	"errors"
	"fmt"

	"github.com/goccy/go-yaml"

	"github.com/observability-upgrade/observability-upgrade/internal/config"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/yamlfile"
)

// Effective is the configuration in force, for people to read.
type Effective struct{ Sections []Section }

// Section is one file of it.
type Section struct {
	Name   string // policy | matrix | notifications
	File   string
	Value  yaml.MapSlice
	Origin func(path []any) string // where the value at a path comes from
}

// Document is the JSON form: an object with a key per section.
func (e Effective) Document() map[string]any {
	out := map[string]any{}
	for _, s := range e.Sections {
		out[s.Name] = plainValue(s.Value)
	}
	return out
}

func plainValue(v any) any {
	switch x := v.(type) {
	case yaml.MapSlice:
		m := map[string]any{}
		for _, item := range x {
			m[fmt.Sprint(item.Key)] = plainValue(item.Value)
		}
		return m
	case []any:
		out := make([]any, len(x))
		for i, item := range x {
			out[i] = plainValue(item)
		}
		return out
	}
	return v
}

// EffectiveConfig reads the configuration as every command does. Secrets are
// hidden. Errors wrap ErrConfig.
func EffectiveConfig(root layout.Root, env func(string) string) (*Effective, error) {
	policy, err1 := config.LoadPolicy(root, env)
	matrix, err2 := config.LoadMatrix(root)
	notes, err3 := config.LoadNotifications(root, env)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if err := config.CheckConflicts(policy, matrix); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	own := matrix.Root
	matrix.Add(config.Knowledge())
	variables := map[string]string{ //nolint:gosec // names of settings and variables, no values
		"upstream.github.api_url": "OBSERVABILITY_UPGRADE_GITHUB_API_URL", "upstream.gitlab.api_url": "OBSERVABILITY_UPGRADE_GITLAB_API_URL",
		"upstream.github.token": "GITHUB_TOKEN",
	}
	e := &Effective{}
	for _, s := range []struct {
		name, file, otherwise string
		value                 any
		node                  *yamlfile.Node
		variables             map[string]string
	}{
		{"policy", policy.File, "default", policy, policy.Root, variables},
		{"matrix", matrix.File, "built in", matrix, own, nil},
		{"notifications", root.Notifications(), "default", notes, notes.Root, nil},
	} {
		data, err := yaml.Marshal(s.value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		var tree yaml.MapSlice
		if err := yaml.UnmarshalWithOptions(data, &tree, yaml.UseOrderedMap()); err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		hide(tree, s.node, nil)
		e.Sections = append(e.Sections, Section{Name: s.name, File: s.file, Value: tree, Origin: func(path []any) string {
			key := dotted(path)
			if v := s.variables[key]; v != "" && env(v) != "" {
				return "environment variable " + v
			}
			if n := exactly(s.node, path); n != nil {
				return fmt.Sprintf("%s:%d", s.file, n.Line)
			}
			return s.otherwise
		}})
	}
	return e, nil
}

func dotted(path []any) string {
	out := ""
	for i, p := range path {
		if i > 0 {
			out += "."
		}
		out += fmt.Sprint(p)
	}
	return out
}

// hide takes out what came from a secret or the environment.
func hide(v any, n *yamlfile.Node, path []any) any {
	switch x := v.(type) {
	case yaml.MapSlice:
		for i, item := range x {
			x[i].Value = hide(item.Value, n, append(path[:len(path):len(path)], item.Key))
		}
	case []any:
		for i, item := range x {
			x[i] = hide(item, n, append(path[:len(path):len(path)], i))
		}
	default:
		if at := exactly(n, path); at != nil && at.Hidden {
			return "[redacted]"
		}
	}
	return v
}

// exactly is the node at a path, nil where the file does not have it. A value in
// its short form stands for what the long form has in its place.
func exactly(n *yamlfile.Node, path []any) *yamlfile.Node {
	for _, p := range path {
		if n == nil || n.Kind == yamlfile.String {
			return n
		}
		switch key := p.(type) {
		case string:
			n = n.Get(key)
		case int:
			if key < 0 || key >= len(n.Items) {
				return nil
			}
			n = n.Items[key]
		default:
			n = n.Get(fmt.Sprint(p))
		}
	}
	return n
}
