package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// helperName is what this program is called when it is to be the helper. Who calls
// it so gets a process with fewer rights, which is no harm.
const helperName = "observability-upgrade-sandbox"

// Files of the helper.
const (
	orderFD   = 3
	reportFD  = 4
	programFD = 5
)

const nobody = 65534

// order is what the helper is told.
type order struct {
	Spec
	Real       string // the program's path without links, under which the view has it
	Base       string // an empty directory to build the view on
	Home       string // for temporary files where there is no view
	Namespaces bool   // it is in namespaces of its own
	Files      bool   // make the view
	Root       bool   // it is root's
}

// init becomes the helper in every program that can call for one, tests too: there
// is no place in front of main where it could be forgotten.
func init() {
	if len(os.Args) == 1 && os.Args[0] == helperName {
		runtime.LockOSThread() // what follows is a property of the thread that becomes the program
		help(os.NewFile(orderFD, "order"), os.NewFile(reportFD, "report"))
		os.Exit(126)
	}
}

// help closes the doors and becomes the program; it returns when it could not.
func help(in, out *os.File) {
	unix.CloseOnExec(orderFD)
	unix.CloseOnExec(reportFD)
	say := json.NewEncoder(out)
	fail := func(r report) { _ = say.Encode(r) } // the parent is gone, or will see the end of it
	var o order
	if err := json.NewDecoder(in).Decode(&o); err != nil {
		fail(report{Failed: fmt.Sprintf("its order: %v", err)})
		return
	}
	var missing []Gap
	lack := func(l Layer, err error) {
		if err != nil {
			missing = append(missing, Gap{l, err.Error()})
		}
	}
	lack(Limits, limit(&o)) // the process list is the host's as yet
	path, home := fmt.Sprintf("/proc/self/fd/%d", programFD), o.Home
	if o.Files {
		gaps, err := makeView(&o)
		if err != nil {
			fail(report{Gap: &Gap{Files, err.Error()}})
			return
		}
		missing = append(missing, gaps...)
		path, home = o.Real, "/tmp"
		unix.CloseOnExec(programFD)
	}
	lack(Landlock, restrict(&o, home))
	if err := drop(&o); err != nil {
		fail(report{Failed: err.Error()})
		return
	}
	lack(Filter, filter(&o))
	if err := say.Encode(report{Missing: missing, Ready: true}); err != nil {
		return // nobody waits for this any more
	}
	env := slices.Concat(o.Env, []string{"HOME=" + home, "TMPDIR=" + home})
	err := syscall.Exec(path, append([]string{o.Path}, o.Args...), env) // to run it is what all this is for
	var errno syscall.Errno
	errors.As(err, &errno)
	fail(report{Errno: int(errno)})
}
