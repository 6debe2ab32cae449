package web

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/history"
)

const (
	// maxCharts bounds how many components are drawn on one page.
	maxCharts = 12
	// maxBars bounds how many upgrades of each.
	maxBars = 24

	// The drawing, in its own units; templates/history.html has the same.
	chartWidth = 280
	axisLeft   = 50 // where the plot begins
	axisTop    = 14
	axisBottom = 96
	barMax     = 12
	// dateWidth is what a date below the axis takes, with a space.
	dateWidth = 64
)

// chartView is what is drawn of one component: how long its upgrades took, and how
// long it was down. The rows say the same in words.
type chartView struct {
	ID        string // unique on the page
	Component string
	Summary   string
	Panels    []panel
	Rows      []upgradeRow // newest first
}

// panel is one drawing.
type panel struct {
	ID          string
	Title, Desc string
	Ticks       []tick
	Bars        []bar
	First, Last string  // dates of the first and the last bar; Last is "" where there is no room
	LastX       float64 // where the last date ends
	Empty       bool    // nothing was measured
}

type tick struct {
	Y     float64
	Label string
}

type bar struct {
	X, Y, W, H float64
	Kind       string // ok | warn | bad
	Sign       string // above the bar, where it is not ok
	SignX      float64
	SignY      float64
	Label      string
}

// charts draws the components of rows, newest first, in the order of their names,
// and tells how many it left out.
func charts(rows []history.Upgrade, now time.Time) (out []chartView, more int) {
	by := map[string][]history.Upgrade{}
	var names []string
	for _, u := range rows {
		if by[u.Component] == nil {
			if len(names) == maxCharts {
				more++
				by[u.Component] = []history.Upgrade{} // counted once
				continue
			}
			names = append(names, u.Component)
		}
		if slices.Contains(names, u.Component) && len(by[u.Component]) < maxBars {
			by[u.Component] = append(by[u.Component], u)
		}
	}
	slices.Sort(names)
	for i, name := range names {
		out = append(out, newChart(fmt.Sprintf("chart-%d", i+1), name, by[name], now))
	}
	return out, more
}

func newChart(id, name string, rows []history.Upgrade, now time.Time) chartView {
	c := chartView{ID: id, Component: name}
	for _, u := range rows {
		c.Rows = append(c.Rows, newUpgradeRow(u, now))
	}
	old := slices.Clone(rows) // drawn from left to right, oldest first
	slices.Reverse(old)
	took := newPanel(id+"-took", "Duration of upgrades of "+name, old, func(u history.Upgrade) float64 { return u.DurationSeconds })
	down := newPanel(id+"-down", "Down time of "+name, old, func(u history.Upgrade) float64 { return u.DowntimeSeconds })
	c.Panels = []panel{took, down}
	good := 0
	for _, u := range rows {
		if u.Status == history.Success {
			good++
		}
	}
	c.Summary = fmt.Sprintf("%s, %d succeeded", plural(len(rows), "upgrade", "upgrades"), good)
	return c
}

func newPanel(id, title string, rows []history.Upgrade, value func(history.Upgrade) float64) panel {
	p := panel{ID: id, Title: title}
	top, sum := 0.0, 0.0
	for _, u := range rows {
		top, sum = max(top, value(u)), sum+value(u)
	}
	last := rows[len(rows)-1]
	p.Desc = fmt.Sprintf("%s from %s to %s, oldest first. The longest took %s, the mean is %s, the last one took %s and %s.",
		plural(len(rows), "upgrade", "upgrades"), rows[0].Timestamp.UTC().Format(time.DateOnly), last.Timestamp.UTC().Format(time.DateOnly),
		seconds(top), seconds(sum/float64(len(rows))), seconds(value(last)), strings.ToLower(statusMark(last.Status).Text))
	p.First, p.Last = rows[0].Timestamp.UTC().Format(time.DateOnly), last.Timestamp.UTC().Format(time.DateOnly)
	scale, steps := nice(top)
	p.Empty = top <= 0
	for i := range steps + 1 {
		at := scale * float64(i) / float64(steps)
		p.Ticks = append(p.Ticks, tick{Y: height(at, scale), Label: seconds(at)})
	}
	slot := float64(chartWidth-axisLeft) / float64(max(len(rows), 8))
	width := min(barMax, slot*0.7)
	for i, u := range rows {
		v := value(u)
		b := bar{W: round(width), X: round(axisLeft + slot*float64(i) + (slot-width)/2), Y: height(v, scale), Kind: "ok"}
		b.H = round(max(axisBottom-b.Y, 1)) // none is shorter than can be seen
		b.Y = round(axisBottom - b.H)
		if m := statusMark(u.Status); m.Kind != "ok" {
			b.Kind, b.Sign, b.SignX, b.SignY = m.Kind, m.Sign(), round(b.X+width/2), round(b.Y-3)
		}
		b.Label = fmt.Sprintf("%s, %s: %s, %s", u.Timestamp.UTC().Format(stampForm), arrow(u.OldVersion, u.NewVersion), seconds(v), strings.ToLower(statusMark(u.Status).Text))
		p.Bars = append(p.Bars, b)
		p.LastX = round(min(chartWidth, b.X+width/2+dateWidth/2))
	}
	if p.LastX < axisLeft+2*dateWidth {
		p.Last = ""
	}
	return p
}

func arrow(from, to string) string {
	if from == "" {
		return to
	}
	return from + " → " + to
}

// height is where a value is on the drawing, from its top.
func height(v, scale float64) float64 {
	if scale <= 0 {
		return axisBottom
	}
	return round(axisBottom - (axisBottom-axisTop)*min(max(v, 0), scale)/scale)
}

func round(f float64) float64 { return math.Round(f*10) / 10 }

// nice is a round number of seconds that is at least top, and into how many parts
// it is divided. In minutes and hours, people count by sixties.
func nice(top float64) (scale float64, parts int) {
	unit := 1.0
	switch {
	case top <= 0 || math.IsInf(top, 0) || math.IsNaN(top):
		return 1, 1
	case top > 7200:
		unit = 3600
	case top > 60:
		unit = 60
	}
	power := math.Pow(10, math.Floor(math.Log10(top/unit)))
	for _, s := range []struct {
		value float64
		parts int
	}{{1, 2}, {2, 2}, {3, 3}, {4, 2}, {6, 3}, {8, 2}} {
		if at := s.value * power * unit; top <= at*(1+1e-9) {
			return at, s.parts
		}
	}
	return 10 * power * unit, 2
}
