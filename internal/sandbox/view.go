package sandbox

import (
	"bufio"
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

// secret is what no tool needs to judge a configuration.
var secret = []string{
	"/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-", "/etc/security/opasswd",
	"/etc/ssh", "/etc/sudoers", "/etc/sudoers.d", "/etc/krb5.keytab", "/root", "/home", "/var/spool", "/var/mail",
}

// changing are the places of what others leave there: files, sockets, devices.
var changing = []string{"/tmp", "/var/tmp", "/run", "/dev", "/proc"}

// makeView builds what the program sees on the base directory and makes it the root.
// An error leaves the helper where nothing may follow.
func makeView(o *order) (gaps []Gap, err error) {
	// Nothing of this is seen outside, whatever the host shares.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("mounts of its own: %w", err)
	}
	v := view{base: o.Base}
	if o.View == Host {
		err = v.host()
	} else {
		err = v.bare()
	}
	if err != nil {
		return nil, err
	}
	if err := v.devices(); err != nil {
		return nil, err
	}
	if gap := v.proc(o); gap != nil {
		gaps = append(gaps, *gap)
	}
	for _, path := range o.Show {
		if err := v.show(path); err != nil {
			return nil, err
		}
	}
	if err := v.bind(o.Real, o.Real); err != nil {
		return nil, err
	}
	if err := v.same(o.Real); err != nil {
		return nil, err
	}
	hide := o.Hide
	if o.View == Host {
		hide = slices.Concat(hide, secret)
	}
	for _, path := range hide {
		if shownBelow(o.Show, path) {
			continue
		}
		if err := v.hide(path); err != nil {
			return nil, err
		}
	}
	return gaps, v.enter(o.View == Bare)
}

// shownBelow says that one of the paths to show is, or lies below, the one to hide,
// which is then one of ours: the caller's are hidden whatever is shown.
func shownBelow(show []string, path string) bool {
	return slices.Contains(secret, path) && slices.ContainsFunc(show, func(s string) bool {
		return s == path || strings.HasPrefix(s, path+"/")
	})
}

type view struct{ base string }

// at is where a path of the view lies as yet. The path must be free of links: they
// would lead to the host's files.
func (v view) at(path string) string { return filepath.Join(v.base, path) }

const closed = unix.MS_NOSUID | unix.MS_NODEV

func (v view) tmpfs(path, options string) error {
	if err := unix.Mount("sandbox", v.at(path), "tmpfs", closed, options); err != nil {
		return fmt.Errorf("an empty %s: %w", path, err)
	}
	return nil
}

// bare makes a root with the system's programs and libraries.
func (v view) bare() error {
	if err := v.tmpfs("/", "size=1m,nr_inodes=4k,mode=0755"); err != nil {
		return err
	}
	for _, dir := range []string{"/etc", "/tmp", "/dev", "/proc"} {
		if err := os.MkdirAll(v.at(dir), 0o755); err != nil { // everybody may look into the root
			return err
		}
	}
	if err := v.tmpfs("/tmp", "size="+maxTmp+",nr_inodes=4k,mode=1777"); err != nil {
		return err
	}
	for _, path := range slices.Concat(system, systemFiles) {
		if target, err := os.Readlink(path); err == nil && filepath.Dir(path) == "/" { // as /bin to usr/bin
			if err := os.Symlink(target, v.at(path)); err != nil {
				return err
			}
			continue
		}
		if err := v.show(path); err != nil {
			return err
		}
	}
	return nil
}

// host makes a root of the host's, read only, where what changes is empty.
func (v view) host() error {
	if err := v.bind("/", "/"); err != nil {
		return err
	}
	for _, path := range changing {
		if path == "/proc" {
			continue // the list of this namespace's processes, or nothing
		}
		if st, err := os.Lstat(v.at(path)); err != nil || !st.IsDir() {
			continue // /var/tmp may be a link
		}
		if err := v.tmpfs(path, "size="+maxTmp+",nr_inodes=4k,mode=1777"); err != nil {
			return err
		}
	}
	return nil
}

// show makes a file or directory of the host's seen under its real name, with all
// below it; one that is not there is left out.
func (v view) show(path string) error {
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return v.bind(real, real)
}

// bind makes source seen at a path, read only.
func (v view) bind(source, path string) error {
	at := v.at(path)
	st, err := os.Stat(source)
	if err != nil {
		return err
	}
	if err := v.place(path, st.IsDir()); err != nil {
		return fmt.Errorf("a place for %s: %w", path, err)
	}
	if err := unix.Mount(source, at, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := readOnly(at); err != nil {
		return fmt.Errorf("%s read only: %w", path, err)
	}
	return nil
}

// same makes sure that the view has the very file that was opened, whatever was put
// in its place since.
func (v view) same(path string) error {
	var opened, seen unix.Stat_t
	if err := errors.Join(unix.Fstat(programFD, &opened), unix.Stat(v.at(path), &seen)); err != nil {
		return err
	}
	if opened.Dev != seen.Dev || opened.Ino != seen.Ino {
		return fmt.Errorf("%s is not the file that was opened", path)
	}
	return nil
}

// place makes what is mounted upon, where it is not there. Nothing is made outside
// the view, wherever links may lead.
func (v view) place(path string, dir bool) error {
	root, err := os.OpenRoot(v.base)
	if err != nil {
		return err
	}
	defer root.Close()
	name := strings.TrimPrefix(filepath.Clean(path), "/")
	if name == "" {
		return nil
	}
	if _, err := root.Lstat(name); err == nil {
		return nil
	}
	if dir {
		return root.MkdirAll(name, 0o755)
	}
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// readOnly closes a mount and all below it to writing and set-id programs.
func readOnly(at string) error {
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV}
	err := unix.MountSetattr(unix.AT_FDCWD, at, unix.AT_RECURSIVE, &attr)
	if !errors.Is(err, unix.ENOSYS) {
		return err
	}
	return readOnlyEach(at)
}

// readOnlyEach does the same on kernels before 5.12, mount by mount.
func readOnlyEach(at string) error {
	below, err := mountsBelow(at)
	if err != nil {
		return err
	}
	for _, path := range below {
		var st unix.Statfs_t
		if err := unix.Statfs(path, &st); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		flags := uintptr(unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY | closed)
		// What a user namespace found closed it must leave closed.
		for have, flag := range map[int64]uintptr{unix.ST_NOEXEC: unix.MS_NOEXEC, unix.ST_NOATIME: unix.MS_NOATIME, unix.ST_NODIRATIME: unix.MS_NODIRATIME, unix.ST_RELATIME: unix.MS_RELATIME} {
			if int64(st.Flags)&have != 0 { //nolint:unconvert // its type depends on the architecture
				flags |= flag
			}
		}
		if err := unix.Mount("", path, "", flags, ""); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

// mountsBelow lists where something is mounted at or below a path.
func mountsBelow(at string) ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []string
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		words := strings.Fields(sc.Text())
		if len(words) < 5 {
			return nil, fmt.Errorf("/proc/self/mountinfo: %q", sc.Text())
		}
		if path := unescape(words[4]); path == at || strings.HasPrefix(path, at+"/") {
			out = append(out, path)
		}
	}
	return out, sc.Err()
}

// unescape undoes the octal escapes of mountinfo: proc_pid_mountinfo(5).
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// devices makes the few that every program may use.
func (v view) devices() error {
	for _, path := range devices {
		if err := v.place(path, false); err != nil {
			return err
		}
		if err := unix.Mount(path, v.at(path), "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	for name, target := range map[string]string{"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"} {
		if err := os.Symlink(target, v.at("/dev/"+name)); err != nil {
			return err
		}
	}
	return nil
}

// proc shows the processes of this namespace alone; where that cannot be, none.
func (v view) proc(o *order) *Gap {
	err := errors.New("left out")
	if !slices.Contains(o.Without, Proc) {
		err = unix.Mount("proc", v.at("/proc"), "proc", closed|unix.MS_NOEXEC|unix.MS_RDONLY, "")
	}
	if err == nil {
		return nil
	}
	if o.View == Host {
		if empty := v.tmpfs("/proc", "size=4k,mode=0555"); empty != nil {
			err = errors.Join(err, empty)
		}
	}
	return &Gap{Proc, err.Error()}
}

// hide makes a path empty; one that is not there needs nothing.
func (v view) hide(path string) error {
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil // a plain user's program cannot come to it either
	}
	if err != nil {
		return err
	}
	st, err := os.Lstat(v.at(real))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil // not in the view
	case err != nil:
		return err
	case st.IsDir():
		return v.tmpfs(real, "size=4k,mode=0555")
	}
	if err := unix.Mount("/dev/null", v.at(real), "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("hide %s: %w", path, err)
	}
	return nil
}

// enter makes the view the root, and lets go of the host's: pivot_root(2).
func (v view) enter(bare bool) error {
	if err := unix.Chdir(v.base); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("a root of its own: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("let go of the host's root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	if !bare {
		return nil // it is a mount of the host's, and closed already
	}
	// The directories made on the way to what is shown are closed now too.
	return unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|closed, "")
}
