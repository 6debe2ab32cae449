// Package health proves that a component works: its unit runs, it answers that
// it is ready, it reports the version it should, and it stays so for a while
// with the same process. Being alive is not taken for health.
package health

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// Status is the outcome of one check.
type Status = component.CheckStatus

// The outcomes of a check.
const (
	OK      = component.CheckOK
	Warn    = component.CheckWarn
	Fail    = component.CheckFail
	Skipped = component.CheckSkipped
)

// Check is one thing looked at.
type Check = component.Check

// Report is what was found on one component.
type Report struct {
	Name    string  `json:"name"`
	Healthy bool    `json:"healthy"`
	Checks  []Check `json:"checks"`

	Version string    `json:"version,omitempty"` // as the running process reports it, when it does
	ReadyAt time.Time `json:"-"`                 // when it was first found ready
	PID     int       `json:"pid,omitempty"`
	Body    string    `json:"-"` // the last readiness answer, as evidence
}

func (r *Report) add(name string, st Status, format string, args ...any) {
	r.Checks = append(r.Checks, Check{Name: name, Status: st, Detail: fmt.Sprintf(format, args...)})
}

// excuse turns failures of the named checks into warnings.
func (r *Report) excuse(names []string) {
	for i, c := range r.Checks {
		if c.Status == Fail && slices.Contains(names, c.Name) {
			r.Checks[i].Status, r.Checks[i].Detail = Warn, "as before the upgrade: "+c.Detail
		}
	}
}

// conclude derives Healthy: no check failed.
func (r *Report) conclude() {
	r.Healthy = true
	for _, c := range r.Checks {
		if c.Status == Fail {
			r.Healthy = false
		}
	}
}

// Failures joins the details of the failed checks into one line.
func (r Report) Failures() string {
	var parts []string
	for _, c := range r.Checks {
		if c.Status == Fail {
			parts = append(parts, c.Name+": "+c.Detail)
		}
	}
	return strings.Join(parts, "; ")
}
