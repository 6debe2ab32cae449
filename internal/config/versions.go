package config

import "github.com/observability-upgrade/observability-upgrade/internal/component"

// Range is a set of versions as policy and matrix write it; see
// component.Range, which definitions use too.
type Range = component.Range

// ParseRange is component.ParseRange.
func ParseRange(s string) (Range, error) { return component.ParseRange(s) }
