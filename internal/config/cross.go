package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/observability-upgrade/observability-upgrade/internal/yamlfile"
)

// Cross checks what one file says of things that another defines. known are the
// names of all components. Holds, pins, policies and signatures of a component
// that does not exist are errors: somebody relies on them. The matrix may speak of
// components that this host's catalogue does not have, since it may be shared
// among hosts: that is a warning. m is the administrator's matrix, with or without
// what is built in. Either may be nil when it cannot be read: then nothing is said
// of it, nor of channels, which the matrix defines.
func Cross(p *Policy, m *Matrix, known []string) (errs, warnings yamlfile.Errors) {
	unknown := func(name string) string {
		if slices.Contains(known, name) {
			return ""
		}
		text := fmt.Sprintf("unknown component %q", name)
		if near := yamlfile.Nearest(name, known); near != "" {
			text += fmt.Sprintf("; did you mean %q?", near)
		}
		return text
	}
	channels := m != nil
	if p == nil {
		p = &Policy{}
	}
	if m == nil {
		m = &Matrix{}
	}
	pv, mv := validator{node: p.Root, file: p.File}, validator{node: m.Root, file: m.File}
	for key, list := range map[string][]Hold{"holds": p.Holds, "pins": p.Pins} {
		for i, h := range list {
			if text := unknown(h.Component); text != "" {
				pv.fail([]any{key, i, "component"}, "%s", text)
			}
		}
	}
	for i, name := range p.Verification.AllowUnsigned {
		if text := unknown(name); text != "" {
			pv.fail([]any{"verification", "allow_unsigned", i}, "%s", text)
		}
	}
	for i, x := range p.Vulnerabilities.Ignore {
		if x.Component == "" {
			continue
		}
		if text := unknown(x.Component); text != "" {
			pv.fail([]any{"vulnerabilities", "ignore", i, "component"}, "%s", text)
		}
	}
	for _, from := range []struct {
		v *validator
		a *AutoUpgrade
	}{{&pv, p.AutoUpgrade}, {&mv, m.AutoUpgrade}} {
		if from.a == nil {
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(from.a.Policies)) {
			at := []any{"auto_upgrade", "policies", name}
			if text := unknown(name); text != "" {
				from.v.errs = append(from.v.errs, from.v.key(at, text))
			}
			if ch := from.a.Policies[name].Channel; ch != "" && channels {
				if _, err := m.Channel(name, ch); err != nil {
					from.v.fail(append(at, "channel"), "%v", err)
				}
			}
		}
	}
	warn := validator{node: m.Root, file: m.File}
	for i, b := range m.Blacklist {
		if text := unknown(b.Component); text != "" {
			warn.fail([]any{"blacklist", i, "component"}, "%s", text)
		}
	}
	for section, names := range map[string][]string{
		"compatibility": slices.Sorted(maps.Keys(m.Compatibility)), "paths": slices.Sorted(maps.Keys(m.Paths)),
		"one_way": slices.Sorted(maps.Keys(m.OneWay)), "channels": slices.Sorted(maps.Keys(m.Channels)),
	} {
		for _, name := range names {
			if text := unknown(name); text != "" {
				warn.errs = append(warn.errs, warn.key([]any{section, name}, text))
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.Compatibility)) {
		for _, when := range slices.Sorted(maps.Keys(m.Compatibility[name])) {
			for _, other := range slices.Sorted(maps.Keys(m.Compatibility[name][when])) {
				if text := unknown(other); text != "" {
					warn.errs = append(warn.errs, warn.key([]any{"compatibility", name, when, other}, text))
				}
			}
		}
	}
	return sorted(append(pv.errs, mv.errs...)), sorted(warn.errs)
}

// key is an error at a key of a map.
func (v *validator) key(path []any, text string) yamlfile.Error {
	e := v.node.KeyErrorf(path, "%s", text)
	if e.File == "" {
		e.File = v.file
	}
	return e
}

func sorted(errs yamlfile.Errors) yamlfile.Errors {
	var out yamlfile.Errors
	if err := errs.Err(); err != nil {
		out = err.(yamlfile.Errors) //nolint:errorlint // Err gives nothing else
	}
	return out
}

// Channel is the range of a component's named channel, or the range that the name
// itself is.
func (m *Matrix) Channel(component, name string) (Range, error) {
	if c, ok := m.Channels[component][name]; ok {
		return ParseRange(c.Versions)
	}
	r, err := ParseRange(name)
	if err != nil {
		have := "it has none"
		if names := slices.Sorted(maps.Keys(m.Channels[component])); len(names) > 0 {
			have = "there are: " + strings.Join(names, ", ")
		}
		return Range{}, fmt.Errorf("%q is neither a channel of %s (%s) nor a range of versions", name, component, have)
	}
	return r, nil
}
