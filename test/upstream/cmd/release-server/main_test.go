package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRunServesAndStops(t *testing.T) {
	dir := t.TempDir()
	rel := filepath.Join(dir, "github", "o", "r", "v1.0.0")
	if err := os.MkdirAll(rel, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(rel, "x.tar.gz"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	portFile := filepath.Join(t.TempDir(), "port")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, in := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- run(ctx, []string{"--dir", dir, "--port-file", portFile, "--fault", "/repos/o/gone=status:500"}, in, io.Discard)
		_ = in.Close()
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("no address: %v; run: %v", err, <-done)
	}
	base := strings.TrimSpace(line)
	if port, err := os.ReadFile(portFile); err != nil || "http://"+strings.TrimSpace(string(port)) != base {
		t.Errorf("port file %q %v, address %q", port, err, base)
	}
	for path, want := range map[string]int{"/repos/o/r/releases": 200, "/repos/o/gone/releases": 500} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, resp.StatusCode, want)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("run: %v", err)
	}
}

func TestRunRefusesBadUsage(t *testing.T) {
	for _, args := range [][]string{{}, {"--dir", "/nonexistent"}, {"--dir", t.TempDir(), "extra"}, {"--dir", t.TempDir(), "--fault", "x"}} {
		if err := run(t.Context(), args, io.Discard, io.Discard); !errors.Is(err, errUsage) {
			t.Errorf("%q: %v, want a usage error", args, err)
		}
	}
}
