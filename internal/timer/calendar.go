package timer

import (
	"context"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/window"
)

// A week and a day are looked at, as windows come again within a week: of most
// schedules few firings are as much, and of one an hour all that are asked for. For
// each firing in a zone systemd starts a process.
const (
	week        = 8 * 24 * time.Hour
	fewFirings  = 20
	manyFirings = 200
)

// Cap is the delay with which a timer that fires as the shortest window begins still
// leaves half of it to the run.
func Cap(delay time.Duration, windows window.Set) time.Duration {
	if len(windows) == 0 {
		return delay
	}
	return min(delay, windows.Shortest()/2)
}

// Misses reports that no firing of a timer, however late its random delay makes it,
// is sure to lie in a window. systemd is asked what the schedule means; where it
// cannot be, and where the schedule is changed by drop-ins, nothing is said.
func Misses(ctx context.Context, dir string, o Options, windows window.Set, now time.Time) bool {
	if len(windows) == 0 || len(o.Schedule) == 0 {
		return false
	}
	for _, text := range dropIns(dir, Timer) {
		if strings.Contains(text, "OnCalendar") || strings.Contains(text, "RandomizedDelaySec") {
			return false
		}
	}
	for _, schedule := range o.Schedule {
		at, ok := next(ctx, schedule, fewFirings)
		if ok && len(at) == fewFirings && at[fewFirings-1].Sub(now) < week {
			at, ok = next(ctx, schedule, manyFirings)
		}
		if !ok || len(at) == manyFirings && at[manyFirings-1].Sub(now) < week {
			return false // there may be a window later in the week
		}
		if slices.ContainsFunc(at, func(t time.Time) bool {
			open, ok := windows.At(t)
			return ok && t.Add(o.Delay).Before(open.End)
		}) {
			return false
		}
	}
	return true
}

// next asks systemd for the next n moments of a calendar expression.
func next(ctx context.Context, schedule string, n int) ([]time.Time, bool) {
	path, err := exec.LookPath("systemd-analyze")
	if err != nil {
		return nil, false
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "calendar", "--iterations="+strconv.Itoa(n), "--", schedule)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "TZ=") }) // a timer has the host's zone
	out, err := cmd.Output()
	if err != nil {
		return nil, false
	}
	return parseCalendar(string(out))
}

// parseCalendar reads what `systemd-analyze calendar` prints. Where the host's zone is
// not UTC each moment comes twice, the second time in UTC.
func parseCalendar(text string) (at []time.Time, ok bool) {
	var utc, local []time.Time
	for line := range strings.Lines(text) {
		label, value, found := strings.Cut(strings.TrimSpace(line), ": ")
		into := &local
		switch value = strings.TrimSpace(value); {
		case !found:
			continue
		case label == "(in UTC)":
			into = &utc
		case label == "Next elapse" && value == "never":
			return nil, true
		case label != "Next elapse" && !strings.HasPrefix(label, "Iter"):
			continue
		}
		if t, err := time.Parse("Mon 2006-01-02 15:04:05 UTC", value); err == nil {
			*into = append(*into, t)
		}
	}
	if len(utc) > 0 {
		return utc, true
	}
	return local, len(local) > 0
}
