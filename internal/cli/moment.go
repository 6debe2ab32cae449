package cli

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/stack"
)

const (
	momentForms = "a date such as 2026-11-25, a time such as 2026-11-25T06:00:00Z, or how long ago, such as 12h, 30d or 8w"
	// longAgo bounds how long ago a moment may be: further back there is nothing,
	// and no year 0.
	longAgo = 200 * 365 * 24 * time.Hour
)

var agoForm = regexp.MustCompile(`^(?:(\d{1,4})w)?(?:(\d{1,5})d)?(.*)$`)

// parseMoment reads a moment as --since and --until take it. A date is its whole
// day in UTC: its first second, or its last where end is set.
func parseMoment(text string, now time.Time, end bool) (time.Time, error) {
	if day, err := time.Parse(time.DateOnly, text); err == nil {
		if end {
			day = day.AddDate(0, 0, 1).Add(-time.Second)
		}
		return day, nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at.UTC(), nil
	}
	ago, err := parseAgo(text)
	if err != nil {
		return time.Time{}, err
	}
	return now.UTC().Add(-ago), nil
}

// parseAgo reads a duration with weeks and days before what Go's have.
func parseAgo(text string) (ago time.Duration, err error) {
	m := agoForm.FindStringSubmatch(text)
	if text == "" || m == nil {
		return 0, errors.New("want " + momentForms)
	}
	var parts []time.Duration
	for i, unit := range []time.Duration{7 * 24 * time.Hour, 24 * time.Hour} {
		n, _ := strconv.Atoi(m[i+1]) // of digits, or nothing
		parts = append(parts, time.Duration(n)*unit)
	}
	if m[3] != "" {
		rest, err := time.ParseDuration(m[3])
		if err != nil || rest < 0 {
			return 0, errors.New("want " + momentForms)
		}
		parts = append(parts, rest)
	}
	for _, d := range parts {
		if d > longAgo-ago {
			return 0, errors.New("that is more than 200 years ago")
		}
		ago += d
	}
	return ago, nil
}

// period reads --since and --until; a zero time is an end that is open.
func period(since, until string, now time.Time, hint string) (from, to time.Time, err error) {
	read := func(flag, text string, end bool) (at time.Time) {
		if text == "" || err != nil {
			return at
		}
		at, bad := parseMoment(text, now, end)
		if bad != nil {
			err = &stack.UsageError{Message: fmt.Sprintf("--%s=%s: %v", flag, text, bad), Hint: hint}
		}
		return at
	}
	from, to = read("since", since, false), read("until", until, true)
	if err == nil && !from.IsZero() && !to.IsZero() && to.Before(from) {
		err = &stack.UsageError{Message: fmt.Sprintf("--until=%s is before --since=%s", until, since), Hint: hint}
	}
	return from, to, err
}
