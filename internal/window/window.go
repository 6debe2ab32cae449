// Package window answers when unattended runs may be at work: whether a moment is
// inside a maintenance window, when that ends, and when the next one opens. It is
// pure: time is given to it. All functions are safe for concurrent use.
//
// Windows are given in the wall time of a zone, and zones change their offset. A
// start or end that the clock shows twice is taken as early as possible for a
// start and as late as possible for an end, so that both hours belong to the
// window. One that the clock skips is the moment of the change; a window that lies
// wholly in the skipped hour does not open that day.
package window

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Window recurs every week, or every day.
type Window struct {
	day        time.Weekday
	daily      bool
	start, end int // minutes after midnight, an end up to 24:00; one not after the start is on the next day
	zone       *time.Location
}

// Set is a number of windows, any of which is open. The empty set is always open.
type Set []Window

// Opening is one time that a window, or several that touch, are open.
type Opening struct {
	Start, End time.Time // End is not part of it
	Zone       *time.Location
}

// Length is how long it is open.
func (o Opening) Length() time.Duration { return o.End.Sub(o.Start) }

// String is the opening as people read it, in its own zone: "Sat 2026-11-28
// 02:00-06:00 UTC".
func (o Opening) String() string {
	a, b := o.Start.In(o.Zone), o.End.In(o.Zone)
	end := b.Format("15:04 MST")
	if a.YearDay() != b.YearDay() || a.Year() != b.Year() {
		end = b.Format("Mon 15:04 MST")
	}
	return a.Format("Mon 2006-01-02 15:04") + "-" + end
}

var weekdays = []string{"sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"}

// New makes a window: day is as ParseDay has it, start and end as ParseClock has
// them; zone is an IANA name, UTC when it is empty.
func New(day, start, end, zone string) (Window, error) {
	w := Window{}
	var err error
	if w.day, w.daily, err = ParseDay(day); err != nil {
		return w, err
	}
	if w.start, err = ParseClock(start, false); err != nil {
		return w, err
	}
	if w.end, err = ParseClock(end, true); err != nil {
		return w, err
	}
	if w.start == w.end {
		return w, fmt.Errorf("it begins and ends at %s; for a whole day write 00:00 to 24:00", start)
	}
	if w.zone, err = time.LoadLocation(zone); err != nil {
		return w, fmt.Errorf("time zone %q: %w", zone, err)
	}
	return w, nil
}

// ParseDay reads the name of a weekday, whole or its first three letters, in any
// case; "" and "daily" are every day.
func ParseDay(s string) (day time.Weekday, daily bool, err error) {
	name := strings.ToLower(s)
	if name == "" || name == "daily" {
		return 0, true, nil
	}
	i := slices.IndexFunc(weekdays, func(d string) bool { return name == d || name == d[:3] })
	if i < 0 {
		return 0, false, fmt.Errorf("day %q: want %s, their first three letters, or daily", s, strings.Join(weekdays, ", "))
	}
	return time.Weekday(i), false, nil
}

// ParseClock reads a time HH:MM as minutes after midnight. An end may be 24:00,
// the midnight that ends the day.
func ParseClock(s string, end bool) (int, error) {
	last := "23:59"
	if end {
		if last = "24:00"; s == last {
			return 24 * 60, nil
		}
	}
	t, err := time.Parse("15:04", s)
	if err != nil {
		return 0, fmt.Errorf("time %q: want HH:MM, from 00:00 to %s", s, last)
	}
	return t.Hour()*60 + t.Minute(), nil
}

// String is the window as people read it: "saturday 02:00-06:00 UTC".
func (w Window) String() string {
	text := fmt.Sprintf("%02d:%02d-%02d:%02d %s", w.start/60, w.start%60, w.end/60, w.end%60, w.zone)
	if w.daily {
		return text
	}
	return weekdays[w.day] + " " + text
}

func (s Set) String() string {
	parts := make([]string, len(s))
	for i, w := range s {
		parts[i] = w.String()
	}
	return strings.Join(parts, ", ")
}

// Shortest is how long the shortest of the windows is open on a day without a change
// of the clock; 0 where there are none.
func (s Set) Shortest() time.Duration {
	shortest := 0
	for i, w := range s {
		minutes := w.end - w.start
		if minutes <= 0 {
			minutes += 24 * 60
		}
		if i == 0 || minutes < shortest {
			shortest = minutes
		}
	}
	return time.Duration(shortest) * time.Minute
}

// Calendar is the start of each window as a calendar expression of systemd.time(7).
func (s Set) Calendar() []string {
	var out []string
	for _, w := range s {
		text := fmt.Sprintf("*-*-* %02d:%02d:00 %s", w.start/60, w.start%60, w.zone)
		if !w.daily {
			text = w.day.String()[:3] + " " + text
		}
		if !slices.Contains(out, text) {
			out = append(out, text)
		}
	}
	return out
}

// on is the opening that begins on a date; false when the window is not of that
// weekday, or falls into an hour that the clock skips.
func (w Window) on(year int, month time.Month, day int) (Opening, bool) {
	date := time.Date(year, month, day, 0, 0, 0, 0, time.UTC) // normalises
	if !w.daily && date.Weekday() != w.day {
		return Opening{}, false
	}
	last := date
	if w.end <= w.start {
		last = date.AddDate(0, 0, 1)
	}
	o := Opening{Start: w.instant(date, w.start, false), End: w.instant(last, w.end, true), Zone: w.zone}
	return o, o.Start.Before(o.End)
}

// instant is the moment at which the clocks of the zone show a time: the first
// or, with late, the last such moment. When there is none it is the moment of the
// change that skips it.
func (w Window) instant(date time.Time, minute int, late bool) time.Time {
	wall := date.Add(time.Duration(minute) * time.Minute)
	var found []time.Time
	var skipped time.Time
	for _, around := range []time.Duration{-36 * time.Hour, 36 * time.Hour} {
		_, offset := wall.Add(around).In(w.zone).Zone()
		t := wall.Add(-time.Duration(offset) * time.Second)
		local := t.In(w.zone)
		if shown := time.Date(local.Year(), local.Month(), local.Day(), local.Hour(), local.Minute(), 0, 0, time.UTC); shown.Equal(wall) {
			found = append(found, t)
			continue
		}
		if begin, _ := local.ZoneBounds(); skipped.IsZero() {
			skipped = begin
		}
	}
	if len(found) == 0 {
		return skipped.UTC()
	}
	slices.SortFunc(found, time.Time.Compare)
	if late {
		return found[len(found)-1].UTC()
	}
	return found[0].UTC()
}

// horizon is how many days ahead openings are looked for: two weeks, since a
// weekly window may be skipped once, and the days around.
const horizon = 16

// openings lists what is open from two days before t on, merged where they touch,
// oldest first.
func (s Set) openings(t time.Time) []Opening {
	var all []Opening
	for _, w := range s {
		y, m, d := t.In(w.zone).Date()
		for i := -2; i <= horizon; i++ {
			if o, ok := w.on(y, m, d+i); ok {
				all = append(all, o)
			}
		}
	}
	slices.SortFunc(all, func(a, b Opening) int { return a.Start.Compare(b.Start) })
	var out []Opening
	for _, o := range all {
		if n := len(out); n > 0 && !out[n-1].End.Before(o.Start) {
			if out[n-1].End.Before(o.End) {
				out[n-1].End = o.End
			}
			continue
		}
		out = append(out, o)
	}
	return out
}

// At is the opening that t lies in; false when none is open.
func (s Set) At(t time.Time) (Opening, bool) {
	for _, o := range s.openings(t) {
		if !t.Before(o.Start) && t.Before(o.End) {
			return o, true
		}
	}
	return Opening{}, false
}

// Next is the first opening that begins after t and is open for at least d; false
// when no window is that long.
func (s Set) Next(t time.Time, d time.Duration) (Opening, bool) {
	for _, o := range s.openings(t) {
		if o.Start.After(t) && o.Length() >= d {
			return o, true
		}
	}
	return Opening{}, false
}

// Verdict says whether a run that takes d may begin at t.
type Verdict struct {
	OK     bool
	Reason string // why not; when it may, the opening
	Next   *Opening
}

// Judge says whether an unattended run may begin: a window must be open, and stay
// open for as long as the run is expected to take. A run that has begun is never
// stopped by the end of its window.
func (s Set) Judge(t time.Time, d time.Duration) Verdict {
	if len(s) == 0 {
		return Verdict{OK: true, Reason: "no maintenance windows are configured"}
	}
	now, open := s.At(t)
	if open && !t.Add(d).After(now.End) {
		return Verdict{OK: true, Reason: now.String()}
	}
	v := Verdict{Reason: "it is outside the maintenance windows (" + s.String() + ")"}
	if open {
		v.Reason = fmt.Sprintf("the run is expected to take %s, and the window %s has only %s left", d.Round(time.Second), now, now.End.Sub(t).Round(time.Second))
	}
	if next, ok := s.Next(t, d); ok {
		v.Next = &next
		v.Reason += "; the next that is long enough opens on " + next.String()
	} else {
		v.Reason += fmt.Sprintf("; none of the next %d days is open for %s", horizon, d.Round(time.Second))
	}
	return v
}
