package preflight

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/observability-upgrade/observability-upgrade/internal/backup"
	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/custody"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

// checkBackupDir proves that a backup point can be written, and that nobody else
// owns or can change the directory of them.
func (c *checker) checkBackupDir(context.Context) finding {
	dir := c.Root.Backups()
	bad := func(next, format string, args ...any) finding {
		return found(fail(BackupReadiness, "", next, format, args...))
	}
	var e *custody.Error
	if err := custody.Dir(dir); errors.As(err, &e) {
		return bad(e.Fix, "%s", e.Detail())
	} else if err != nil {
		return bad("ls -ld "+dir, "%v", err)
	}
	if c.TryWrite == nil {
		return found(skipped(BackupReadiness, "", "nothing was written to %s", dir))
	}
	at := existing(dir)
	if err := c.TryWrite(at); err != nil {
		next := "df -h " + at
		switch {
		case os.IsPermission(err):
			next = "ls -ld " + at
		case errors.Is(err, unix.EROFS):
			next = hostfs.Remedy(err)
		}
		return bad(next, "%s: expected that a file can be written and synced, found: %v", at, err)
	}
	if at != dir {
		return found(ok(BackupReadiness, "", "%s can be made: %s can be written", dir, at))
	}
	return found(ok(BackupReadiness, "", "%s can be written", dir))
}

// checkLinked tells of directories that the configuration links to: a backup keeps
// the links, and a rollback leaves alone what they lead to.
func (c *checker) checkLinked(_ context.Context, st step) finding {
	var checks []component.Check
	vars := component.Vars{Name: st.in.Component.Name}
	for _, p := range st.in.Component.Config.Paths {
		path := c.Root.Path(vars.Expand(p))
		dirs, err := backup.LinkedDirs(path)
		if err != nil {
			checks = append(checks, fail(BackupReadiness, st.Component, "ls -lR "+path, "%s: expected configuration that can be copied, found: %v", path, err))
			continue
		}
		for _, dir := range dirs {
			checks = append(checks, warn(BackupReadiness, st.Component, "", "a link in %s leads to %s: the link is kept in the backup, what the directory holds is not, and a rollback leaves it as it is", path, dir))
		}
	}
	return found(checks...)
}
