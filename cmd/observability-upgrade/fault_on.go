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

// faultGuard makes the process kill or stop itself at a point of its journal:
// OBSUP_FAULT=kill-before:N or kill-after:N or stop-after:N, where N counts
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
	sig := syscall.SIGKILL
	if strings.HasPrefix(action, "stop") {
		sig = syscall.SIGSTOP
	}
	_ = syscall.Kill(os.Getpid(), sig)
	select {} // the signal ends or stops the process before it does anything more
}
