package cli

import (
	"errors"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/stack"
)

func TestParseMoment(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 30, 0, 0, time.FixedZone("x", 3600))
	for text, want := range map[string]string{
		"2026-11-01":                "2026-11-01T00:00:00Z",
		"2026-11-01T06:00:00Z":      "2026-11-01T06:00:00Z",
		"2026-11-01T06:00:00+02:00": "2026-11-01T04:00:00Z",
		"30d":                       "2026-10-26T11:30:00Z",
		"2w":                        "2026-11-11T11:30:00Z",
		"1w1d1h30m":                 "2026-11-17T10:00:00Z",
		"90m":                       "2026-11-25T10:00:00Z",
		"0s":                        "2026-11-25T11:30:00Z",
	} {
		if got, err := parseMoment(text, now, false); err != nil || got.Format(time.RFC3339) != want {
			t.Errorf("%s is %v, %v; want %s", text, got, err, want)
		}
	}
	if got, err := parseMoment("2026-02-28", now, true); err != nil || got.Format(time.RFC3339) != "2026-02-28T23:59:59Z" {
		t.Errorf("a day ends at %v, %v", got, err)
	}
	for _, text := range []string{"", "5", "yesterday", "-5h", "2026-13-01", "2026-02-30", "99999d", "1d2w", "30 d", "1e3h", "9999w99999d2000000h", "\n"} {
		if got, err := parseMoment(text, now, false); err == nil {
			t.Errorf("%q is %v, want an error", text, got)
		}
	}
}

func TestPeriod(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 30, 0, 0, time.UTC)
	if from, to, err := period("2026-11-25", "2026-11-25", now, ""); err != nil || to.Sub(from) != 24*time.Hour-time.Second {
		t.Errorf("a day goes from %v to %v, %v", from, to, err)
	}
	if from, to, err := period("", "", now, ""); err != nil || !from.IsZero() || !to.IsZero() {
		t.Errorf("%v %v %v", from, to, err)
	}
	for _, c := range [][2]string{{"1h", "2h"}, {"x", ""}, {"", "x"}} {
		var usage *stack.UsageError
		if _, _, err := period(c[0], c[1], now, "hint"); !errors.As(err, &usage) || usage.Hint != "hint" {
			t.Errorf("%v: %v", c, err)
		}
	}
}

func FuzzParseMoment(f *testing.F) {
	for _, s := range []string{"30d", "2w3d4h", "2026-11-25", "2026-11-25T06:00:00Z", "9999w99999d", ""} {
		f.Add(s)
	}
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text string) {
		from, err := parseMoment(text, now, false)
		to, endErr := parseMoment(text, now, true)
		if (err == nil) != (endErr == nil) || err == nil && to.Before(from) {
			t.Fatalf("%q: %v to %v, %v, %v", text, from, to, err, endErr)
		}
	})
}
