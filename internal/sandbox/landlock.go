package sandbox

import (
	"errors"
	"os"
	"slices"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// system is what every program may need of the host.
var system = []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store"}

// systemFiles are those of /etc, which tell nothing secret.
var systemFiles = []string{"/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/localtime", "/etc/passwd", "/etc/group", "/etc/nsswitch.conf"}

// devices are those that give and keep nothing.
var devices = []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"}

// restrict leaves no file writable but those below home, and no network. Where
// there is no view of files, it also is what keeps those of others unread.
func restrict(o *order, home string) error {
	if slices.Contains(o.Without, Landlock) {
		return errors.New("left out")
	}
	if abi, err := ll.LandlockGetABIVersion(); err != nil {
		return err
	} else if abi < 1 {
		return errors.New("this kernel has none")
	}
	rules := []landlock.Rule{
		landlock.RWDirs(home),
		landlock.RWFiles(devices...).IgnoreIfMissing(),
	}
	if o.Files || o.View == Host {
		rules = append(rules, landlock.RODirs("/"))
	} else {
		rules = append(rules, landlock.RODirs("/proc").IgnoreIfMissing())
		shown := slices.Concat(system, systemFiles, o.Show)
		for _, path := range append(shown, "/proc/self/fd/5") {
			st, err := os.Stat(path)
			switch {
			case err != nil: // not on every host
			case st.IsDir():
				rules = append(rules, landlock.RODirs(path))
			default:
				rules = append(rules, landlock.ROFiles(path))
			}
		}
	}
	fd, flags, err := landlock.V11.BestEffort().NewRulesetFD(rules...)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// For this thread alone; it is the one that becomes the program.
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	return ll.LandlockRestrictSelf(fd, flags)
}
