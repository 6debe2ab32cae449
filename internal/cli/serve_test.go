package cli

import (
	"bufio"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/stack"
)

// What a program's file is mapped to and was not changed, and nothing else.
func TestUnchanged(t *testing.T) {
	const smaps = `00400000-0140d000 r-xp 00000000 fe:00 1    /usr/local/bin/observability-upgrade
Rss:               12848 kB
Anonymous:             0 kB
0140d000-02579000 r--p 0100d000 fe:00 1    /usr/local/bin/observability-upgrade
Rss:               10668 kB
Anonymous:             0 kB
02579000-0257a000 r--p 0100d000 fe:00 1    /usr/local/bin/observability-upgrade
Anonymous:             4 kB
0257a000-02600000 rw-p 02179000 fe:00 1    /usr/local/bin/observability-upgrade
Anonymous:             0 kB
c000000000-c000800000 rw-p 00000000 00:00 0
Anonymous:          8192 kB
7f0000000000-7f0000001000 r-xp 00000000 fe:00 2    /lib/x86_64-linux-gnu/libc.so.6
Anonymous:             0 kB
7f0000002000-7f0000003000 r-xp 00000000 fe:00 3    /elsewhere/usr/local/bin/observability-upgrade-other
7f0000004000-7f0000005000 ---p 00000000 fe:00 1    /usr/local/bin/observability-upgrade
7fff00000000-7fff00001000 r-xp 00000000 00:00 0    [vdso]
nonsense
`
	got := unchanged(bufio.NewScanner(strings.NewReader(smaps)), "/usr/local/bin/observability-upgrade")
	want := []mapping{{0x400000, 0x140d000}, {0x140d000, 0x2579000}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(mapping{})); diff != "" {
		t.Error(diff)
	}
	if got := unchanged(bufio.NewScanner(strings.NewReader("")), "x"); got != nil {
		t.Errorf("%v", got)
	}
	giveBackMemory(slog.New(slog.DiscardHandler)) // and this program goes on
}

func TestFrugal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var given atomic.Int32
		f := newFrugal(http.NotFoundHandler(), func() { given.Add(1) })
		ask := func() { f.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil)) }
		for range 5 {
			time.Sleep(quietAfter - time.Second)
			ask()
		}
		synctest.Wait()
		if given.Load() != 0 {
			t.Errorf("given back %d times while somebody asks", given.Load())
		}
		time.Sleep(10 * quietAfter)
		synctest.Wait()
		if given.Load() != 1 {
			t.Errorf("given back %d times after all asked", given.Load())
		}
		ask()
		f.stop()
		time.Sleep(10 * quietAfter)
		synctest.Wait()
		if given.Load() != 1 {
			t.Errorf("given back %d times, once after the end", given.Load())
		}
	})
}

// The configuration is read anew when it changes; a mistake leaves the one before,
// and a file that only was read is no change.
func TestServeSource(t *testing.T) {
	root := layout.Root(t.TempDir())
	if err := os.MkdirAll(root.ComponentsDir(), 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(root.Policy(), "retention: {backups: 7}\n")
	s, err := newServeSource(t.Context(), stack.Options{Root: root, Env: func(string) string { return "" }, Logger: slog.New(slog.DiscardHandler), Needs: stack.Show})
	if err != nil {
		t.Fatal(err)
	}
	read := func() (*reading, []string) {
		t.Helper()
		s.mu.Lock()
		s.looked = time.Time{}
		s.mu.Unlock()
		o, err := s.Overview(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s.current.Load(), o.Problems
	}
	first, problems := read()
	if first.stack.Policy.Retention.Backups != 7 || len(problems) != 0 {
		t.Errorf("%+v %v", first.stack.Policy, problems)
	}
	if _, err := os.ReadFile(root.Policy()); err != nil {
		t.Fatal(err)
	}
	if same, _ := read(); same != first {
		t.Error("it was read anew though nothing changed")
	}
	write(root.Policy(), "retention: {backups: 8}\n")
	second, problems := read()
	if second.stack.Policy.Retention.Backups != 8 || len(problems) != 0 {
		t.Errorf("%+v %v", second.stack.Policy, problems)
	}
	definition := filepath.Join(root.ComponentsDir(), "mine.yaml")
	write(definition, "no_such_key: 1\n")
	third, problems := read()
	if third.stack != second.stack || len(problems) != 1 || !strings.Contains(problems[0], "mine.yaml") || !strings.Contains(problems[0], "what was read before holds") {
		t.Errorf("%v", problems)
	}
	if again, problems := read(); again != third || len(problems) != 1 {
		t.Errorf("the problem is told once only: %v", problems)
	}
	if err := os.Remove(definition); err != nil {
		t.Fatal(err)
	}
	if fourth, problems := read(); fourth.stack == second.stack || len(problems) != 0 {
		t.Errorf("%v", problems)
	}
	if err := os.Remove(root.Policy()); err != nil {
		t.Fatal(err)
	}
	if fifth, _ := read(); fifth.stack.Policy.Retention.Backups != 5 {
		t.Errorf("%+v", fifth.stack.Policy.Retention)
	}
}
