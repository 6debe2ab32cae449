package config

import (
	_ "embed"
	"maps"
	"slices"

	"github.com/observability-upgrade/observability-upgrade/internal/yamlfile"
)

//go:embed knowledge.yaml
var knowledge []byte

// Knowledge is what is known of upgrades without being told: stepping stones,
// one-way doors, broken versions, channels, each with its source.
func Knowledge() *Matrix {
	m := &Matrix{File: "knowledge.yaml (built in)"}
	n, err := yamlfile.Parse(m.File, knowledge)
	if err == nil {
		err = decode(n, m).Beside(m.validate(n)).Err()
	}
	if err != nil {
		panic(err) // a test reads it
	}
	return m
}

// Add takes over from other what m says nothing of: of a component under paths,
// one_way and channels, of the same versions of a component under compatibility.
func (m *Matrix) Add(other *Matrix) {
	if m.Compatibility == nil {
		m.Compatibility = map[string]map[string]map[string]Need{}
	}
	for name, rules := range other.Compatibility {
		if m.Compatibility[name] == nil {
			m.Compatibility[name] = map[string]map[string]Need{}
		}
		keep(m.Compatibility[name], rules)
	}
	m.Paths = keep(m.Paths, other.Paths)
	m.OneWay = keep(m.OneWay, other.OneWay)
	m.Channels = keep(m.Channels, other.Channels)
	for _, b := range other.Blacklist {
		if !slices.ContainsFunc(m.Blacklist, func(x Blacklisted) bool { return x.Component == b.Component && x.Version == b.Version }) {
			m.Blacklist = append(m.Blacklist, b)
		}
	}
}

// keep adds to own what it has no entry for.
func keep[V any](own, other map[string]V) map[string]V {
	out := maps.Clone(other)
	maps.Copy(out, own)
	if own == nil {
		return out
	}
	maps.Copy(own, out)
	return own
}
