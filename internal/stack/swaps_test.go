package stack

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/observability-upgrade/observability-upgrade/internal/artifact"
	"github.com/observability-upgrade/observability-upgrade/internal/backup"
	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/inventory"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
)

// Two programs that are one file by their links cannot be swapped one by one.
func TestProgramsThatAreOneFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "prometheus")
	if err := os.WriteFile(path, []byte("old"), 0o755); err != nil {
		t.Fatal(err)
	}
	p := &prepared{
		in:     &inventory.Installed{Binaries: map[string]string{"prometheus": path, "promtool": path}},
		staged: &artifact.Staged{Files: []artifact.File{{Name: "prometheus", Path: path}, {Name: "promtool", Path: path}}},
	}
	_, err := new(Stack).swaps(p, map[string]string{})
	if err == nil || !strings.Contains(err.Error(), "prometheus and promtool are links to one file, "+path) {
		t.Errorf("%v", err)
	}
	p.in.Binaries["promtool"] = filepath.Join(dir, "promtool")
	if swaps, err := new(Stack).swaps(p, map[string]string{}); err != nil || len(swaps) != 2 {
		t.Errorf("%v, %v", swaps, err)
	}
}

// A way back exchanges each file once, whatever the backup point names twice: an
// exchange that is made again takes it away again.
func TestFilesOfAWayBackOnce(t *testing.T) {
	config := func(path string) run.Swap { return run.Swap{Kind: backup.Config, Path: path} }
	unit := func(path string) run.Swap { return run.Swap{Kind: backup.Unit, Path: path} }
	program := func(path string) run.Swap { return run.Swap{Kind: backup.Binary, Path: path} }
	tree := run.Swap{Kind: backup.Binary, Path: "/opt/tool", Tree: true}
	for name, tt := range map[string]struct{ swaps, before, want []run.Swap }{
		"each once":              {swaps: []run.Swap{program("/bin/a"), config("/etc/a")}, want: []run.Swap{program("/bin/a"), config("/etc/a")}},
		"twice":                  {swaps: []run.Swap{config("/etc/a"), config("/etc/a")}, want: []run.Swap{config("/etc/a")}},
		"a unit stays one":       {swaps: []run.Swap{config("/etc/a"), unit("/etc/a")}, want: []run.Swap{unit("/etc/a")}},
		"in a tree":              {swaps: []run.Swap{tree, config("/opt/tool/conf/a"), config("/opt/tool-a")}, want: []run.Swap{tree, config("/opt/tool-a")}},
		"of another":             {swaps: []run.Swap{config("/etc/a"), config("/etc/b")}, before: []run.Swap{config("/etc/a")}, want: []run.Swap{config("/etc/b")}},
		"a program is refused":   {swaps: []run.Swap{program("/bin/a")}, before: []run.Swap{program("/bin/a")}, want: []run.Swap{program("/bin/a")}},
		"in the tree of another": {swaps: []run.Swap{config("/opt/tool/a")}, before: []run.Swap{tree}},
	} {
		if got := once(tt.swaps, []run.Change{{Component: "other", Swaps: tt.before}}); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}

// Components that have a program in common are told of each other.
func TestFilesThatComponentsShare(t *testing.T) {
	in := func(name string, binaries map[string]string) *inventory.Installed {
		return &inventory.Installed{Component: &component.Component{Name: name}, Binaries: binaries}
	}
	got := sharedFiles([]*inventory.Installed{
		in("loki", map[string]string{"loki": "/bin/loki"}),
		in("query", map[string]string{"thanos": "/bin/thanos", "tool": "/bin/query-tool"}),
		in("store", map[string]string{"thanos": "/bin/thanos", "tool": "/bin/store-tool"}),
		in("links", map[string]string{"a": "/bin/one", "b": "/bin/one"}), // for swaps to refuse
	})
	if len(got) != 2 || !strings.HasPrefix(got["query"], "/bin/thanos is a program of store too, ") || !strings.HasPrefix(got["store"], "/bin/thanos is a program of query too, ") {
		t.Errorf("%q", got)
	}
}
