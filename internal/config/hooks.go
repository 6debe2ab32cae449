package config

import (
	"path/filepath"
	"strings"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// Hooks are commands of the administrator's around a run:
//
//	hooks:
//	  before: [[/usr/local/sbin/silence, "--for=30m"]]
//	  after: [[/usr/local/sbin/silence, --end]]
//	  timeout: 1m
//
// Those before run once everything is verified and nothing is stopped yet; one that
// fails refuses the run. Those after run when it is over, however it ended, also
// when one of those before refused it or a recovery ended it; one that fails is a
// warning. A rollback has none.
type Hooks struct {
	Before  [][]string         `yaml:"before"`  // in this order
	After   [][]string         `yaml:"after"`   // in this order, each whatever became of those before
	Timeout component.Duration `yaml:"timeout"` // of one command
}

func (v *validator) hooks(h Hooks) {
	for _, l := range []struct {
		name string
		list [][]string
	}{{"before", h.Before}, {"after", h.After}} {
		for i, argv := range l.list {
			path := []any{"hooks", l.name, i}
			switch {
			case len(argv) == 0 || strings.TrimSpace(argv[0]) == "":
				v.fail(path, "an empty command; want a list such as [/usr/local/sbin/silence, --for=30m]")
			case !filepath.IsAbs(argv[0]):
				v.fail(path, "%s: want the absolute path of a program", v.quote(append(path, 0), argv[0]))
			}
		}
	}
	if h.Timeout <= 0 {
		v.fail([]any{"hooks", "timeout"}, "must be more than 0")
	}
}
