package cli

import (
	"os"
	"runtime"
	"runtime/debug"

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

// firstGC is how much of the runtime's usual 4 MiB of heap, in percent, there is
// before garbage is collected for the first time.
const firstGC = 400

// collectLate has the first collection of garbage wait for a heap of 16 MiB instead
// of 4: most commands end before they have as much, and took a fifth of their
// processor time to collect what was about to go. From the first on it is done as
// often as ever, so that what holds much does not hold more. Who sets GOGC has it so.
func collectLate() {
	if os.Getenv("GOGC") != "" {
		return
	}
	debug.SetGCPercent(firstGC)
	runtime.AddCleanup(new(*int), func(percent int) { debug.SetGCPercent(percent) }, 100)
}
