package stack

import (
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/health"
	"github.com/observability-upgrade/observability-upgrade/internal/inventory"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
)

// reloadStale has components that run with an older configuration than the one on
// disk read it again, after a run that changed others: specification section 1's
// "reload Prometheus config (if targets changed)". It concerns those whose
// definition tells when they last read it (reload.confirm). What it could not do
// is a warning: the run itself is done.
func (s *Stack) reloadStale(ctx context.Context, res *run.Result) {
	changed := map[string]bool{}
	for _, o := range res.Components {
		if o.Status == run.Upgraded || o.Status == run.RolledBack {
			changed[o.Name] = true
		}
	}
	if len(changed) == 0 || ctx.Err() != nil {
		return
	}
	var watch []*component.Component
	for _, c := range s.Catalogue.All() {
		if c.Reload.Confirm != nil && !changed[c.Name] {
			watch = append(watch, c)
		}
	}
	found, err := s.Inventory(ctx, watch)
	if err != nil {
		res.Warnings = append(res.Warnings, fmt.Sprintf("whether a configuration is to be read again is not known: %v", err))
		return
	}
	for _, in := range found {
		if !s.stale(ctx, in) {
			continue
		}
		name := in.Component.Name
		s.Notice(name + ": its configuration on disk is newer than the one it runs with; it reads it again")
		if _, err := s.Restart(ctx, RestartOptions{Components: []string{name}, Strategy: run.Reload}); err != nil {
			res.Warnings = append(res.Warnings, fmt.Sprintf("%s: its changed configuration was not taken: %v", name, err))
		}
	}
}

// stale reports whether a component's configuration changed after it read it.
func (s *Stack) stale(ctx context.Context, in *inventory.Installed) bool {
	for _, one := range in.Local() {
		if !one.Status.Active {
			continue
		}
		read, err := strconv.ParseFloat(s.lastReload(ctx, one, s.vars(one).WithURL(one.Component.Health)), 64)
		if err != nil {
			continue
		}
		if newest := s.newestConfig(one); newest.After(time.UnixMilli(int64(read * 1000))) {
			return true
		}
	}
	return false
}

// newestConfig is when a component's configuration was last written.
func (s *Stack) newestConfig(in *inventory.Installed) time.Time {
	var newest time.Time
	for _, p := range in.Component.Config.Paths {
		root := s.Root.Path(s.vars(in).Expand(p))
		err := filepath.WalkDir(root, func(_ string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || strings.HasPrefix(d.Name(), ".") {
				return nil //nolint:nilerr // what cannot be read is not its configuration
			}
			if info, err := d.Info(); err == nil && info.ModTime().After(newest) {
				newest = info.ModTime()
			}
			return nil
		})
		if err != nil {
			s.Logger.Debug("configuration not looked at", "path", root, "error", err)
		}
	}
	return newest
}

// confirmWait is how long a component may need to read its configuration again
// after a signal.
const confirmWait = 15 * time.Second

// reload reports whether the component could re-read its configuration. Only
// what the definition names is tried: SIGHUP kills a program without a handler.
func (s *Stack) reload(ctx context.Context, in *inventory.Installed) (bool, error) {
	r := in.Component.Reload
	vars := s.vars(in).WithURL(in.Component.Health)
	before := s.lastReload(ctx, in, vars)
	done, err := s.askToReload(ctx, in, vars)
	if !done || err != nil || before == "" {
		return done, err
	}
	deadline, cancel := context.WithTimeout(ctx, confirmWait)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		if now := s.lastReload(deadline, in, vars); now != "" && now != before {
			return true, nil
		}
		select {
		case <-deadline.Done():
			if ctx.Err() != nil {
				return false, ctx.Err()
			}
			return false, fmt.Errorf("it was asked to read its configuration again, and %s did not say that it has within %s: it keeps the old one; see its log", r.Confirm.Name, confirmWait)
		case <-tick.C:
		}
	}
}

// lastReload is what the definition's reload.confirm reads; "" where there is none
// or it cannot be read.
func (s *Stack) lastReload(ctx context.Context, in *inventory.Installed, vars component.Vars) string {
	confirm := in.Component.Reload.Confirm
	if confirm == nil {
		return ""
	}
	return s.prober.Test(ctx, s.client(in), health.ExpandTests([]component.Test{*confirm}, vars)[0], time.Time{}).Value
}

// askToReload goes through the ways of the definition: HTTP, and where that is
// refused or not there the signal, then the service manager.
func (s *Stack) askToReload(ctx context.Context, in *inventory.Installed, vars component.Vars) (bool, error) {
	r := in.Component.Reload
	if r.HTTP != "" {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		status, body, err := s.prober.Post(ctx, s.client(in), vars.Expand(r.HTTP))
		if err == nil {
			switch {
			case status < 300:
				return true, nil
			case status >= 500 || status == http.StatusBadRequest:
				return false, fmt.Errorf("%s answered %d %.200q: it keeps its old configuration; correct it and reload again", vars.Expand(r.HTTP), status, body)
			}
		}
	}
	if r.Signal != "" {
		sig, ok := signals[strings.TrimPrefix(strings.ToUpper(r.Signal), "SIG")]
		if !ok {
			return false, fmt.Errorf("reload.signal %q is not known", r.Signal)
		}
		return true, s.services.Signal(ctx, in.Service, sig)
	}
	if r.Service {
		return true, s.services.Reload(ctx, in.Service)
	}
	return false, nil
}

var signals = map[string]syscall.Signal{"HUP": syscall.SIGHUP, "USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2}
