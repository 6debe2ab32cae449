package web

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// stamp is a moment as people read it.
type stamp struct {
	ISO  string // for machines; "" when the moment is not known
	Text string // in UTC
	Date string // the day alone, in UTC
	Ago  string // how far from now
}

const stampForm = "2006-01-02 15:04"

func stampOf(t, now time.Time) stamp {
	if t.IsZero() {
		return stamp{}
	}
	return stamp{ISO: t.UTC().Format(time.RFC3339), Text: t.UTC().Format(stampForm) + " UTC", Date: t.UTC().Format(time.DateOnly), Ago: ago(now.Sub(t))}
}

// ago is a distance in time in one unit, rounded down; a negative one lies ahead.
func ago(d time.Duration) string {
	text := span(d.Abs())
	switch {
	case d.Abs() < time.Second:
		return "just now"
	case d < 0:
		return "in " + text
	}
	return text + " ago"
}

func span(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 2*day:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d/day))
}

// seconds is a duration with as many digits as matter.
func seconds(s float64) string {
	switch {
	case s < 0 || math.IsNaN(s) || math.IsInf(s, 0):
		return "–"
	case s == 0:
		return "0 s"
	case s < 0.1:
		return strconv.FormatFloat(math.Ceil(s*1000), 'f', 0, 64) + " ms"
	case s < 1:
		return strconv.FormatFloat(s, 'f', 2, 64) + " s"
	case s < 10:
		return strconv.FormatFloat(s, 'f', 1, 64) + " s"
	case s < 120:
		return strconv.Itoa(int(math.Round(s))) + " s"
	case s < 7200:
		m := int(math.Round(s))
		return fmt.Sprintf("%d min %02d s", m/60, m%60)
	}
	m := int(math.Round(s / 60))
	return fmt.Sprintf("%d h %02d min", m/60, m%60)
}

// mark is a state that a person sees: a sign and words, never colour alone.
type mark struct {
	Kind string // the colour and the sign: ok | warn | bad | busy | new | hold | none
	Text string
}

// Long reports that the words may be broken into lines.
func (m mark) Long() bool { return len(m.Text) > 32 }

// Sign is what stands before the words.
func (m mark) Sign() string {
	switch m.Kind {
	case "ok":
		return "✓"
	case "warn":
		return "!"
	case "bad":
		return "✕"
	case "busy":
		return "▸"
	case "new":
		return "↑"
	case "hold":
		return "‖"
	}
	return "–"
}

// statusMark is the status of a run, of an upgrade or of a component in one.
func statusMark(status string) mark {
	switch status {
	case "success":
		return mark{"ok", "Succeeded"}
	case "upgraded":
		return mark{"ok", "Upgraded"}
	case "restarted":
		return mark{"ok", "Restarted"}
	case "rolled_back":
		return mark{"warn", "Rolled back"}
	case "failed":
		return mark{"bad", "Failed"}
	case "rollback_failed":
		return mark{"bad", "Rollback failed"}
	case "interrupted":
		return mark{"bad", "Interrupted"}
	case "cancelled":
		return mark{"none", "Cancelled"}
	case "not_attempted":
		return mark{"none", "Not attempted"}
	case "nothing_to_do":
		return mark{"none", "Nothing to do"}
	case "waiting":
		return mark{"none", "Waiting"}
	case "at_work":
		return mark{"busy", "At work"}
	case "cut_off":
		return mark{"bad", "Cut off"}
	case "skipped":
		return mark{"none", "Skipped"}
	}
	return mark{"none", status}
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
