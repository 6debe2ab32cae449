package web

import (
	"fmt"
	"math"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/history"
)

func TestHistoryPages(t *testing.T) {
	h := newHost(t)
	_, address := h.serve(h.options())
	rows := func(d *document) []string {
		var out []string
		for _, tr := range all(d.all("tbody")[0], "tr") {
			out = append(out, text(all(tr, "th")[0])+" "+text(all(tr, "td")[2]))
		}
		return out
	}
	seen := 0
	link, page := "/history", 0
	for link != "" && page < 10 {
		page++
		d := get(t, address+link)
		seen += len(rows(d))
		link = ""
		for _, a := range d.all("a") {
			if attr(a, "rel") == "next" {
				link = attr(a, "href")
			}
		}
		d.says(fmt.Sprintf("Page %d", page))
	}
	if page != 2 || seen != 37 {
		t.Errorf("%d upgrades on %d pages", seen, page)
	}
	d := get(t, address+"/history?component=grafana&status=failed")
	if got := rows(d); len(got) != 1 || got[0] != "grafana ✕ Failed config check: unknown key [auth.jwt] enabled" {
		t.Errorf("%q", got)
	}
	for _, o := range d.all("option") {
		if has(o, "selected") != (attr(o, "value") == "grafana" || attr(o, "value") == "failed") {
			t.Errorf("%v", o.Attr)
		}
	}
	if d := get(t, address+"/history?component=nobody"); d.code != 200 || len(d.all("figure")) != 0 {
		t.Errorf("%d", d.code)
	} else {
		d.says("No upgrade is recorded that fits the filter", "nobody")
	}
	if d := get(t, address+"/history?page=4000"); d.code != 200 {
		t.Errorf("%d", d.code)
	}
}

func TestCharts(t *testing.T) {
	h := newHost(t)
	_, address := h.serve(h.options())
	d := get(t, address+"/history")
	var names []string
	for _, f := range d.all("figure") {
		names = append(names, text(all(all(f, "figcaption")[0], "strong")[0]))
		drawings := all(f, "svg")
		if len(drawings) != 2 {
			t.Fatalf("%d drawings", len(drawings))
		}
		rows := len(all(all(f, "tbody")[0], "tr"))
		for _, svg := range drawings {
			bars := 0
			for _, r := range all(svg, "rect") {
				if strings.HasPrefix(attr(r, "class"), "bar") {
					bars++
					if title := text(all(r, "title")[0]); !strings.Contains(title, " → ") {
						t.Errorf("a bar is named %q", title)
					}
				}
			}
			if bars != rows {
				t.Errorf("%s: %d bars, %d rows in the table", names[len(names)-1], bars, rows)
			}
		}
	}
	if got := strings.Join(names, " "); got != "alertmanager grafana loki node_exporter prometheus" {
		t.Error(got)
	}
	d.says("Down time of loki", "1 upgrade from", "The longest took 38 s, the mean is 38 s, the last one took 38 s and rolled back")
}

func TestPanel(t *testing.T) {
	row := func(took float64, status string) history.Upgrade {
		return history.Upgrade{Timestamp: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Component: "a", OldVersion: "1", NewVersion: "2", Status: status, DurationSeconds: took}
	}
	took := func(u history.Upgrade) float64 { return u.DurationSeconds }
	p := newPanel("x", "t", []history.Upgrade{row(0, history.Success), row(30, history.Failed), row(60, history.RolledBack)}, took)
	if len(p.Bars) != 3 || p.Bars[0].H != 1 || p.Bars[2].Y != axisTop || p.Bars[2].H != axisBottom-axisTop {
		t.Errorf("%+v", p.Bars)
	}
	if p.Bars[0].Sign != "" || p.Bars[1].Sign != "✕" || p.Bars[2].Sign != "!" {
		t.Errorf("%+v", p.Bars)
	}
	if last := p.Ticks[len(p.Ticks)-1]; last.Label != "60 s" || last.Y != axisTop {
		t.Errorf("%+v", p.Ticks)
	}
	var many []history.Upgrade
	for range maxBars {
		many = append(many, row(1, history.Success))
	}
	for _, b := range newPanel("x", "t", many, took).Bars {
		if b.X < axisLeft || b.X+b.W > chartWidth || b.W < 4 {
			t.Errorf("%+v", b)
		}
	}
	if p := newPanel("x", "t", []history.Upgrade{row(0, history.Success)}, took); !p.Empty || p.Bars[0].H != 1 {
		t.Errorf("%+v", p)
	}
}

// So many components are drawn, so many upgrades of each, and the rest is told.
func TestChartsAreBounded(t *testing.T) {
	var rows []history.Upgrade
	for i := range 20 {
		for range 40 {
			rows = append(rows, history.Upgrade{Component: fmt.Sprintf("c%02d", i), DurationSeconds: 1, Status: history.Success})
		}
	}
	out, more := charts(rows, time.Now())
	if len(out) != maxCharts || more != 20-maxCharts {
		t.Errorf("%d drawn, %d left out", len(out), more)
	}
	for _, c := range out {
		if len(c.Rows) != maxBars {
			t.Errorf("%s: %d", c.Component, len(c.Rows))
		}
	}
}

func TestNice(t *testing.T) {
	for top, want := range map[float64]string{0: "1.0 s", 0.03: "30 ms", 0.31: "0.40 s", 1: "1.0 s", 4.5: "6.0 s", 9: "10 s", 55: "60 s", 61: "2 min 00 s", 130: "3 min 00 s", 3600: "60 min 00 s", 7300: "3 h 00 min"} {
		scale, parts := nice(top)
		if got := seconds(scale); got != want || scale < top || parts < 1 {
			t.Errorf("%v: %s in %d parts, want %s", top, got, parts, want)
		}
	}
	for top := 0.001; top < 1e7; top *= 1.37 {
		if scale, _ := nice(top); scale < top || scale > 3*top {
			t.Errorf("%v: %v", top, scale)
		}
	}
	if scale, _ := nice(math.Inf(1)); scale != 1 {
		t.Error(scale)
	}
}

func TestTexts(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "just now", 3 * time.Second: "3 s ago", -3 * time.Second: "in 3 s", 90 * time.Second: "1 min ago", 119 * time.Minute: "1 h ago", 47 * time.Hour: "47 h ago", 49 * time.Hour: "2 days ago", -80 * time.Hour: "in 3 days",
	} {
		if got := ago(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
	for s, want := range map[float64]string{
		0: "0 s", 0.0004: "1 ms", 0.003: "3 ms", 0.099: "99 ms", 0.21: "0.21 s", 5.2: "5.2 s", 44.4: "44 s", 119: "119 s", 125: "2 min 05 s", 7199: "119 min 59 s", 9000: "2 h 30 min", -1: "–", math.NaN(): "–", math.Inf(1): "–",
	} {
		if got := seconds(s); got != want {
			t.Errorf("%v: %q, want %q", s, got, want)
		}
	}
	for name, want := range map[string]bool{"20261125_120000": true, "20261125_120000_2": true, "": false, "x": false, "99999999_999999": false} {
		if got := !backupTime(name).IsZero(); got != want {
			t.Errorf("%q is a time: %v", name, got)
		}
	}
	for address, want := range map[string]string{"https://example.org/x": "https://example.org/x", "javascript:alert(1)": "", "//example.org": "", "ftp://x/y": "", "https:///x": "", "": "", "\x00": ""} {
		if got := webAddress(address); got != want {
			t.Errorf("%q: %q", address, got)
		}
	}
}

func FuzzParseFilter(f *testing.F) {
	for _, q := range []string{"", "component=a&status=failed&page=2", "page=-1", "status=%00", "page=99999999999999999999", "component=%22%3E"} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, query string) {
		q, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		got, err := parseFilter(q)
		if err != nil {
			return
		}
		if got.Page < 1 || got.Page > maxPage {
			t.Errorf("%q: page %d", query, got.Page)
		}
		// The address of a page leads to what it says.
		u, err := url.Parse(got.address(got.Page))
		if err != nil {
			t.Fatal(err)
		}
		back, err := parseFilter(u.Query())
		if err != nil || back != got {
			t.Errorf("%q: %+v by way of %s is %+v, %v", query, got, u, back, err)
		}
	})
}
