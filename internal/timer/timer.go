// Package timer writes the systemd units that run upgrades unattended: a timer,
// the service it starts, and the service that finishes an interrupted run at boot.
// It renders and places files; who enables them is the caller's business.
//
// Files are written only where they differ, so doing it again changes nothing. A
// unit of that name that this program did not write is not touched, nor are the
// drop-ins that people add (NAME.d/*.conf). See systemd.timer(5),
// systemd.service(5) and systemd.exec(5).
package timer

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

// The names of the units.
const (
	Timer    = "observability-upgrade.timer"
	Service  = "observability-upgrade.service"
	Recovery = "observability-upgrade-recover.service"
)

// marker begins every file that this package writes.
const marker = "# Written by `observability-upgrade auto-enable`; changes belong into drop-ins."

// Options say how unattended runs happen.
type Options struct {
	Program  string        // path of this program
	Policy   string        // patch_only | minor | any
	Schedule []string      // calendar expressions, systemd.time(7)
	Delay    time.Duration // up to so much is waited, at random, so that not all hosts run at once
	// Windows are the maintenance windows that the schedule was made of, as people read
	// them, or NoWindows; "" where somebody gave the schedule.
	Windows string
	// Installed are directories of units that packages install: where one has the
	// recovery unit, that is the unit to enable.
	Installed []string
}

// NoWindows is in Options.Windows where there were none.
const NoWindows = "none"

// installed is the recovery unit that a package installed; "" where none did.
func (o Options) installed() string {
	for _, dir := range o.Installed {
		path := filepath.Join(dir, Recovery)
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}

// Files renders the units, by name.
func Files(o Options) map[string]string {
	return map[string]string{Timer: timerUnit(o), Service: serviceUnit(o), Recovery: recoveryUnit(o)}
}

func timerUnit(o Options) string {
	var b strings.Builder
	made := ""
	if o.Windows != "" {
		made = fmt.Sprintf("# windows: %s\n", o.Windows)
	}
	fmt.Fprintf(&b, `%s
# policy: %s
%s[Unit]
Description=Upgrade the observability stack unattended
Documentation=https://github.com/observability-upgrade/observability-upgrade

[Timer]
`, marker, o.Policy, made)
	for _, s := range o.Schedule {
		fmt.Fprintf(&b, "OnCalendar=%s\n", s)
	}
	fmt.Fprintf(&b, `# A run that was missed while the host was off is made up for; the maintenance
# windows still decide whether it may begin.
Persistent=true
RandomizedDelaySec=%d
AccuracySec=1s

[Install]
WantedBy=timers.target
`, int(o.Delay.Seconds()))
	return b.String()
}

func serviceUnit(o Options) string {
	return fmt.Sprintf(`%[1]s
[Unit]
Description=Upgrade the observability stack unattended
Documentation=https://github.com/observability-upgrade/observability-upgrade
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
Environment=OBSERVABILITY_UPGRADE_TRIGGER=scheduled
%[5]sExecStart=%[2]s apply --auto --policy=%[3]s --quiet --log-level=info
# With the job end the processes it started, that which sends notifications too:
# what is queued then is sent here.
ExecStopPost=-%[2]s notify deliver --wait=10m --quiet
# 8 is "outside the maintenance window", which is no failure of the unit.
SuccessExitStatus=8
TimeoutStartSec=infinity
# A stop is a SIGTERM: the component at work is rolled back, which takes its time.
TimeoutStopSec=15min
KillMode=mixed
%[4]s`, marker, o.Program, o.Policy, hardening, environment)
}

// hardening is what the job leaves room for. Not possible: ProtectSystem and
// read-only paths (binaries and units are replaced wherever they are installed),
// UMask (others read the state, and directories are made with what it leaves),
// RestrictSUIDSGID and MemoryDenyWriteExecute (binaries keep their modes and run as
// they are), ProtectProc (which file a service executes is read from /proc), a list
// of allowed calls (the commands of hooks are the administrator's). The namespaces
// and the mounts are those of the sandbox for new programs. Of the capabilities,
// CAP_SYS_ADMIN makes that sandbox, CAP_SYS_PTRACE reads which file a process
// executes, and CAP_NET_BIND_SERVICE and CAP_NET_RAW are there for installed
// programs whose files have them: without them they could not be started at all.
const hardening = `# Root is needed: it replaces binaries wherever they are, keeps their owners and
# capabilities, controls units, and runs new binaries in namespaces of their own.
# The commands of hooks have what is left here; a drop-in gives them more.
CapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_SETFCAP CAP_KILL
CapabilityBoundingSet=CAP_SETUID CAP_SETGID CAP_SETPCAP CAP_SYS_ADMIN CAP_SYS_PTRACE CAP_NET_BIND_SERVICE CAP_NET_RAW
NoNewPrivileges=yes
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
PrivateMounts=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
KeyringMode=private
RestrictRealtime=yes
RestrictNamespaces=net ipc mnt pid
LockPersonality=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=~@clock @cpu-emulation @debug @module @obsolete @raw-io @reboot @swap
SystemCallErrorNumber=EPERM
`

func recoveryUnit(o Options) string {
	return fmt.Sprintf(`%[1]s
[Unit]
Description=Finish an interrupted observability upgrade
Documentation=https://github.com/observability-upgrade/observability-upgrade
# Only where a run was cut off: its journal is still open.
ConditionDirectoryNotEmpty=/var/lib/observability/journal
# After the services had their chance to start: recovery stops and starts them
# itself, and would wait for ever for one that waits for it.
After=multi-user.target network-online.target
Wants=network-online.target

[Service]
Type=oneshot
%[4]sExecStart=%[2]s recover
# As in the service: what it has to tell is sent here.
ExecStopPost=-%[2]s notify deliver --wait=10m --quiet
TimeoutStartSec=30min
TimeoutStopSec=15min
%[3]s
[Install]
WantedBy=multi-user.target
`, marker, o.Program, hardening, environment)
}

// ForeignError says that a unit file is not this program's.
type ForeignError struct{ Path string }

func (e *ForeignError) Error() string {
	return fmt.Sprintf("%s was not written by this program and is left alone", e.Path)
}

// Write places the units in a directory and reports which of them changed. A
// recovery unit that is there already, as installation puts it, is kept; where a
// package has one, none is put before it, for it would stay as it is when the package
// is upgraded, and when it is removed. On a ForeignError nothing was written.
func Write(h *hostfs.Host, dir string, o Options) (changed []string, err error) {
	files := Files(o)
	for _, name := range []string{Timer, Service} {
		if _, err := own(filepath.Join(dir, name)); err != nil {
			return nil, err
		}
	}
	for _, name := range []string{Service, Timer, Recovery} {
		path := filepath.Join(dir, name)
		old, err := own(path)
		if name == Recovery && err == nil && old == nil && o.installed() != "" {
			continue
		}
		var foreign *ForeignError
		if errors.As(err, &foreign) {
			continue // the recovery unit of the installation
		}
		if err != nil {
			return changed, err
		}
		if string(old) == files[name] {
			continue
		}
		if err := h.MkdirAll(dir, 0o755); err != nil {
			return changed, err
		}
		if err := h.WriteFile(path, []byte(files[name]), 0o644); err != nil {
			return changed, err
		}
		changed = append(changed, name)
	}
	return changed, nil
}

// wants are the links that enable units, as systemctl makes them from [Install].
var wants = map[string]string{Timer: "timers.target.wants", Recovery: "multi-user.target.wants"}

// Enable links the timer and the recovery unit into the targets that want them, as
// `systemctl --root=DIR enable` does: for a root that no systemd runs in now. It
// reports which links were new. Of the options it needs Installed.
func Enable(h *hostfs.Host, dir string, o Options) (changed []string, err error) {
	for _, unit := range []string{Timer, Recovery} {
		link := filepath.Join(dir, wants[unit], unit)
		if _, err := os.Lstat(link); err == nil {
			continue
		}
		if err := h.MkdirAll(filepath.Dir(link), 0o755); err != nil {
			return changed, err
		}
		target := filepath.Join("..", unit)
		if _, err := os.Lstat(filepath.Join(dir, unit)); errors.Is(err, fs.ErrNotExist) {
			if target, err = filepath.Rel(filepath.Dir(link), o.installed()); err != nil {
				return changed, fmt.Errorf("no unit %s to enable: %w", unit, err)
			}
		}
		if err := h.Link(target, link); err != nil {
			return changed, err
		}
		changed = append(changed, link)
	}
	return changed, nil
}

// Enabled reports whether the timer is linked into the target that wants it.
func Enabled(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, wants[Timer], Timer))
	return err == nil
}

// Remove takes the timer and its service away and reports which were there; the
// recovery unit stays, since runs by hand can be interrupted too.
func Remove(h *hostfs.Host, dir string) (removed []string, err error) {
	for _, name := range []string{Timer, Service} {
		if _, err := own(filepath.Join(dir, name)); err != nil {
			return nil, err
		}
	}
	if Enabled(dir) {
		if err := h.Remove(filepath.Join(dir, wants[Timer], Timer)); err != nil {
			return nil, err
		}
	}
	for _, name := range []string{Timer, Service} {
		path := filepath.Join(dir, name)
		if old, err := own(path); err != nil || old == nil {
			continue
		}
		if err := h.Remove(path); err != nil {
			return removed, err
		}
		removed = append(removed, name)
	}
	return removed, nil
}

// own reads a unit of ours; nil when there is none.
func own(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case !bytes.HasPrefix(data, []byte(marker)):
		return nil, &ForeignError{Path: path}
	}
	return data, nil
}

// Read tells what the timer in a directory says; false when there is none of
// ours.
func Read(dir string) (o Options, ok bool, err error) {
	data, err := own(filepath.Join(dir, Timer))
	if err != nil || data == nil {
		return Options{}, false, err
	}
	for _, line := range strings.Split(string(data), "\n") {
		if p, found := strings.CutPrefix(line, "# policy: "); found {
			o.Policy = p
		}
		if w, found := strings.CutPrefix(line, "# windows: "); found {
			o.Windows = w
		}
		if d, found := strings.CutPrefix(line, "RandomizedDelaySec="); found {
			seconds, err := strconv.Atoi(d)
			if err != nil || seconds < 0 {
				seconds = 0 // somebody wrote it otherwise; ours is a number
			}
			o.Delay = time.Duration(seconds) * time.Second
		}
		if s, found := strings.CutPrefix(line, "OnCalendar="); found {
			o.Schedule = append(o.Schedule, s)
		}
	}
	return o, true, nil
}
