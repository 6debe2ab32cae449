package service

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

// Group is a control group: where its hierarchy is mounted, and its path there.
type Group struct{ Mount, Path string }

// groupMount is where control groups are mounted, or where a controller's
// hierarchy of version 1 has its directory; see cgroups(7).
const groupMount = "/sys/fs/cgroup"

// GroupsOf lists the control groups of a process, one per hierarchy; none when it
// is gone.
func GroupsOf(pid int) []Group {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return nil
	}
	return parseGroups(string(data))
}

// parseGroups reads /proc/PID/cgroup: lines "0::/path" of version 2 and
// "4:cpu,cpuacct:/path" of version 1.
func parseGroups(text string) []Group {
	var out []Group
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch {
		case len(f) != 3 || !strings.HasPrefix(f[2], "/"):
		case f[1] == "":
			out = append(out, Group{groupMount, f[2]}, Group{groupMount + "/unified", f[2]})
		default:
			out = append(out, Group{filepath.Join(groupMount, f[1]), f[2]})
		}
	}
	return out
}

// NamedGroups are the groups of one path in every hierarchy that limits memory or
// processors.
func NamedGroups(name string) []Group {
	var out []Group
	for _, sub := range []string{"", "unified", "memory", "cpu", "cpu,cpuacct"} {
		out = append(out, Group{filepath.Join(groupMount, sub), name})
	}
	return out
}

// Limit lowers what a service may use to what its control groups, and those above
// them, allow.
func (u *Usage) Limit(groups []Group) {
	for _, g := range groups {
		for p := path.Clean("/" + g.Path); ; p = path.Dir(p) {
			dir := filepath.Join(g.Mount, p)
			for _, name := range []string{"memory.max", "memory.limit_in_bytes"} {
				if n, err := strconv.ParseUint(readText(dir, name), 10, 64); err == nil && n > 0 && (n < u.MemoryLimit || u.MemoryLimit == 0) {
					u.MemoryLimit = n
				}
			}
			if n := quota(dir); n > 0 && (n < u.Processors || u.Processors == 0) {
				u.Processors = n
			}
			if p == "/" {
				break
			}
		}
	}
}

// quota is how many processors' time a control group gets; 0 for no limit.
func quota(dir string) float64 {
	f := strings.Fields(readText(dir, "cpu.max")) // "50000 100000", or "max 100000"
	if len(f) == 0 {
		f = []string{readText(dir, "cpu.cfs_quota_us"), readText(dir, "cpu.cfs_period_us")} // -1 for none
	}
	if len(f) != 2 {
		return 0
	}
	most, errMost := strconv.ParseFloat(f[0], 64)
	period, errPeriod := strconv.ParseFloat(f[1], 64)
	if errMost != nil || errPeriod != nil || most <= 0 || period <= 0 {
		return 0
	}
	return most / period
}

// WorkingSet is the memory of a control group without the files in its cache that
// the kernel would drop first; 0 when it cannot be read.
func WorkingSet(groups []Group) uint64 {
	for _, g := range groups {
		dir := filepath.Join(g.Mount, path.Clean("/"+g.Path))
		for _, names := range [][2]string{{"memory.current", "inactive_file"}, {"memory.usage_in_bytes", "total_inactive_file"}} {
			n, err := strconv.ParseUint(readText(dir, names[0]), 10, 64)
			if err != nil {
				continue
			}
			for line := range strings.Lines(readText(dir, "memory.stat")) {
				f := strings.Fields(line)
				if len(f) != 2 || f[0] != names[1] {
					continue
				}
				if cached, err := strconv.ParseUint(f[1], 10, 64); err == nil {
					n -= min(cached, n)
				}
			}
			return n
		}
	}
	return 0
}

func readText(dir, name string) string {
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// HostLimits is a Usage that may use all that the host has.
func HostLimits() Usage {
	return Usage{MemoryLimit: HostMemory(), Processors: float64(runtime.NumCPU())}
}
