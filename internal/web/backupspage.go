package web

import (
	"maps"
	"net/http"
	"regexp"
	"slices"

	"github.com/observability-upgrade/observability-upgrade/internal/plan"
)

// stampName is the form of the names of backup points and runs.
var stampName = regexp.MustCompile(`^\d{8}_\d{6}(_\d+)?$`)

// backupsPage lists the backup points.
type backupsPage struct {
	Rows     []backupRow
	Total    string
	Problems []string
}

type backupRow struct {
	Name       string
	Taken      stamp
	Complete   mark
	Size       string
	Components []string
	Path       string
	Command    string // that goes back to it
}

func (h *Handler) backups(r *http.Request) (view, error) {
	o, err := h.o.Source.Overview(r.Context())
	if err != nil {
		return view{}, err
	}
	now := h.now()
	p := &backupsPage{}
	var total int64
	for _, b := range o.Backups {
		total += b.Bytes
		row := backupRow{
			Name: b.Timestamp, Taken: stampOf(backupTime(b.Timestamp), now), Complete: mark{"ok", "Complete"}, Size: plan.Bytes(b.Bytes), Path: b.Path,
			Command: "observability-upgrade rollback --to=" + b.Timestamp,
		}
		if !b.Complete {
			row.Complete, row.Command = mark{"bad", "Not complete"}, ""
		}
		if !stampName.MatchString(b.Timestamp) {
			row.Command = "" // nobody is led to type what is not a name of ours
		}
		for _, name := range slices.Sorted(maps.Keys(b.Components)) {
			row.Components = append(row.Components, name+" "+b.Components[name])
		}
		p.Rows = append(p.Rows, row)
	}
	if len(p.Rows) > 0 {
		p.Total = plural(len(p.Rows), "backup point", "backup points") + ", " + plan.Bytes(total)
	}
	return view{Title: "Backups", Template: "backups.html", Page: "backups", Host: o.Host, Build: o.Build, Body: p}, nil
}
