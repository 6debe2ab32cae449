package preflight

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/service"
)

// checkUnit proves that the unit starts what is replaced, and that it will be
// there tomorrow.
func (c *checker) checkUnit(_ context.Context, st step) finding {
	name, s, label := st.in.Set(), st.in.Status, st.in.Service.Label()
	switch {
	case !s.Exists:
		return found(skipped(UnitFile, name, "it has no unit"))
	case s.Masked:
		return found(fail(UnitFile, name, "systemctl unmask "+label, "expected %s to be startable, found it masked", label))
	case strings.Contains(s.FragmentPath, "/systemd/transient/"):
		return found(fail(UnitFile, name, "systemctl cat "+label, "expected a unit file that stays, found the transient %s: it is gone when the service stops", s.FragmentPath))
	case strings.Contains(s.FragmentPath, "/systemd/generator"):
		return found(fail(UnitFile, name, "systemctl cat "+label, "expected a unit file, found the generated %s: a backup of it could not be put back", s.FragmentPath))
	}
	var checks []component.Check
	if bad := c.checkExecStart(st); bad != nil {
		checks = append(checks, *bad)
	}
	if s.NeedDaemonReload {
		checks = append(checks, warn(UnitFile, name, "systemctl daemon-reload", "%s changed on disk since systemd read it: the restart of the upgrade may bring in that change", label))
	}
	if s.Restart != "" && s.Restart != "no" && s.NoStartLimit {
		checks = append(checks, warn(UnitFile, name, "systemctl edit "+label, "%s has Restart=%s and no start limit: what crashes at its start is started again for ever", label, s.Restart))
	}
	if len(checks) == 0 {
		checks = append(checks, ok(UnitFile, name, "%s", unitNote(s, label)))
	}
	return found(checks...)
}

func unitNote(s service.Status, label string) string {
	switch s.Restart {
	case "":
		return label + " starts the installed binary"
	case "no":
		return label + " starts the installed binary; without Restart= it stays down after a crash"
	}
	return label + " starts the installed binary; Restart=" + s.Restart + ", with a start limit, which a start of this program clears first"
}

// checkExecStart compares what the unit starts with what is replaced; links and
// wrappers such as env are followed as far as can be known.
func (c *checker) checkExecStart(st step) *component.Check {
	in := st.in
	if len(in.Status.ExecStart) == 0 || in.RunsPath || in.Path == "" {
		return nil
	}
	starts := in.Status.ExecStart[0]
	show := "observability-upgrade components show " + st.Component
	if in.Service.Unit != "" {
		show = "systemctl cat " + in.Service.Unit
	}
	real, err := starts, error(nil)
	if !strings.Contains(starts, "/") { // of the process manager, which looks for it so
		real, err = exec.LookPath(starts)
	}
	if err == nil {
		real, err = filepath.EvalSymlinks(real)
	}
	if err != nil {
		bad := fail(UnitFile, st.Component, show, "expected %s to start %s, found that it starts %s: %v", in.Service.Label(), in.Path, starts, err)
		return &bad
	}
	if real == in.Path || strings.HasPrefix(real, in.Path+"/") { // a tree holds its executable
		return nil
	}
	for _, word := range in.Status.ExecStart[1:] {
		if real, err := filepath.EvalSymlinks(word); err == nil && filepath.IsAbs(word) && (real == in.Path || strings.HasPrefix(real, in.Path+"/")) {
			return nil // a wrapper that names it
		}
	}
	bad := fail(UnitFile, st.Component, show,
		"expected %s to start %s or a link to it, found %s: the upgrade would replace a file that is not run", in.Service.Label(), in.Path, starts)
	if isWrapper(real) {
		bad.Status = component.CheckWarn
		bad.Detail = in.Service.Label() + " starts " + starts + ": whether that runs " + in.Path + " cannot be seen"
	}
	return &bad
}

// isWrapper tells a program that may start the component in its turn: not one
// that is called as the component's own binaries are.
func isWrapper(path string) bool {
	switch filepath.Base(path) {
	case "env", "sh", "bash", "dash", "busybox", "nice", "ionice", "setpriv", "chroot", "taskset", "numactl", "su", "sudo", "runuser":
		return true
	}
	return strings.HasSuffix(path, ".sh")
}
