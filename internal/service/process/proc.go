package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// procStat is what tells one process from another that later has its number.
type procStat struct {
	state   byte
	session int
	ticks   uint64 // start time since boot
}

// readStat reads /proc/PID/stat. The command in it may hold spaces and
// parentheses, so fields count from the last ")".
func readStat(pid int) (procStat, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return procStat{}, err
	}
	return parseStat(data)
}

func parseStat(data []byte) (procStat, error) {
	i := bytes.LastIndexByte(data, ')')
	if i < 0 {
		return procStat{}, errors.New("no command in stat")
	}
	f := strings.Fields(string(data[i+1:]))
	if len(f) < 20 {
		return procStat{}, fmt.Errorf("%d fields in stat, want more than 20", len(f))
	}
	session, err := strconv.Atoi(f[3])
	if err != nil {
		return procStat{}, err
	}
	ticks, err := strconv.ParseUint(f[19], 10, 64)
	if err != nil {
		return procStat{}, err
	}
	return procStat{state: f[0][0], session: session, ticks: ticks}, nil
}

// alive reports whether the very process runs; a zombie does not.
func alive(pid int, ticks uint64) bool {
	if pid <= 0 {
		return false
	}
	st, err := readStat(pid)
	return err == nil && st.ticks == ticks && st.state != 'Z' && st.state != 'X'
}

func bootID() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// members lists the living processes of a session or with a token in their
// environment: everything a service left behind, however it forked.
func members(session int, token string) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		st, err := readStat(pid)
		if err != nil || st.state == 'Z' || st.state == 'X' {
			continue
		}
		if session > 0 && st.session == session || hasToken(pid, token) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func hasToken(pid int, token string) bool {
	if token == "" {
		return false
	}
	env, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "environ"))
	return err == nil && bytes.Contains(env, []byte(tokenVar+"="+token))
}

// waitGone waits until a process has ended, by its pidfd, and reports whether
// it did within the time.
func waitGone(ctx context.Context, pid int, ticks uint64, timeout time.Duration) (bool, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
			return true, nil
		}
		return false, fmt.Errorf("watch process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	deadline := time.Now().Add(timeout)
	for alive(pid, ticks) {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		left := time.Until(deadline)
		if left <= 0 {
			return false, nil
		}
		// Short turns, so that a cancelled context is seen.
		turn := min(left, 50*time.Millisecond)
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(turn.Milliseconds())+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return false, err
		}
		reap(pid)
	}
	return true, nil
}

// reap collects a child of ours that has ended; a process of another parent is
// none of our business.
func reap(pid int) {
	var ws unix.WaitStatus
	_, _ = unix.Wait4(pid, &ws, unix.WNOHANG, nil)
}
