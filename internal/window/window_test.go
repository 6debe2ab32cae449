package window

import (
	"fmt"
	"strings"
	"testing"
	"time"
	_ "time/tzdata"

	"pgregory.net/rapid"
)

func must(t testing.TB, day, start, end, zone string) Window {
	t.Helper()
	w, err := New(day, start, end, zone)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func at(t testing.TB, s string) time.Time {
	t.Helper()
	v, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Openings of one window on one date, at the changes of daylight-saving time.
func TestDaylightSaving(t *testing.T) {
	tests := []struct {
		name             string
		start, end, zone string
		date             string
		from, to         string // "" when it does not open
	}{
		{"an ordinary day", "02:00", "04:00", "Europe/Berlin", "2026-06-10", "2026-06-10T00:00:00Z", "2026-06-10T02:00:00Z"},
		{"UTC knows no change", "02:00", "04:00", "UTC", "2026-03-29", "2026-03-29T02:00:00Z", "2026-03-29T04:00:00Z"},
		// Berlin, 2026-03-29: 02:00 becomes 03:00 at 01:00Z.
		{"start in the gap", "02:30", "04:00", "Europe/Berlin", "2026-03-29", "2026-03-29T01:00:00Z", "2026-03-29T02:00:00Z"},
		{"end in the gap", "01:00", "02:30", "Europe/Berlin", "2026-03-29", "2026-03-29T00:00:00Z", "2026-03-29T01:00:00Z"},
		{"wholly in the gap", "02:10", "02:50", "Europe/Berlin", "2026-03-29", "", ""},
		{"from the first skipped minute", "02:00", "03:00", "Europe/Berlin", "2026-03-29", "", ""},
		{"over the gap it is an hour shorter", "01:00", "05:00", "Europe/Berlin", "2026-03-29", "2026-03-29T00:00:00Z", "2026-03-29T03:00:00Z"},
		{"over midnight into the gap", "23:00", "02:30", "Europe/Berlin", "2026-03-28", "2026-03-28T22:00:00Z", "2026-03-29T01:00:00Z"},
		// Berlin, 2026-10-25: 03:00 becomes 02:00 at 01:00Z.
		{"start in the overlap: the first", "02:30", "04:00", "Europe/Berlin", "2026-10-25", "2026-10-25T00:30:00Z", "2026-10-25T03:00:00Z"},
		{"end in the overlap: the last", "01:00", "02:30", "Europe/Berlin", "2026-10-25", "2026-10-24T23:00:00Z", "2026-10-25T01:30:00Z"},
		{"wholly in the overlap: both hours", "02:00", "02:59", "Europe/Berlin", "2026-10-25", "2026-10-25T00:00:00Z", "2026-10-25T01:59:00Z"},
		{"over the overlap it is an hour longer", "01:00", "05:00", "Europe/Berlin", "2026-10-25", "2026-10-24T23:00:00Z", "2026-10-25T04:00:00Z"},
		// New York, 2026-03-08 and 2026-11-01.
		{"New York, gap", "02:30", "03:30", "America/New_York", "2026-03-08", "2026-03-08T07:00:00Z", "2026-03-08T07:30:00Z"},
		{"New York, overlap", "01:30", "03:00", "America/New_York", "2026-11-01", "2026-11-01T05:30:00Z", "2026-11-01T08:00:00Z"},
		// Lord Howe moves by half an hour: 2026-10-04 02:00 becomes 02:30, 2026-04-05 02:00 becomes 01:30.
		{"Lord Howe, half-hour gap", "02:10", "03:00", "Australia/Lord_Howe", "2026-10-04", "2026-10-03T15:30:00Z", "2026-10-03T16:00:00Z"},
		{"Lord Howe, half-hour overlap", "01:40", "01:50", "Australia/Lord_Howe", "2026-04-05", "2026-04-04T14:40:00Z", "2026-04-04T15:20:00Z"},
		// 24:00 is the midnight that ends the day, whatever the clocks do that night.
		{"a whole day", "00:00", "24:00", "UTC", "2026-06-10", "2026-06-10T00:00:00Z", "2026-06-11T00:00:00Z"},
		{"a whole day of 23 hours", "00:00", "24:00", "Europe/Berlin", "2026-03-29", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"},
		{"a whole day of 25 hours", "00:00", "24:00", "Europe/Berlin", "2026-10-25", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"},
		{"the end of a day", "22:00", "24:00", "America/New_York", "2026-06-10", "2026-06-11T02:00:00Z", "2026-06-11T04:00:00Z"},
		// Cairo, 2026-04-24: 00:00 becomes 01:00 at 2026-04-23T22:00Z; 2026-10-30 begins twice, at 00:00 it becomes 23:00.
		{"the midnight that is skipped ends it", "22:00", "24:00", "Africa/Cairo", "2026-04-23", "2026-04-23T20:00:00Z", "2026-04-23T22:00:00Z"},
		{"the midnight that is skipped begins it", "00:00", "24:00", "Africa/Cairo", "2026-04-24", "2026-04-23T22:00:00Z", "2026-04-24T21:00:00Z"},
		{"the last hour twice", "22:00", "24:00", "Africa/Cairo", "2026-10-29", "2026-10-29T19:00:00Z", "2026-10-29T22:00:00Z"},
		// Havana, 2026-11-01: 01:00 becomes 00:00 at 05:00Z, so that midnight is shown twice.
		{"midnight twice: the last ends it", "22:00", "24:00", "America/Havana", "2026-10-31", "2026-11-01T02:00:00Z", "2026-11-01T05:00:00Z"},
		{"midnight twice: the first begins it", "00:00", "24:00", "America/Havana", "2026-11-01", "2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z"},
		// Samoa had no 2011-12-30.
		{"a day that was left out", "10:00", "12:00", "Pacific/Apia", "2011-12-30", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, err := time.Parse(time.DateOnly, tt.date)
			if err != nil {
				t.Fatal(err)
			}
			o, ok := must(t, "", tt.start, tt.end, tt.zone).on(d.Date())
			if ok != (tt.from != "") {
				t.Fatalf("opens %v: %s", ok, o)
			}
			if ok && (!o.Start.Equal(at(t, tt.from)) || !o.End.Equal(at(t, tt.to))) {
				t.Errorf("%s to %s, want %s to %s", o.Start.Format(time.RFC3339), o.End.Format(time.RFC3339), tt.from, tt.to)
			}
		})
	}
}

func TestJudge(t *testing.T) {
	weekend := Set{must(t, "Saturday", "02:00", "06:00", "UTC"), must(t, "sunday", "02:00", "06:00", "UTC")}
	night := Set{must(t, "friday", "22:00", "02:00", "Europe/Berlin")}
	chain := Set{must(t, "", "22:00", "23:59", "UTC"), must(t, "", "23:00", "01:00", "UTC")}
	tests := []struct {
		name   string
		set    Set
		now    string
		takes  time.Duration
		ok     bool
		reason string
	}{
		{"none configured", nil, "2026-11-24T12:00:00Z", time.Hour, true, "no maintenance windows"},
		{"inside", weekend, "2026-11-28T02:00:00Z", time.Hour, true, "Sat 2026-11-28 02:00-06:00 UTC"},
		{"the end is not inside", weekend, "2026-11-28T06:00:00Z", 0, false, "outside the maintenance windows (saturday 02:00-06:00 UTC, sunday 02:00-06:00 UTC); the next that is long enough opens on Sun 2026-11-29 02:00-06:00 UTC"},
		{"just fits", weekend, "2026-11-28T05:00:00Z", time.Hour, true, "Sat"},
		{"does not fit", weekend, "2026-11-28T05:00:01Z", time.Hour, false, "expected to take 1h0m0s, and the window Sat 2026-11-28 02:00-06:00 UTC has only 59m59s left; the next that is long enough opens on Sun 2026-11-29"},
		{"never fits", weekend, "2026-11-28T03:00:00Z", 5 * time.Hour, false, "none of the next 16 days is open for 5h0m0s"},
		{"over midnight, before", night, "2026-11-27T21:30:00Z", time.Hour, true, "Fri 2026-11-27 22:00-Sat 02:00 CET"},
		{"over midnight, after", night, "2026-11-28T00:30:00Z", time.Minute, true, "Fri"},
		{"over midnight, ended", night, "2026-11-28T01:00:00Z", time.Minute, false, "opens on Fri 2026-12-04 22:00-Sat 02:00 CET"},
		{"the whole day, every day", Set{must(t, "", "00:00", "24:00", "Europe/Berlin")}, "2026-10-24T21:59:59Z", 48 * time.Hour, true, "Thu 2026-10-22 00:00"},
		{"the whole of one day", Set{must(t, "Sat", "00:00", "24:00", "UTC")}, "2026-11-28T23:00:00Z", time.Hour, true, "Sat 2026-11-28 00:00-Sun 00:00 UTC"},
		{"the whole of one day, over", Set{must(t, "SAT", "00:00", "24:00", "UTC")}, "2026-11-29T00:00:00Z", time.Hour, false, "(saturday 00:00-24:00 UTC)"},
		{"windows that touch are one", chain, "2026-11-24T22:30:00Z", 2 * time.Hour, true, "Tue 2026-11-24 22:00-Wed 01:00 UTC"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := tt.set.Judge(at(t, tt.now), tt.takes)
			if v.OK != tt.ok || !strings.Contains(v.Reason, tt.reason) {
				t.Errorf("%v, %q; want %v, %q", v.OK, v.Reason, tt.ok, tt.reason)
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	for _, w := range [][4]string{{"someday", "02:00", "04:00", ""}, {"", "2", "04:00", ""}, {"", "24:00", "02:00", ""}, {"", "02:00", "24:01", ""}, {"sa", "02:00", "04:00", ""}, {"satur", "02:00", "04:00", ""}, {"", "02:00", "02:00", ""}, {"", "02:00", "04:00", "Mars/Olympus"}} {
		if got, err := New(w[0], w[1], w[2], w[3]); err == nil {
			t.Errorf("%v gives %s", w, got)
		}
	}
}

// What At and Next say of any windows at any moment hangs together.
func TestProperties(t *testing.T) {
	zones := []string{"UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "America/Sao_Paulo", "Africa/Casablanca", "Africa/Cairo", "America/Havana"}
	rapid.Check(t, func(r *rapid.T) {
		var s Set
		for range rapid.IntRange(1, 3).Draw(r, "windows") {
			clock := func(name string, last int) string {
				m := rapid.IntRange(0, last).Draw(r, name)
				return fmt.Sprintf("%02d:%02d", m/60, m%60)
			}
			w, err := New(rapid.SampledFrom(append([]string{"", "Mon", "sun"}, weekdays...)).Draw(r, "day"), clock("start", 24*60-1), clock("end", 24*60), rapid.SampledFrom(zones).Draw(r, "zone"))
			if err != nil {
				continue
			}
			s = append(s, w)
		}
		if len(s) == 0 {
			return
		}
		now := time.Unix(rapid.Int64Range(1_700_000_000, 1_900_000_000).Draw(r, "now"), 0)
		next, ok := s.Next(now, 0)
		if here, open := s.At(now); open && here.Length() > 8*24*time.Hour {
			return // together they are always open
		}
		if next.Length() > 8*24*time.Hour {
			return // and so they are once the clocks have changed
		}
		if !ok || !next.Start.After(now) || next.Start.Sub(now) > 15*24*time.Hour {
			r.Fatalf("%s: next after %s is %s, %v", s, now, next, ok)
		}
		for _, c := range []struct {
			t    time.Time
			open bool
		}{{next.Start, true}, {next.End.Add(-time.Second), true}, {next.Start.Add(-time.Second), false}, {next.End, false}} {
			if _, open := s.At(c.t); open != c.open {
				r.Errorf("%s, opening %s: open at %s is %v", s, next, c.t, open)
			}
		}
		if here, open := s.At(now); open && (now.Before(here.Start) || !now.Before(here.End) || next.Start.Before(here.End)) {
			r.Errorf("%s: at %s the opening is %s, the next %s", s, now, here, next)
		}
	})
}
