package plan

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// WritePlan writes a plan as text, in the form of docs/specification.md, section 10.
// Phases without steps come last, as phases are numbered as they run.
func WritePlan(w io.Writer, p *Plan, st Style) error {
	pg := &page{Style: st}
	pg.title("Upgrade Plan:")
	pg.line("")
	if len(p.Phases) == 0 {
		pg.line("Nothing to upgrade.")
		pg.line("")
	} else {
		for _, ph := range p.AllPhases() {
			pg.phase(ph)
		}
		pg.line("Total estimated duration: %s", duration(p.EstimatedSeconds))
		pg.line("Total download size: %s", p.downloadText())
		pg.line("")
	}
	pg.heldList(p.Held)
	if len(p.Warnings) > 0 {
		pg.line("Warnings:")
		for _, t := range p.Warnings {
			pg.wrapped("  ! ", "    ", yellow, t)
		}
		pg.line("")
	}
	pg.checks(p.Checks)
	if p.BackupPath != "" && len(p.Phases) > 0 {
		pg.line("Backups will be created at: %s", plain(p.BackupPath))
	}
	_, err := io.WriteString(w, strings.TrimRight(pg.String(), "\n")+"\n")
	return err
}

func (p *page) phase(ph Phase) {
	p.line("%s (%s estimated)", p.paint(bold, fmt.Sprintf("Phase %d: %s", ph.Number, ph.Name)), clock(ph.EstimatedSeconds))
	if len(ph.Steps) == 0 {
		p.line("  - %s", p.paint(faint, "(no upgrades)"))
	}
	for _, s := range ph.Steps {
		p.line("  - %s: %s → %s", s.Component, s.From, p.paint(green, s.To.String()))
		if len(s.Instances) > 0 {
			p.wrapped("      ", "      ", "", "one instance at a time: "+strings.Join(s.Instances, ", "))
		}
		if len(s.Fixes) > 0 {
			p.wrapped("      ", "      ", red, "fixes "+strings.Join(s.Fixes, ", "))
		}
		if s.Reason != "" {
			p.wrapped("      ", "      ", "", s.Reason)
		}
		if s.Reversible == "no" || s.Reversible == "with-backup" {
			p.wrapped("      ", "      ", yellow, map[string]string{
				"no":          "There is no way back from this version.",
				"with-backup": "The way back needs a backup of its data.",
			}[s.Reversible])
		}
		if s.NotesURL != "" {
			p.line("      %s", p.paint(faint, plain(s.NotesURL)))
		}
	}
	p.line("")
}

func (p *page) heldList(held []Held) {
	if len(held) == 0 {
		return
	}
	p.line("Held back:")
	for _, h := range held {
		p.line("  - %s: %s", h.Component, p.paint(yellow, h.Versions()))
		p.wrapped("      ", "      ", "", h.Reason)
	}
	p.line("")
}

// checkTitles are the checks as people read them; names without one are printed
// as they are.
var checkTitles = map[string]string{
	"disk_space":         "Sufficient disk space",
	"service_health":     "All services healthy",
	"compatibility":      "Compatibility verified",
	"config_syntax":      "Configuration valid",
	"backup_readiness":   "Backup directory ready",
	"network":            "Upstream reachable",
	"lock":               "No other run in progress",
	"maintenance_window": "Maintenance window",
	"inodes":             "Sufficient inodes",
	"file_system":        "File systems writable",
	"staging":            "Staging directory ours",
	"binary_writable":    "Binaries replaceable",
	"unit_file":          "Units in order",
	"history_readable":   "History readable",
	"clock":              "Clock plausible",
	"alert_gate":         "No blocking alerts",
	"data_backup":        "Data can be kept",
	"signature":          "Signatures in place",
}

// checks writes one line per check. What is not well follows it, component by
// component; what is says no more.
func (p *page) checks(list []component.Check) {
	if len(list) == 0 {
		return
	}
	p.line("Pre-upgrade checks:")
	for len(list) > 0 {
		n := 1
		for n < len(list) && list[n].Name == list[0].Name {
			n++
		}
		p.checkGroup(list[:n])
		list = list[n:]
	}
	p.line("")
}

// checkGroup writes the results of one check.
func (p *page) checkGroup(group []component.Check) {
	title := checkTitles[group[0].Name]
	if title == "" {
		title = group[0].Name
	}
	worst := group[0].Status
	for _, c := range group {
		if severity(c.Status) > severity(worst) {
			worst = c.Status
		}
	}
	var told []component.Check
	for _, c := range group {
		if c.Status != component.CheckOK && (c.Status != component.CheckSkipped || worst == component.CheckSkipped) {
			told = append(told, c)
		}
	}
	mark := "  " + p.mark(worst) + " "
	switch {
	case len(told) == 0:
		// A window is worth its times: docs/specification.md, section 10.
		if detail := group[0].Detail; group[0].Name == "maintenance_window" && detail != "" {
			title += ": OK (" + detail + ")"
		}
		p.wrapped(mark, "    ", "", title)
	case len(told) == 1:
		if told[0].Component != "" {
			title += " (" + told[0].Component + ")"
		}
		p.wrapped(mark, "    ", "", title+": "+checkDetail(told[0]))
	case worst == component.CheckSkipped && slices.IndexFunc(told, func(c component.Check) bool { return c.Detail != told[0].Detail }) < 0:
		p.wrapped(mark, "    ", "", title+": "+checkDetail(told[0]))
	default:
		p.wrapped(mark, "    ", "", title)
		for _, c := range told {
			text := checkDetail(c)
			if c.Component != "" {
				text = c.Component + ": " + text
			}
			p.wrapped("    "+p.mark(c.Status)+" ", "      ", "", text)
		}
	}
}

func checkDetail(c component.Check) string {
	if c.Next == "" {
		return c.Detail
	}
	return c.Detail + "; next: " + c.Next
}

// severity orders statuses; one nobody knows is the worst.
func severity(s component.CheckStatus) int {
	switch s {
	case component.CheckSkipped:
		return 0
	case component.CheckOK:
		return 1
	case component.CheckWarn:
		return 2
	case component.CheckFail:
		return 3
	}
	return 4
}

func (p *page) mark(s component.CheckStatus) string {
	switch s {
	case component.CheckOK:
		return p.paint(green, "✓")
	case component.CheckWarn:
		return p.paint(yellow, "!")
	case component.CheckFail:
		return p.paint(red, "✗")
	case component.CheckSkipped:
		return p.paint(faint, "-")
	}
	return p.paint(red, "?")
}

// downloadText admits what upstream does not state.
func (p *Plan) downloadText() string {
	unknown, known := 0, 0
	for _, s := range p.Steps() {
		if s.DownloadBytes == 0 {
			unknown++
		} else {
			known++
		}
	}
	switch {
	case known == 0:
		return "not stated by upstream"
	case unknown > 0:
		return "at least " + Bytes(p.DownloadBytes)
	}
	return Bytes(p.DownloadBytes)
}

// RollbackRow is one component of a rollback.
type RollbackRow struct {
	Component       string
	Current, Target component.Version
	Note            string // may be empty
}

// WriteRollback writes a rollback plan as text, in the form of docs/specification.md,
// sections 1 and 3. backup is the timestamp of the backup point.
func WriteRollback(w io.Writer, backup string, rows []RollbackRow, st Style) error {
	p := &page{Style: st}
	p.title("Rollback Plan:")
	p.line("Backup: %s", plain(backup))
	p.line("")
	if len(rows) == 0 {
		p.line("Nothing to roll back: everything is as the backup has it.")
		return p.flush(w)
	}
	var cells [][]string
	for _, r := range rows {
		cells = append(cells, []string{r.Component, orDash(r.Current.String()), orDash(r.Target.String()), rollbackAction(r)})
	}
	p.table([]string{"Component", "Current", "Target", "Action"}, cells, nil)
	for _, r := range rows {
		if r.Note != "" {
			p.wrapped("  ! ", "    ", yellow, r.Component+": "+r.Note)
		}
	}
	return p.flush(w)
}

func rollbackAction(r RollbackRow) string {
	switch {
	case r.Current.IsZero() || r.Target.IsZero() || r.Current.Equal(r.Target):
		return "Restore"
	case r.Current.Less(r.Target):
		return "Upgrade"
	}
	return "Downgrade"
}

// clock writes seconds as M:SS, or H:MM:SS.
func clock(seconds int) string {
	if seconds >= 3600 {
		return fmt.Sprintf("%d:%02d:%02d", seconds/3600, seconds/60%60, seconds%60)
	}
	return fmt.Sprintf("%d:%02d", seconds/60, seconds%60)
}

// duration writes seconds in words, minutes rounded up.
func duration(seconds int) string {
	switch {
	case seconds < 60:
		return count(seconds, "second")
	case seconds <= 3600-60:
		return count((seconds+59)/60, "minute")
	}
	minutes := (seconds + 59) / 60
	s := count(minutes/60, "hour")
	if m := minutes % 60; m > 0 {
		s += " " + count(m, "minute")
	}
	return s
}

// Bytes writes a number of bytes in decimal units, as download pages do.
func Bytes(n int64) string {
	const kb, mb, gb = 1e3, 1e6, 1e9
	f := float64(n)
	switch {
	case f >= gb:
		return fmt.Sprintf("%.1f GB", f/gb)
	case f >= mb:
		return fmt.Sprintf("%.0f MB", f/mb)
	case f >= kb:
		return fmt.Sprintf("%.0f kB", f/kb)
	}
	return fmt.Sprintf("%d bytes", n)
}
