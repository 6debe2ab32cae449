package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Limits of what a program may use. Go programs reserve much more address space
// than they use, so what they use is limited closely and the space widely.
const (
	maxData      = 2 << 30  // bytes of memory that it writes to
	maxSpace     = 32 << 30 // bytes of address space; shared memory counts here only
	maxFile      = 64 << 20 // bytes of one file
	maxFiles     = 1024
	maxCPU       = 60    // seconds
	maxProcesses = 512   // and threads, besides those the user has
	maxTmp       = "64m" // of the private directory, and the memory it takes
)

// limit sets the limits of this process, which the program inherits.
func limit(o *order) error {
	if slices.Contains(o.Without, Limits) {
		return errors.New("left out")
	}
	tasks := uint64(maxProcesses)
	if o.Root || !o.Namespaces {
		uid := os.Getuid()
		if o.Root {
			uid = nobody
		}
		tasks += countTasks(uid) // in a user namespace, only its own count
	}
	var errs []error
	for _, l := range []struct {
		name  string
		which int
		most  uint64
	}{
		{"core files", unix.RLIMIT_CORE, 0},
		{"memory", unix.RLIMIT_DATA, maxData},
		{"address space", unix.RLIMIT_AS, maxSpace},
		{"file size", unix.RLIMIT_FSIZE, maxFile},
		{"files", unix.RLIMIT_NOFILE, maxFiles},
		{"processor time", unix.RLIMIT_CPU, maxCPU},
		{"processes", unix.RLIMIT_NPROC, tasks},
		{"message queues", unix.RLIMIT_MSGQUEUE, 0},
	} {
		var now unix.Rlimit
		if err := unix.Getrlimit(l.which, &now); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", l.name, err))
			continue
		}
		most := min(setLimit(l.most), now.Max) // one that is lower stays
		if err := unix.Setrlimit(l.which, &unix.Rlimit{Cur: most, Max: most}); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", l.name, err))
		}
	}
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0o600); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// setLimit is a limit as the kernel of this architecture takes it.
func setLimit(v uint64) uint64 { return min(v, uint64(^uintptr(0))) }

// countTasks is how many threads a user has.
func countTasks(uid int) (n uint64) {
	found, err := filepath.Glob("/proc/[0-9]*/status")
	if err != nil {
		return 0 // the pattern is ours; it is well formed
	}
	for _, path := range found {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		mine := false
		for line := range strings.Lines(string(text)) {
			key, rest, _ := strings.Cut(line, ":")
			words := strings.Fields(rest)
			if len(words) == 0 {
				continue
			}
			switch key {
			case "Uid":
				mine = words[0] == strconv.Itoa(uid)
			case "Threads":
				if t, err := strconv.ParseUint(words[0], 10, 32); err == nil && mine {
					n += t
				}
			}
		}
	}
	return n
}

// thread makes a system call for this thread alone, which is the one that becomes
// the program: what syscall.Setresuid does for all threads takes their cooperation.
func thread(nr, a, b, c uintptr) error {
	if _, _, errno := unix.RawSyscall(nr, a, b, c); errno != 0 {
		return errno
	}
	return nil
}

// drop gives up the user and every capability, for good. Nothing of it may fail.
func drop(o *order) error {
	must := func(what string, err error) error {
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		return nil
	}
	var keep uint32
	if o.Root && o.ReadAll {
		keep = 1 << unix.CAP_DAC_READ_SEARCH
	}
	for c := uintptr(0); ; c++ {
		if keep != 0 && c == unix.CAP_DAC_READ_SEARCH {
			continue // what is not in that set cannot be kept
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if err == nil {
			continue
		}
		if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EPERM) {
			return must("capabilities that files could give", err)
		}
		break // the kernel knows no more; or who may not do it has none, and gains none below
	}
	if o.Root {
		err := errors.Join(
			unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0),
			must("groups", thread(unix.SYS_SETGROUPS, 0, 0, 0)),
			must("group", thread(unix.SYS_SETRESGID, nobody, nobody, nobody)),
			must("user", thread(unix.SYS_SETRESUID, nobody, nobody, nobody)))
		if err != nil {
			return err
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
		return must("capabilities that stay", err)
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{{Effective: keep, Permitted: keep, Inheritable: keep}}
	if err := unix.Capset(&hdr, &data[0]); err != nil {
		return must("capabilities", err)
	}
	if keep != 0 {
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, unix.CAP_DAC_READ_SEARCH, 0, 0); err != nil {
			return must("the right to read the configuration", err)
		}
	}
	return errors.Join(
		must("no new privileges", unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)),
		// The change of the user has undone it.
		must("the parent's death signal", unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0, 0, 0)))
}
