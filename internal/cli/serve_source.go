package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/overview"
	"github.com/observability-upgrade/observability-upgrade/internal/stack"
	"github.com/observability-upgrade/observability-upgrade/internal/web"
)

// lookAgainAfter is how often the files of the configuration are looked at, at
// most.
const lookAgainAfter = time.Second

// serveSource is the stack, opened anew when its configuration changes. A
// configuration that cannot be read leaves the one before in use, with a problem
// told.
type serveSource struct {
	options stack.Options
	current atomic.Pointer[reading]

	mu     sync.Mutex // one looks at the files at a time
	looked time.Time
}

// reading is what was made of the files at one moment. It is not changed.
type reading struct {
	stack   *stack.Stack
	files   string // how the files looked
	problem string // why the stack is an older one; "" when it is not
}

var _ overview.Source = (*serveSource)(nil)

func newServeSource(ctx context.Context, o stack.Options) (*serveSource, error) {
	s := &serveSource{options: o, looked: time.Now()}
	files := s.fingerprint()
	opened, err := stack.Open(ctx, o)
	if err != nil {
		return nil, err
	}
	s.current.Store(&reading{stack: opened, files: files})
	return s, nil
}

// Overview is the stack's, with what is wrong with the configuration.
func (s *serveSource) Overview(ctx context.Context) (*overview.Overview, error) {
	r := s.read(ctx)
	o, err := r.stack.Overview(ctx)
	if err == nil && r.problem != "" {
		o.Problems = append(o.Problems, r.problem)
	}
	return o, err
}

func (s *serveSource) conditions(ctx context.Context, versions map[string]string) map[string]web.Condition {
	out := map[string]web.Condition{}
	states := map[stack.State]web.Health{stack.StateHealthy: web.Healthy, stack.StateUnhealthy: web.Unhealthy, stack.StateStopped: web.Stopped}
	for name, c := range s.read(ctx).stack.Conditions(ctx, versions) {
		out[name] = web.Condition{Health: states[c.State], Detail: c.Detail}
	}
	return out
}

// read returns the newest reading. Where the files changed, it makes one; who
// comes meanwhile gets the one before.
func (s *serveSource) read(ctx context.Context) *reading {
	was := s.current.Load()
	if !s.mu.TryLock() {
		return was
	}
	defer s.mu.Unlock()
	was = s.current.Load()
	if time.Since(s.looked) < lookAgainAfter {
		return was
	}
	s.looked = time.Now()
	files := s.fingerprint()
	if files == was.files {
		return was
	}
	next := &reading{stack: was.stack, files: files}
	opened, err := stack.Open(ctx, s.options)
	switch {
	case ctx.Err() != nil:
		return was // whoever asked is gone; the next one looks
	case err != nil:
		next.problem = fmt.Sprintf("the configuration changed and cannot be read; what was read before holds: %v", err)
		s.options.Logger.Error("the configuration cannot be read; what was read before holds", "error", err)
	default:
		next.stack = opened
		s.options.Logger.Info("the configuration was read again")
	}
	s.current.Store(next)
	return next
}

// fingerprint is how the files of the configuration look: another content has
// another time, size or place.
func (s *serveSource) fingerprint() string {
	var b strings.Builder
	add := func(path string) {
		st, err := os.Stat(path)
		if err != nil {
			fmt.Fprintf(&b, "%s absent\n", path)
			return
		}
		sys, ok := st.Sys().(*syscall.Stat_t)
		if !ok {
			sys = &syscall.Stat_t{}
		}
		fmt.Fprintf(&b, "%s %d %d %d %d\n", path, sys.Ino, st.Size(), st.ModTime().UnixNano(), sys.Ctim.Nano())
	}
	root := s.options.Root
	add(root.Policy())
	add(root.Matrix())
	add(root.ComponentsDir())
	list, err := filepath.Glob(filepath.Join(root.ComponentsDir(), "*.yaml"))
	if err == nil { // the pattern is right
		for _, path := range list {
			add(path)
		}
	}
	return b.String()
}
