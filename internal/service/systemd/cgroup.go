package systemd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// executing reports whether the process is still systemd's child on its way to
// become the unit's program: systemd itself, or systemd-executor since v254.
func executing(pid int) bool {
	exe, err := os.Readlink(exeLink(pid))
	if err != nil {
		return false
	}
	base := filepath.Base(exe)
	return base == "systemd" || base == "systemd-executor"
}

// processes lists the processes of a control group and of those below it, in
// the unified hierarchy, or on older hosts in systemd's own. A group that is
// gone has none. See "cgroup.procs" in Linux's admin-guide/cgroup-v2.
func (m *Manager) processes(group string) ([]int, error) {
	if strings.Trim(group, "/") == "" {
		return nil, nil // the root group is never a unit's
	}
	var pids []int
	for _, root := range m.groupRoots {
		err := filepath.WalkDir(filepath.Join(root, group), func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Name() == "cgroup.procs" {
				var more []int
				more, err = readProcs(path)
				pids = append(pids, more...)
			}
			if vanished(err) {
				return nil
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("processes of control group %s: %w", group, err)
		}
	}
	slices.Sort(pids)
	return slices.Compact(pids), nil
}

// vanished tells the errors of a group that was removed meanwhile, and of a
// threaded one, whose processes are listed above it.
func vanished(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EOPNOTSUPP)
}

func readProcs(path string) ([]int, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parseProcs(data)
}

// parseProcs reads a cgroup.procs file. Processes of another PID namespace are
// listed as 0 and cannot be ours.
func parseProcs(data []byte) ([]int, error) {
	var pids []int
	for f := range strings.FieldsSeq(string(data)) {
		pid, err := strconv.Atoi(f)
		if err != nil || pid < 0 {
			return nil, fmt.Errorf("process number %q", f)
		}
		if pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
