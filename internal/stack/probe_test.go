package stack

import (
	"context"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/filecache"
)

// What a program told of its version is remembered until its file changes; a
// script, which may tell that of another file, is asked each time.
func TestVersionIsRemembered(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("there is no bash, whose version is asked for")
	}
	later := func() time.Time { return time.Now().Add(time.Hour) }
	s := &Stack{versions: filecache.Open[string]("", "", later, slog.New(slog.DiscardHandler))}
	dir := t.TempDir()
	program, script := filepath.Join(dir, "bash"), filepath.Join(dir, "script")
	in, err := os.Open(bash)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(program, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho version 1.2.3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	over, cancel := context.WithCancel(t.Context()) // with which nothing can be executed
	cancel()
	probe := component.VersionProbe{Args: []string{"--version"}, Regexp: `version (\d+\.\d+\.\d+)`}
	for path, remembered := range map[string]bool{program: true, script: false} {
		first, err := s.probe(t.Context(), path, probe)
		if err != nil || first.IsZero() {
			t.Fatalf("%s: %v, %v", path, first, err)
		}
		if again, err := s.probe(over, path, probe); (err == nil) != remembered || remembered && !again.Equal(first) {
			t.Errorf("%s: again %v, %v; want it remembered: %v", path, again, err, remembered)
		}
	}
	if err := os.Chmod(program, 0o700); err != nil {
		t.Fatal(err)
	}
	if v, err := s.probe(over, program, probe); err == nil {
		t.Errorf("remembered %v of a file that changed", v)
	}
}
