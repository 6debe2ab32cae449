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
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

// faults makes the process kill itself, hang, or stop until it is sent SIGCONT, at
// a point of its journal: OBSUP_FAULT=kill-before:N, kill-after:N, hang-after:N or
// stop-after:N, where N counts journal records from 1. "after" is at the first
// effect that follows the record. OBSUP_CLOCK=OFFSET:N has the clock jump by
// OFFSET, such as -24h, after record N; with 0 it is off from the start. Both are
// only in binaries built with -tags faultinject, for the end-to-end tests.
func faults() (hostfs.Guard, func() time.Time) {
	f := &fault{}
	ends := f.read("OBSUP_FAULT", func(action string) error { f.action = action; return nil }, &f.want)
	jumps := f.read("OBSUP_CLOCK", func(offset string) (err error) { f.offset, err = time.ParseDuration(offset); return err }, &f.jump)
	if !ends && !jumps {
		return nil, nil
	}
	return f.guard, f.now
}

type fault struct {
	action     string
	want, jump int // journal records
	offset     time.Duration

	mu   sync.Mutex
	seen int
}

// read takes a variable of the form WHAT:N apart; false when it is not set.
func (f *fault) read(name string, what func(string) error, n *int) bool {
	text, count, ok := strings.Cut(os.Getenv(name), ":")
	if !ok {
		return false
	}
	err := what(text)
	if err == nil {
		*n, err = strconv.Atoi(count)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, name+":", err)
		os.Exit(2)
	}
	return true
}

func (f *fault) now() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.seen >= f.jump {
		return time.Now().Add(f.offset)
	}
	return time.Now()
}

func (f *fault) guard(op, target string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.action != "kill-before" && f.want > 0 && f.seen == f.want {
		f.want = 0 // once
		hit(f.action)
	}
	if op == "append" && filepath.Base(filepath.Dir(target)) == "journal" {
		f.seen++
		if f.action == "kill-before" && f.seen == f.want {
			hit(f.action)
		}
	}
	return nil
}

func hit(action string) {
	switch {
	case strings.HasPrefix(action, "kill"):
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case strings.HasPrefix(action, "stop"):
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		return
	}
	select {} // nothing more is done; a kill, or the power cut, ends it
}
