//go:build faultinject

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

// faultGuard makes the process kill itself or hang at a point of its journal:
// OBSUP_FAULT=kill-before:N or kill-after:N or hang-after:N, where N counts
// journal records from 1. "after" is at the first effect that follows the
// record. It is only in binaries built with -tags faultinject, for the
// end-to-end tests.
func faultGuard() hostfs.Guard {
	action, count, ok := strings.Cut(os.Getenv("OBSUP_FAULT"), ":")
	if !ok {
		return nil
	}
	want, err := strconv.Atoi(count)
	if err != nil {
		fmt.Fprintln(os.Stderr, "OBSUP_FAULT:", err)
		os.Exit(2)
	}
	var mu sync.Mutex
	seen := 0
	return func(op, target string) error {
		mu.Lock()
		defer mu.Unlock()
		if action != "kill-before" && seen == want {
			hit(action)
		}
		if op == "append" && filepath.Base(filepath.Dir(target)) == "journal" {
			seen++
			if action == "kill-before" && seen == want {
				hit(action)
			}
		}
		return nil
	}
}

func hit(action string) {
	if strings.HasPrefix(action, "kill") {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	select {} // nothing more is done; a kill, or the power cut, ends it
}
