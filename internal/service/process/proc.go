package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// The marks a process and all it starts carry in their environment.
const (
	nameVar  = "OBSERVABILITY_UPGRADE_SERVICE"
	tokenVar = "OBSERVABILITY_UPGRADE_SERVICE_TOKEN" //nolint:gosec // the name of a variable; what is in it is drawn anew for each process
)

// proc is what tells one process from another that later has its number. See
// proc_pid_stat(5).
type proc struct {
	pid     int
	state   byte
	parent  int
	group   int
	session int
	threads int    // that are not gone yet
	ticks   uint64 // start time, clock ticks since boot
	cpu     uint64 // processor time used, clock ticks
	pages   uint64 // resident memory
}

// dead tells a zombie: it holds its number and nothing else. One whose threads are
// not all gone has its files and ports yet: the state is that of its first thread.
func (p proc) dead() bool {
	return p.state == 'Z' && p.threads <= 1 || p.state == 'X' || p.state == 'x'
}

func readStat(pid int) (proc, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return proc{}, err
	}
	p, err := parseStat(data)
	if err != nil {
		return proc{}, fmt.Errorf("/proc/%d/stat: %w", pid, err)
	}
	p.pid = pid
	return p, nil
}

// parseStat reads the content of /proc/PID/stat. The command in it may hold
// spaces and parentheses, so fields are counted from the last ")".
func parseStat(data []byte) (proc, error) {
	i := bytes.LastIndexByte(data, ')')
	if i < 0 {
		return proc{}, errors.New("no command in parentheses")
	}
	f := strings.Fields(string(data[i+1:]))
	if len(f) < 20 {
		return proc{}, fmt.Errorf("%d fields after the command, expected at least 20", len(f))
	}
	if len(f[0]) != 1 || !unicode.IsLetter(rune(f[0][0])) {
		return proc{}, fmt.Errorf("state %q, expected one letter", f[0])
	}
	p := proc{state: f[0][0]}
	for j, dst := range map[int]*int{1: &p.parent, 2: &p.group, 3: &p.session, 17: &p.threads} {
		n, err := strconv.Atoi(f[j])
		if err != nil {
			return proc{}, fmt.Errorf("field %d: %w", j+3, err)
		}
		*dst = n
	}
	var err error
	if p.ticks, err = strconv.ParseUint(f[19], 10, 64); err != nil {
		return proc{}, fmt.Errorf("start time: %w", err)
	}
	for j, dst := range map[int]*uint64{11: new(uint64), 12: new(uint64)} {
		if *dst, err = strconv.ParseUint(f[j], 10, 64); err != nil {
			return proc{}, fmt.Errorf("field %d: %w", j+3, err)
		}
		p.cpu += *dst
	}
	if len(f) > 21 {
		if p.pages, err = strconv.ParseUint(f[21], 10, 64); err != nil {
			return proc{}, fmt.Errorf("resident memory: %w", err)
		}
	}
	return p, nil
}

// alive reports whether the very process runs; a zombie does not.
func alive(pid int, ticks uint64) bool {
	if pid <= 0 {
		return false
	}
	p, err := readStat(pid)
	return err == nil && p.ticks == ticks && !p.dead()
}

func bootID() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("which boot this is: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

// running lists all living processes but our own.
func running() ([]proc, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var all []proc
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		// One that ends meanwhile is gone, which is all there is to know.
		if p, err := readStat(pid); err == nil && !p.dead() {
			all = append(all, p)
		}
	}
	return all, nil
}

// members lists the living processes of one service: those with its token,
// those in its session (0: not looked at; its leader must be known to be ours,
// as numbers are reused), those in known, and all their descendants.
func members(session int, token string, known []proc) ([]proc, error) {
	all, err := running()
	if err != nil {
		return nil, err
	}
	return belonging(all, session, known, func(pid int) bool { return hasToken(pid, token) }), nil
}

func belonging(all []proc, session int, known []proc, marked func(pid int) bool) []proc {
	ours := map[int]bool{}
	before := make(map[int]uint64, len(known))
	for _, p := range known {
		before[p.pid] = p.ticks
	}
	for _, p := range all {
		ticks, seen := before[p.pid]
		if seen && ticks == p.ticks || session > 0 && p.session == session || marked(p.pid) {
			ours[p.pid] = true
		}
	}
	for grown := len(ours) > 0; grown; {
		grown = false
		for _, p := range all {
			if ours[p.parent] && !ours[p.pid] {
				ours[p.pid], grown = true, true
			}
		}
	}
	var out []proc
	for _, p := range all {
		if ours[p.pid] {
			out = append(out, p)
		}
	}
	return out
}

// eldest is the process that the others come from: a marked leader of a session
// whose parent is none of them. What it started may lead a session too.
func eldest(of []proc, marked func(pid int) bool) (found proc, ok bool) {
	for _, p := range of {
		child := slices.ContainsFunc(of, func(o proc) bool { return o.pid == p.parent })
		if p.session == p.pid && !child && marked(p.pid) && (!ok || p.ticks < found.ticks) {
			found, ok = p, true
		}
	}
	return found, ok
}

// hasToken looks for the token in a process's environment, which only its own
// user and root may read.
func hasToken(pid int, token string) bool {
	if token == "" {
		return false
	}
	env, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "environ"))
	if err != nil {
		return false
	}
	want := []byte(tokenVar + "=" + token)
	for entry := range bytes.SplitSeq(env, []byte{0}) {
		if bytes.Equal(entry, want) {
			return true
		}
	}
	return false
}
