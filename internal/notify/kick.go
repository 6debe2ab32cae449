package notify

import (
	"fmt"
	"os/exec"
	"syscall"

	"github.com/observability-upgrade/observability-upgrade/internal/layout"
)

// Kick starts `PROGRAM --root ROOT notify deliver` and does not wait for it, unless
// nothing is queued. The process has a session of its own, no input or output, and
// the working directory /, so that it outlives the caller and its terminal and
// keeps no file system busy. It has the caller's environment, since ${VARIABLE} in
// the configuration is read from it.
//
// Where the caller runs in a systemd unit that ends with it, the process ends too;
// such units run `notify deliver` once more with ExecStopPost=.
func Kick(root layout.Root, program string) error {
	b := &box{dir: root.NotifyDir()}
	ids, err := b.list(queueDir)
	if err != nil {
		return fmt.Errorf("start the delivery of notifications: %w", err)
	}
	if len(ids) == 0 {
		return nil
	}
	cmd := &exec.Cmd{
		Path: program, Dir: "/", SysProcAttr: &syscall.SysProcAttr{Setsid: true},
		Args: []string{"observability-upgrade", "--root", string(root), "notify", "deliver", "--quiet"}, // by another name it is `rollback`
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the delivery of notifications: %w; they wait, and `observability-upgrade notify deliver` sends them", err)
	}
	return cmd.Process.Release()
}
