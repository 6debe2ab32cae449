package stack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/config"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/timer"
	"github.com/observability-upgrade/observability-upgrade/internal/window"
	"github.com/observability-upgrade/observability-upgrade/internal/yamlfile"
)

// timerWarnings tells what of the configuration does not hold for the timer that
// auto-enable made, since its units were written for another, or run without what
// the shell of an administrator has. There are none without a timer.
func timerWarnings(ctx context.Context, root layout.Root, p *config.Policy, m *config.Matrix, now time.Time) yamlfile.Errors {
	dir := unitDir(root)
	o, ok, err := timer.Read(dir)
	if err != nil || !ok {
		return nil // who asks for the state of the timer is told of the error
	}
	unit := filepath.Join(dir, timer.Timer)
	var out yamlfile.Errors
	say := func(e yamlfile.Error) {
		e.Message = root.Typed(e.Message)
		out = append(out, e)
	}
	windows, err := windowsOf(p, m)
	if e, ok := otherPolicy(o, p, m, windows); ok {
		say(e)
	}
	switch {
	case err != nil: // it is told by who loads them
	case o.Windows != "" && o.Windows != madeOf(windows):
		say(yamlfile.Error{File: unit, Message: fmt.Sprintf("the timer was made for other maintenance windows (%s) than those that are configured now (%s), and fires as before; type: %s",
			o.Windows, madeOf(windows), enableAgain(o, windows))})
	case o.Windows == "" && timer.Misses(ctx, dir, o, windows, now):
		late := ""
		if o.Delay > 0 {
			late = fmt.Sprintf(" and up to %s later, at random,", o.Delay)
		}
		say(yamlfile.Error{File: unit, Message: fmt.Sprintf("no run of the timer is sure to begin in a maintenance window: it fires at %s%s and the windows are %s; to fire as they begin, type: %s",
			strings.Join(o.Schedule, "; "), late, windows, enableAgain(o, windows))})
	}
	for _, e := range missingVariables(root, dir, enableAlike(o, windows)) {
		say(e)
	}
	return out
}

// otherPolicy tells of a default_policy that auto-enable's --policy takes the place of.
func otherPolicy(o timer.Options, p *config.Policy, m *config.Matrix, windows window.Set) (yamlfile.Error, bool) {
	var a *config.AutoUpgrade
	var n *yamlfile.Node
	file := ""
	if m != nil && m.AutoUpgrade != nil {
		a, n, file = m.AutoUpgrade, m.Root, m.File
	}
	if p != nil && p.AutoUpgrade != nil {
		a, n, file = p.AutoUpgrade, p.Root, p.File
	}
	if a == nil || a.DefaultPolicy == "" || a.DefaultPolicy == o.Policy {
		return yamlfile.Error{}, false
	}
	like := o
	like.Policy = a.DefaultPolicy
	next := enableAlike(like, windows)
	if a.DefaultPolicy == "none" {
		next = "observability-upgrade auto-disable, which ends unattended runs"
	}
	e := n.Errorf([]any{"auto_upgrade", "default_policy"}, "%s does not hold for the timer: it was enabled with --policy=%s, which takes its place; type: %s", a.DefaultPolicy, o.Policy, next)
	if e.File == "" {
		e.File = file
	}
	return e, true
}

// missingVariables tells of ${VARIABLE} that the service does not have, and of a file
// of variables that others can read. again is the command that writes the units anew.
func missingVariables(root layout.Root, dir, again string) (out yamlfile.Errors) {
	file := root.Environment()
	has, err := timer.Variables(root, dir)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil // what it sets is root's to know
	case err != nil:
		return yamlfile.Errors{{File: file, Message: strings.TrimPrefix(err.Error(), file+": ")}}
	}
	if st, err := os.Stat(file); err == nil && st.Mode().Perm()&0o077 != 0 {
		out = append(out, yamlfile.Error{File: file, Message: fmt.Sprintf("mode %04o lets others read what may be secret; type: chmod 0600 %s", st.Mode().Perm(), file)})
	}
	policy, channels := config.Missing(root, func(name string) bool { return has[name] })
	for _, of := range []struct {
		list yamlfile.Errors
		then string
	}{{policy, "runs of the timer fail"}, {channels, "what runs of the timer have to tell is not sent"}} {
		for _, e := range of.list {
			if !timer.ReadsEnvironment(dir) {
				e.Message = fmt.Sprintf("%s is not set for %s, so that %s: the unit is of an older version, and does not read %s; type: %s", e.Message, timer.Service, of.then, file, again)
				out = append(out, e)
				continue
			}
			e.Message = fmt.Sprintf("%s is set neither in %s nor by a drop-in of %s, so that %s; write NAME=VALUE into that file, mode 0600", e.Message, file, timer.Service, of.then)
			out = append(out, e)
		}
	}
	return out
}

// enableAgain is the command that makes the timer anew, to fire as the windows begin.
func enableAgain(o timer.Options, windows window.Set) string {
	command := "observability-upgrade auto-enable --policy=" + o.Policy
	if o.Delay != timer.Cap(DefaultDelay, windows) && o.Delay != DefaultDelay {
		command += fmt.Sprintf(" --randomized-delay=%s", o.Delay)
	}
	return command
}

// enableAlike is enableAgain, with the schedule that somebody gave.
func enableAlike(o timer.Options, windows window.Set) string {
	command := enableAgain(o, windows)
	if o.Windows != "" || slices.Equal(o.Schedule, scheduleOf(windows)) { // an older version did not say of what it is made
		return command
	}
	for _, s := range o.Schedule {
		command += " --schedule=" + layout.Quoted(s)
	}
	return command
}

// scheduleOf is when a timer fires where nobody says.
func scheduleOf(windows window.Set) []string {
	if len(windows) == 0 {
		return []string{"*-*-* 03:00:00"}
	}
	return windows.Calendar()
}

// madeOf is what a timer says of the windows that its schedule was made of.
func madeOf(windows window.Set) string {
	if len(windows) == 0 {
		return timer.NoWindows
	}
	return windows.String()
}
