package timer

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// ProgramError says why a program must not be what a unit starts as root.
type ProgramError struct{ Path, Why string }

func (e *ProgramError) Error() string {
	return fmt.Sprintf("expected a program that a unit of root's can start, found %s, %s", e.Path, e.Why)
}

// unseen are directories that the units do not see, by ProtectHome, or that are
// emptied and open to all.
var unseen = map[string]string{
	"/home": "which the units do not see (ProtectHome=yes)", "/root": "which the units do not see (ProtectHome=yes)",
	"/run/user": "which the units do not see (ProtectHome=yes)",
	"/tmp":      "which is emptied at boot", "/var/tmp": "where everybody can write", "/dev/shm": "which is emptied at boot",
}

// CheckProgram refuses, with a ProgramError, a program that units could not start
// or that somebody other than root could replace: it and every directory above it
// must be root's, and closed to the writing of others.
func CheckProgram(path string) error {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	for dir, why := range unseen {
		if strings.HasPrefix(real, dir+"/") {
			return &ProgramError{real, fmt.Sprintf("below %s, %s", dir, why)}
		}
	}
	for at := real; ; at = filepath.Dir(at) {
		st, err := os.Stat(at)
		if err != nil {
			return err
		}
		if why := replaceable(st); why != "" {
			if at != real {
				why = "below " + at + ", " + why
			}
			return &ProgramError{real, why}
		}
		if at == "/" {
			return nil
		}
	}
}

// replaceable says who other than root could change a file; "" for nobody.
func replaceable(st fs.FileInfo) string {
	sys, ok := st.Sys().(*syscall.Stat_t)
	switch perm := st.Mode().Perm(); {
	case !ok:
		return "whose owner cannot be read"
	case sys.Uid != 0:
		return fmt.Sprintf("which belongs to user %d", sys.Uid)
	case perm&0o002 != 0:
		return fmt.Sprintf("which everybody can write (mode %04o)", perm)
	case perm&0o020 != 0 && sys.Gid != 0:
		return fmt.Sprintf("which group %d can write (mode %04o)", sys.Gid, perm)
	}
	return ""
}
