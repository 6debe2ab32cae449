package stack

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/observability-upgrade/observability-upgrade/internal/artifact"
	"github.com/observability-upgrade/observability-upgrade/internal/health"
	"github.com/observability-upgrade/observability-upgrade/internal/inventory"
)

// bringBack is what to do about a component whose binary is gone.
func bringBack(in *inventory.Installed) string {
	return fmt.Sprintf("observability-upgrade rollback --list shows the backups that bring it back; or install it again, then: observability-upgrade adopt --yes; where it was removed on purpose: observability-upgrade adopt --component=%s --yes forgets it", in.Component.Name)
}

// goneError refuses to act on a component whose binary is gone.
func goneError(in *inventory.Installed, how string) error {
	return &RefusedError{
		Component: in.Component.Name, Check: "binary",
		Err: errors.New(in.Problem + how), Next: bringBack(in),
	}
}

// unstartableError refuses to stop what runs of a component whose file cannot be
// executed any more, whatever else is wrong with it; nil where it can.
func unstartableError(in *inventory.Installed) error {
	if in.Untold == nil || !in.Status.Active || !errors.Is(in.Untold, unix.ENOEXEC) && !nobodyMayExecute(in.Path) {
		return nil
	}
	return &RefusedError{
		Component: in.Component.Name, Check: "binary",
		Err:  fmt.Errorf("%w; a restart would stop what still runs of it for good; nothing was restarted", in.Untold),
		Next: "put the file right, or go back to one that works: observability-upgrade rollback --list",
	}
}

// nobodyMayExecute reports whether a file's mode lets nobody execute it, not even root.
func nobodyMayExecute(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular() && st.Mode()&0o111 == 0
}

// untold names the file that told no version and, where its mode is why, the remedy.
func untold(path string, args []string, err error) error {
	switch {
	case nobodyMayExecute(path):
		return fmt.Errorf("%w: nobody may execute it: chmod 755 %s", err, path)
	case !strings.Contains(err.Error(), path):
		return fmt.Errorf("`%s %s`: %w", path, cmp.Or(strings.Join(args, " "), "--version"), err)
	}
	return err
}

// judgeBinary adds to a report what is wrong with the file that the next start
// would execute: what runs now may be well. One that runs and tells no version may
// be a build of somebody else's, and well.
func (s *Stack) judgeBinary(in *inventory.Installed, r *health.Report) {
	next := "put the file right, or go back to one that works: observability-upgrade rollback --list"
	if errors.Is(in.Untold, artifact.ErrVersionUnknown) {
		next = fmt.Sprintf("put the file right (or `version` in %s), or go back to one that works: observability-upgrade rollback --list", s.definition(in.Component))
	}
	switch {
	case in.Gone != "":
		r.Fail("binary", fmt.Sprintf("%s; the next start would fail: %s", in.Problem, bringBack(in)))
	case in.Untold == nil:
	case errors.Is(in.Untold, fs.ErrPermission) && os.Geteuid() != 0 && !strings.Contains(in.Problem, "chmod"):
		r.Doubt("binary", in.Problem+"; this user may not run it, so it is not known whether it works: ask as root")
	case errors.As(in.Untold, new(unix.Errno)):
		r.Fail("binary", fmt.Sprintf("expected it to tell its version, found: %s; the next start may fail: %s", in.Problem, next))
	default:
		r.Warn("binary", fmt.Sprintf("expected it to tell its version, found: %s; if it does not work either, the next start fails: %s", in.Problem, next))
	}
}
