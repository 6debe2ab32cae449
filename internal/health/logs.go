package health

import (
	"context"
	"regexp"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/service"
)

const (
	// DefaultLogErrors is how many error lines a start may log before they are
	// worth a warning (specification section 4).
	DefaultLogErrors = 5
	logLines         = 200
	errPriority      = 3 // syslog's "err"; a lower number is worse
)

// logErrors picks the error lines: by priority first, by their words second. Most
// programs write to standard error, whose priority a manager takes for "info".
func logErrors(lines []service.LogLine, isError func(string) bool, ignore *regexp.Regexp) []string {
	var bad []string
	for _, l := range lines {
		byPriority := l.Priority >= 0 && l.Priority <= errPriority
		if !byPriority && !isError(l.Message) || ignore != nil && ignore.MatchString(l.Message) {
			continue
		}
		bad = append(bad, l.Message)
	}
	return bad
}

// checkLogs counts the error lines of this start. An error in the log of a ready
// component is for a person to read, unless its definition says otherwise.
func (p *Prober) checkLogs(ctx context.Context, t Target, r *Report) {
	if p.Services == nil {
		return
	}
	conf := t.Spec.Health.Logs
	isError, ignore := saysError, (*regexp.Regexp)(nil)
	var err error
	if conf.Pattern != "" {
		var pattern *regexp.Regexp
		if pattern, err = regexp.Compile(conf.Pattern); err == nil {
			isError = pattern.MatchString
		}
	}
	if err == nil && conf.Ignore != "" {
		ignore, err = regexp.Compile(conf.Ignore)
	}
	if err != nil {
		r.add("logs", Fail, "health.logs: %v", err)
		return
	}
	lines, err := p.Services.Logs(ctx, t.Service, time.Time{}, logLines)
	if err != nil {
		r.add("logs", Skipped, "%v", err)
		return
	}
	bad := logErrors(lines, isError, ignore)
	warnAbove := DefaultLogErrors
	if conf.WarnAbove != nil {
		warnAbove = *conf.WarnAbove
	}
	switch {
	case len(bad) == 0:
		r.add("logs", OK, "no errors in the last %d lines of this start", len(lines))
	case conf.FailAbove != nil && len(bad) > *conf.FailAbove:
		r.add("logs", Fail, "%d error lines since the start, expected at most %d; the last: %.200s", len(bad), *conf.FailAbove, bad[len(bad)-1])
	case len(bad) > warnAbove:
		r.add("logs", Warn, "%d error lines since the start, expected at most %d; the last: %.200s", len(bad), warnAbove, bad[len(bad)-1])
	default:
		r.add("logs", OK, "%d error lines since the start, at most %d are no matter; the last: %.200s", len(bad), warnAbove, bad[len(bad)-1])
	}
}
