package balancer

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	// takenLimit is how long nginx may need to start new workers.
	takenLimit = 10 * time.Second
	// inHand is for requests that an old worker has read and not yet passed on.
	inHand = 250 * time.Millisecond
	// unseen is given to an nginx whose workers cannot be seen.
	unseen = 2 * time.Second
)

// taken waits until nginx works by the configuration that it was told to read: the
// reload command only sends a signal. The master then starts new workers, and has
// the old ones finish what they have begun; these say so in their title.
func (n *nginx) taken(ctx context.Context, before map[int]int) error {
	if len(before) == 0 {
		return pause(ctx, unseen)
	}
	deadline := time.Now().Add(takenLimit)
	for !replaced(before, nginxWorkers()) {
		if time.Now().After(deadline) {
			return fmt.Errorf("nginx was told to read its configuration again and started no new workers within %s: its error log says why", takenLimit)
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	return pause(ctx, inHand)
}

// replaced reports whether a master has new workers, and none of its old ones
// still takes requests. Both are parents by process.
func replaced(before, now map[int]int) bool {
	masters := map[int]bool{}
	for pid, parent := range now {
		if _, old := before[pid]; !old {
			masters[parent] = true
		}
	}
	for pid, parent := range now {
		if _, old := before[pid]; old && masters[parent] {
			return false
		}
	}
	return len(masters) > 0
}

// nginxWorkers are the processes of this host that take requests for an nginx, with
// their parents. Workers that are shutting down have a title of their own.
func nginxWorkers() map[int]int {
	found := map[int]int{}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return found
	}
	for _, dir := range dirs {
		title, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || string(bytes.TrimRight(title, "\x00 ")) != "nginx: worker process" {
			continue
		}
		stat, err := os.ReadFile(filepath.Join(dir, "stat"))
		if err != nil {
			continue
		}
		// pid (comm) state ppid …
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || len(fields) < 2 {
			continue
		}
		if parent, err := strconv.Atoi(fields[1]); err == nil {
			found[pid] = parent
		}
	}
	return found
}
