package cli

import (
	"os"

	"golang.org/x/sys/unix"
)

// keepMemory keeps what root's process holds in memory, secrets among it, out of
// core dumps and away from debuggers of others (prctl(2), PR_SET_DUMPABLE). It ends
// with the process: programs that it starts have it no more. A plain user's process
// holds nothing that the user could not read anyway, and would lose its own /proc.
func keepMemory() {
	if os.Geteuid() == 0 {
		_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) // an old kernel without it is no reason to do nothing
	}
}
