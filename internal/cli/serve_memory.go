package cli

import (
	"bufio"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// quietAfter is how long nobody must have asked for anything before what the
// answers took is given back: less than scrapes are apart, since to give back and
// to get again takes a few milliseconds.
const quietAfter = 10 * time.Second

// frugal gives back memory when nobody has asked for a while.
type frugal struct {
	next  http.Handler
	quiet *time.Timer

	mu      sync.Mutex // held while memory is given back
	stopped bool
}

// newFrugal wraps a handler; stop ends the waiting.
func newFrugal(next http.Handler, giveBack func()) *frugal {
	f := &frugal{next: next}
	f.quiet = time.AfterFunc(quietAfter, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if !f.stopped {
			giveBack()
		}
	})
	return f
}

// ServeHTTP answers one request.
func (f *frugal) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.quiet.Reset(quietAfter)
	f.next.ServeHTTP(w, r)
}

func (f *frugal) stop() {
	f.quiet.Stop()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stopped = true
}

// giveBackMemory lets go of what only the start needed, since a service that mostly
// waits should not hold it: the heap that reading the configuration took, and the
// pages of this program that the start of all its packages touched, most of it.
// What is needed again comes back from the page cache. It is no loss where it
// does not work.
func giveBackMemory(logger *slog.Logger) {
	debug.FreeOSMemory()
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		logger.Debug("memory is not given back", "error", err)
		return
	}
	defer f.Close()
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		logger.Debug("memory is not given back", "error", err)
		return
	}
	var errs []error
	for _, m := range unchanged(bufio.NewScanner(f), exe) {
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, m.from, m.to-m.from, unix.MADV_DONTNEED); errno != 0 {
			errs = append(errs, errno)
		}
	}
	if err := errors.Join(errs...); err != nil {
		logger.Debug("memory is not given back", "error", err)
	}
}

// mapping is a range of addresses.
type mapping struct{ from, to uintptr }

// unchanged finds in proc_pid_smaps(5) where a file is mapped that is not written
// to and was not: such memory holds what the file holds. A read-only range that was
// changed, as a dynamic linker does, has pages of its own ("Anonymous").
func unchanged(smaps *bufio.Scanner, file string) []mapping {
	var out []mapping
	ours := false
	for smaps.Scan() {
		line := smaps.Text()
		fields := strings.Fields(line)
		var m mapping
		if n, err := fmt.Sscanf(line, "%x-%x ", &m.from, &m.to); err == nil && n == 2 && len(fields) > 1 {
			ours = strings.HasSuffix(line, " "+file) && strings.HasPrefix(fields[1], "r") && !strings.Contains(fields[1], "w")
			if ours {
				out = append(out, m)
			}
			continue
		}
		if ours && len(fields) > 1 && fields[0] == "Anonymous:" && fields[1] != "0" {
			out, ours = out[:len(out)-1], false
		}
	}
	if smaps.Err() != nil {
		return nil
	}
	return out
}
