package web

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/history"
	"github.com/observability-upgrade/observability-upgrade/internal/overview"
)

const (
	perPage = 25
	// maxPage bounds how far back one can leaf; filters lead further.
	maxPage = 4000
)

// historyPage lists past upgrades.
type historyPage struct {
	Filter     historyFilter
	Components []choice
	Statuses   []choice
	Rows       []upgradeRow
	Newer      string // address of the page of newer ones; "" where there is none
	Older      string
	Charts     []chartView
	More       int // components that have no chart for want of room
	Problems   []string
}

type choice struct {
	Value, Text string
	Chosen      bool
}

type upgradeRow struct {
	When      stamp
	Component string
	From, To  string
	Status    mark
	Took      string
	Down      string
	Trigger   string
	Run       string // address; "" where the run is not known
	Error     string
}

// historyFilter is what the address of the page asks for.
type historyFilter struct {
	Component, Status string
	Page              int // from 1
}

// parseFilter reads the query of an address.
func parseFilter(q url.Values) (historyFilter, error) {
	f := historyFilter{Component: q.Get("component"), Status: q.Get("status"), Page: 1}
	switch {
	case len(f.Component) > 200:
		return f, &statusError{http.StatusBadRequest, "That is no name of a component."}
	case f.Status != "" && !slices.Contains([]string{history.Success, history.Failed, history.RolledBack}, f.Status):
		return f, &statusError{http.StatusBadRequest, "The status is one of success, failed and rolled_back."}
	}
	if p := q.Get("page"); p != "" {
		n, err := strconv.Atoi(p)
		if err != nil || n < 1 || n > maxPage {
			return f, &statusError{http.StatusBadRequest, fmt.Sprintf("The page is a number from 1 to %d.", maxPage)}
		}
		f.Page = n
	}
	return f, nil
}

// rows narrows what is read of the history.
func (f historyFilter) rows(limit, offset int) history.Filter {
	out := history.Filter{Status: f.Status, Limit: limit, Offset: offset}
	if f.Component != "" {
		out.Components = []string{f.Component}
	}
	return out
}

// address leads to a page of the same filter.
func (f historyFilter) address(page int) string {
	q := url.Values{}
	if f.Component != "" {
		q.Set("component", f.Component)
	}
	if f.Status != "" {
		q.Set("status", f.Status)
	}
	if page > 1 {
		q.Set("page", strconv.Itoa(page))
	}
	if len(q) == 0 {
		return "/history"
	}
	return "/history?" + q.Encode()
}

func (h *Handler) history(r *http.Request) (view, error) {
	f, err := parseFilter(r.URL.Query())
	if err != nil {
		return view{}, err
	}
	o, err := h.o.Source.Overview(r.Context())
	if err != nil {
		return view{}, err
	}
	now := h.now()
	p := &historyPage{Filter: f}
	var rows, recent []history.Upgrade
	err = history.Look(r.Context(), h.o.Root.History(), func(db *history.DB) error {
		var err error
		rows, err = db.List(r.Context(), f.rows(perPage+1, (f.Page-1)*perPage))
		if err == nil {
			recent, err = db.List(r.Context(), f.rows(overview.RecentUpgrades, 0))
		}
		return err
	})
	if err != nil {
		return view{}, err
	}
	if f.Page > 1 {
		p.Newer = f.address(f.Page - 1)
	}
	if len(rows) > perPage {
		p.Older, rows = f.address(f.Page+1), rows[:perPage]
	}
	for _, u := range rows {
		p.Rows = append(p.Rows, newUpgradeRow(u, now))
	}
	p.choices(o)
	p.Charts, p.More = charts(recent, now)
	return view{Title: "History", Template: "history.html", Page: "history", Host: o.Host, Build: o.Build, Body: p}, nil
}

func newUpgradeRow(u history.Upgrade, now time.Time) upgradeRow {
	row := upgradeRow{
		When: stampOf(u.Timestamp, now), Component: u.Component, From: u.OldVersion, To: u.NewVersion, Status: statusMark(u.Status),
		Took: seconds(u.DurationSeconds), Down: seconds(u.DowntimeSeconds), Trigger: trigger(u.TriggeredBy), Error: u.ErrorMessage,
	}
	if u.RunID != "" {
		row.Run = "/runs/" + url.PathEscape(u.RunID)
	}
	return row
}

// choices are the components there are, or were, and the statuses.
func (p *historyPage) choices(o *overview.Overview) {
	var names []string
	for _, c := range o.Components {
		names = append(names, c.Name)
	}
	for _, u := range o.Upgrades {
		names = append(names, u.Component)
	}
	if p.Filter.Component != "" {
		names = append(names, p.Filter.Component)
	}
	slices.Sort(names)
	p.Components = []choice{{"", "All components", p.Filter.Component == ""}}
	for _, n := range slices.Compact(names) {
		p.Components = append(p.Components, choice{n, n, n == p.Filter.Component})
	}
	p.Statuses = []choice{{"", "All outcomes", p.Filter.Status == ""}}
	for _, s := range []string{history.Success, history.Failed, history.RolledBack} {
		p.Statuses = append(p.Statuses, choice{s, statusMark(s).Text, s == p.Filter.Status})
	}
}
