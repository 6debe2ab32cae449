package service

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func TestParseGroups(t *testing.T) {
	got := parseGroups("4:memory:/pod/a\n1:cpu,cpuacct:/\n0::/system.slice/a.service\nnonsense\n3:x:relative\n")
	want := []Group{
		{"/sys/fs/cgroup/memory", "/pod/a"},
		{"/sys/fs/cgroup/cpu,cpuacct", "/"},
		{"/sys/fs/cgroup", "/system.slice/a.service"},
		{"/sys/fs/cgroup/unified", "/system.slice/a.service"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// tree writes files, by their paths, below a directory of its own.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestLimit(t *testing.T) {
	for name, tt := range map[string]struct {
		files      map[string]string
		memory     uint64
		processors float64
		set        uint64
	}{
		"none": {memory: 1000, processors: 4},
		"its own": {
			files:  map[string]string{"a/b/memory.max": "300\n", "a/b/cpu.max": "50000 100000\n", "a/b/memory.current": "250\n", "a/b/memory.stat": "anon 100\ninactive_file 120\n"},
			memory: 300, processors: 0.5, set: 130,
		},
		"that of a group above": {
			files:  map[string]string{"a/b/memory.max": "max\n", "a/memory.max": "400\n", "memory.max": "700\n", "a/b/cpu.max": "max 100000\n", "a/cpu.max": "200000 100000\n", "a/b/memory.current": "10"},
			memory: 400, processors: 2, set: 10,
		},
		"a container's": {files: map[string]string{"memory.max": "600", "cpu.max": "150000 100000"}, memory: 600, processors: 1.5},
		"version 1": {
			files: map[string]string{
				"a/b/memory.limit_in_bytes": "500", "memory.limit_in_bytes": "9223372036854771712", "a/b/cpu.cfs_quota_us": "25000", "a/b/cpu.cfs_period_us": "100000",
				"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000", "a/b/memory.usage_in_bytes": "90", "a/b/memory.stat": "inactive_file 1\ntotal_inactive_file 100\n",
			}, memory: 500, processors: 0.25,
		},
		"nonsense":               {files: map[string]string{"a/b/memory.max": "x", "a/b/cpu.max": "1 0", "a/b/memory.current": "-"}, memory: 1000, processors: 4},
		"more than the host has": {files: map[string]string{"a/b/memory.max": "5000", "a/b/cpu.max": "900000 100000"}, memory: 1000, processors: 4},
	} {
		groups := []Group{{tree(t, tt.files), "/a/b"}}
		u := Usage{MemoryLimit: 1000, Processors: 4}
		u.Limit(groups)
		if u.MemoryLimit != tt.memory || u.Processors != tt.processors || WorkingSet(groups) != tt.set {
			t.Errorf("%s: %+v, working set %d, want %d, %g, %d", name, u, WorkingSet(groups), tt.memory, tt.processors, tt.set)
		}
	}
}

func FuzzGroups(f *testing.F) {
	f.Add("0::/a\n4:memory:/b")
	f.Fuzz(func(t *testing.T, text string) {
		for _, g := range parseGroups(text) {
			if g.Path == "" || g.Path[0] != '/' {
				t.Errorf("%+v", g)
			}
		}
	})
}
