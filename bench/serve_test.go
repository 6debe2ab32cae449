package bench

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// BenchmarkServe is the resident memory of the status page's service: when nobody
// has looked yet, and a while after 50 looks at its pages.
func BenchmarkServe(b *testing.B) {
	path, err := program()
	if err != nil {
		b.Fatal(err)
	}
	r := newRoot(b, "service_manager: process\n")
	install(b, r, 3)
	upgrade(b, r, nil, "adopt", "--yes", "--quiet")
	for b.Loop() {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		addr := l.Addr().String()
		if err := l.Close(); err != nil {
			b.Fatal(err)
		}
		cmd := exec.CommandContext(b.Context(), path, "--root="+string(r), "serve", "--listen="+addr)
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		get := func(page string) bool {
			resp, err := http.Get("http://" + addr + page) //nolint:noctx // ends with the service
			if err != nil {
				return false
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			return resp.StatusCode == http.StatusOK
		}
		if err := until(b.Context(), func() bool { return get("/healthz") }); err != nil {
			b.Fatal(err)
		}
		time.Sleep(3 * time.Second) // what it needed to start is given back
		b.ReportMetric(mib(resident(b, cmd.Process.Pid)), "waiting-MiB")
		for range 50 {
			for _, page := range []string{"/", "/metrics", "/history", "/backups"} {
				if !get(page) {
					b.Fatalf("%s cannot be had", page)
				}
			}
		}
		time.Sleep(12 * time.Second)
		b.ReportMetric(mib(resident(b, cmd.Process.Pid)), "after-50-looks-MiB")
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			b.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			b.Fatal(err)
		}
	}
}

// resident is a process' resident memory in bytes (VmRSS, proc(5)).
func resident(b *testing.B, pid int) int64 {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	_, after, _ := strings.Cut(string(status), "VmRSS:")
	kib, err := strconv.ParseInt(strings.Fields(after + " -")[0], 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return kib << 10
}
