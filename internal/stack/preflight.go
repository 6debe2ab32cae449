package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/health"
	"github.com/observability-upgrade/observability-upgrade/internal/history"
	"github.com/observability-upgrade/observability-upgrade/internal/inventory"
	"github.com/observability-upgrade/observability-upgrade/internal/plan"
)

// checkDeadline bounds each pre-flight check.
const checkDeadline = 15 * time.Second

// preflight runs the checks that a plan must pass, side by side, and returns
// all of them in a fixed order: a person wants the whole list, not the first.
func (s *Stack) preflight(ctx context.Context, v *View, p *plan.Plan, skipHealth bool) []health.Check {
	steps := p.Steps()
	if len(steps) == 0 {
		return []health.Check{}
	}
	jobs := []func(context.Context) []health.Check{
		func(context.Context) []health.Check { return s.checkDisk(v, steps) },
		func(context.Context) []health.Check { return s.checkBackupDir() },
		s.checkHistory,
	}
	before, err := s.signedBefore()
	if err != nil {
		return []health.Check{{Name: "state", Status: health.Fail, Detail: err.Error()}}
	}
	for _, st := range steps {
		in := v.Installed[st.Component]
		jobs = append(jobs,
			func(ctx context.Context) []health.Check { return s.checkService(ctx, in, skipHealth) },
			func(context.Context) []health.Check { return s.checkBinary(in) },
			func(context.Context) []health.Check { return s.checkSigned(in.Component, before[st.Component]) },
		)
	}
	results := make([][]health.Check, len(jobs))
	var wg sync.WaitGroup
	for i, job := range jobs {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, checkDeadline)
			defer cancel()
			results[i] = job(ctx)
		})
	}
	wg.Wait()
	var all []health.Check
	for _, r := range results {
		all = append(all, r...)
	}
	all = append(all, health.Check{
		Name: "config_syntax", Status: health.Skipped,
		Detail: "made at apply with the new version's tools, before any service stops",
	})
	return all
}

// checkService takes the baseline: what is broken before an upgrade would be
// blamed on it afterwards, so it is refused.
func (s *Stack) checkService(ctx context.Context, in *inventory.Installed, skipHealth bool) []health.Check {
	name := in.Component.Name
	result := func(st health.Status, format string, args ...any) []health.Check {
		return []health.Check{{Name: "service_health", Component: name, Status: st, Detail: fmt.Sprintf(format, args...)}}
	}
	if skipHealth {
		return result(health.Skipped, "--skip-health-checks")
	}
	if !in.Status.Exists {
		if in.Service.Unit == "" && len(in.Service.Command) == 0 {
			return result(health.Skipped, "it has no service")
		}
		return result(health.Warn, "%s does not exist: only its files are replaced", in.Service.Label())
	}
	t, err := s.target(in)
	if err != nil {
		return result(health.Fail, "%v", err)
	}
	r := s.prober.Once(ctx, t)
	if !r.Healthy {
		return result(health.Fail, "not healthy before the upgrade: %s; mend it first, or start it with `observability-upgrade restart --component=%s`", r.Failures(), name)
	}
	if in.Status.Restarts > 0 {
		return result(health.Warn, "healthy, but it was restarted by its manager %d times", in.Status.Restarts)
	}
	if in.Status.NeedDaemonReload {
		return result(health.Warn, "healthy, but its unit file changed on disk: `systemctl daemon-reload`")
	}
	return result(health.OK, "healthy")
}

// target is the probe of a component as it is installed now.
func (s *Stack) target(in *inventory.Installed) (health.Target, error) {
	vars := component.Vars{Name: in.Component.Name, Version: in.Version.String(), Root: s.Root.Prefix()}
	t, err := health.NewTarget(in.Component, in.Service, vars, s.Policy.Timeouts.Health.Std())
	if in.RunsPath {
		t.Executable = in.Path
	}
	return t, err
}

// checkBinary proves that the files may be replaced: their directory can be
// written and they are not immutable.
func (s *Stack) checkBinary(in *inventory.Installed) []health.Check {
	name := in.Component.Name
	for bin, path := range in.Binaries {
		if err := writable(filepath.Dir(path)); err != nil {
			return []health.Check{{Name: "binary_writable", Component: name, Status: health.Fail, Detail: fmt.Sprintf("%s: %v; run as root", filepath.Dir(path), err)}}
		}
		if immutable(path) {
			return []health.Check{{Name: "binary_writable", Component: name, Status: health.Fail, Detail: fmt.Sprintf("%s (%s) is immutable: `chattr -i %s`", path, bin, path)}}
		}
	}
	return []health.Check{{Name: "binary_writable", Component: name, Status: health.OK, Detail: "its files can be replaced"}}
}

func writable(dir string) error {
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return fmt.Errorf("cannot be written: %w", err)
	}
	return nil
}

// fsImmutable is FS_IMMUTABLE_FL of linux/fs.h.
const fsImmutable = 0x10

func immutable(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	return err == nil && flags&fsImmutable != 0
}

// checkBackupDir proves that backup points can be written.
func (s *Stack) checkBackupDir() []health.Check {
	dir := s.Root.Backups()
	check := health.Check{Name: "backup_writable", Status: health.OK, Detail: dir + " can be written"}
	fail := func(format string, args ...any) []health.Check {
		check.Status, check.Detail = health.Fail, fmt.Sprintf(format, args...)
		return []health.Check{check}
	}
	if st, err := os.Lstat(dir); err == nil {
		if st.Mode()&os.ModeSymlink != 0 {
			return fail("%s is a link: `rm %s`, then make it a directory", dir, dir)
		}
		if !st.IsDir() {
			return fail("%s is not a directory: `rm %s`", dir, dir)
		}
		if sys, ok := ownerOf(st); ok && sys != 0 && sys != uint32(os.Geteuid()) {
			return fail("%s belongs to uid %d: `chown %d %s`", dir, sys, os.Geteuid(), dir)
		}
		if st.Mode().Perm()&0o022 != 0 {
			return fail("%s can be written by others: `chmod go-w %s`", dir, dir)
		}
	}
	if err := writable(existing(dir)); err != nil {
		return fail("%s: %v", existing(dir), err)
	}
	return []health.Check{check}
}

// checkHistory proves that what the run does can be recorded.
func (s *Stack) checkHistory(ctx context.Context) []health.Check {
	check := health.Check{Name: "history_readable", Status: health.OK, Detail: "the history can be written"}
	db, err := history.OpenReadOnly(ctx, s.Root.History())
	if err == nil {
		err = db.Close()
	}
	if err != nil {
		check.Status, check.Detail = health.Fail, err.Error()
	}
	return []health.Check{check}
}

// existing is the nearest parent of path that exists.
func existing(path string) string {
	for {
		if _, err := os.Stat(path); err == nil {
			return path
		}
		parent := filepath.Dir(path)
		if parent == path {
			return path
		}
		path = parent
	}
}

// checkDisk adds up what a run writes per file system: archives and unpacked
// files in staging and cache, new files beside the old, and the backup, with the
// specification's margin of 20 %.
func (s *Stack) checkDisk(v *View, steps []plan.Step) []health.Check {
	need := map[uint64]uint64{}
	where := map[uint64]string{}
	add := func(path string, bytes int64) error {
		var st unix.Stat_t
		dir := existing(path)
		if err := unix.Stat(dir, &st); err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
		need[st.Dev] += uint64(bytes)
		if where[st.Dev] == "" {
			where[st.Dev] = dir
		}
		return nil
	}
	var errs []error
	for _, step := range steps {
		in := v.Installed[step.Component]
		var old, config int64
		for _, p := range in.Binaries {
			old += sizeOf(p)
		}
		for _, p := range in.Component.Config.Paths {
			config += sizeOf(s.Root.Path(p))
		}
		download := step.DownloadBytes
		if download == 0 {
			download = old
		}
		fresh := max(old*5/4, download*3)
		errs = append(errs, add(s.Root.Cache(), download), add(s.staging(), fresh), add(filepath.Dir(in.Path), fresh), add(s.Root.Backups(), old+config))
	}
	if err := errors.Join(errs...); err != nil {
		return []health.Check{{Name: "disk_space", Status: health.Fail, Detail: err.Error()}}
	}
	check := health.Check{Name: "disk_space", Status: health.OK}
	var detail []string
	for dev, n := range need {
		var fs unix.Statfs_t
		if err := unix.Statfs(where[dev], &fs); err != nil {
			return []health.Check{{Name: "disk_space", Status: health.Fail, Detail: fmt.Sprintf("%s: %v", where[dev], err)}}
		}
		want, free := n*6/5, fs.Bavail*uint64(fs.Bsize)
		if free < want {
			check.Status = health.Fail
			detail = append(detail, fmt.Sprintf("the file system of %s needs %s, has %s free", where[dev], plan.Bytes(int64(want)), plan.Bytes(int64(free))))
		} else if check.Status != health.Fail {
			detail = append(detail, fmt.Sprintf("%s: needs %s, has %s", where[dev], plan.Bytes(int64(want)), plan.Bytes(int64(free))))
		}
		if fs.Files > 0 && fs.Ffree < 1000 {
			check.Status = health.Fail
			detail = append(detail, fmt.Sprintf("the file system of %s has only %d inodes free", where[dev], fs.Ffree))
		}
	}
	check.Detail = joinSorted(detail)
	return []health.Check{check}
}

func sizeOf(path string) int64 {
	var n int64
	_ = filepath.WalkDir(path, func(_ string, d os.DirEntry, err error) error {
		if err != nil {
			return nil // what cannot be read is not copied either; the backup will say so
		}
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() {
			n += info.Size()
		}
		return nil
	})
	return n
}
