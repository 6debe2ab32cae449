package runtest

import (
	"path/filepath"
	"sync"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

// CrashAt fails the N-th effect (from 1) and everything after it, as if the process
// had been killed there; with 0 it only counts.
type CrashAt struct {
	N     int
	Count int    // effects that were asked for
	Op    string // the one at which it crashed
	Do    func() // called as it crashes; may be nil

	mu sync.Mutex
}

// Guard is the hostfs.Guard.
func (c *CrashAt) Guard(op, target string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Count++
	if c.N > 0 && c.Count >= c.N {
		if c.Op == "" {
			c.Op = op + " " + filepath.Base(target)
			if c.Do != nil {
				c.Do()
			}
		}
		return hostfs.ErrCrashed
	}
	return nil
}

// Crashed reports whether the run came as far.
func (c *CrashAt) Crashed() bool { return c.Op != "" }
