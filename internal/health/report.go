// Package health proves that a component works: its unit runs, it answers that
// it is ready, it reports the version it should, it does what its definition
// asks of it, and it stays so for a while with the same process. Being alive is
// not taken for health, and what cannot be known is not taken for a failure.
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

// Verdict is the judgement on a component as a whole.
type Verdict string

// The verdicts. Inconclusive: nothing shows that it is broken, but something
// that would show it works could not be asked, as a dependency was away. It is
// no reason to roll back.
const (
	Healthy      Verdict = "healthy"
	Unhealthy    Verdict = "unhealthy"
	Inconclusive Verdict = "inconclusive"
)

// Check is one thing looked at.
type Check = component.Check

// Report is what was found on one component.
type Report struct {
	Name     string  `json:"name"`
	Instance string  `json:"instance,omitempty"`
	Healthy  bool    `json:"healthy"` // the verdict is not unhealthy
	Verdict  Verdict `json:"verdict"`
	Checks   []Check `json:"checks"`

	Version string    `json:"version,omitempty"` // as the running process reports it, when it does
	ReadyAt time.Time `json:"-"`                 // when it was first found ready
	PID     int       `json:"pid,omitempty"`
	Body    string    `json:"-"` // the last readiness answer, as evidence

	unsure []string // names of checks that could not be decided
}

func (r *Report) add(name string, st Status, format string, args ...any) {
	r.Checks = append(r.Checks, Check{Name: name, Status: st, Detail: fmt.Sprintf(format, args...)})
}

// Fail adds a check that failed, made by others than the prober.
func (r *Report) Fail(name, detail string) {
	r.add(name, Fail, "%s", detail)
	r.conclude()
}

// Warn adds a check that found something a person should know of, made by others
// than the prober.
func (r *Report) Warn(name, detail string) {
	r.add(name, Warn, "%s", detail)
	r.conclude()
}

// Doubt adds a check that could not be decided, made by others than the prober.
func (r *Report) Doubt(name, detail string) {
	r.doubt(name, "%s", detail)
	r.conclude()
}

// doubt adds a check that could not be decided.
func (r *Report) doubt(name, format string, args ...any) {
	r.add(name, Warn, format, args...)
	r.unsure = append(r.unsure, name)
}

// excuse turns failures of the named checks into warnings.
func (r *Report) excuse(names []string) {
	for i, c := range r.Checks {
		if c.Status == Fail && slices.Contains(names, c.Name) {
			r.Checks[i].Status, r.Checks[i].Detail = Warn, "as before the upgrade: "+c.Detail
		}
	}
}

// conclude derives the verdict: one failure is enough for unhealthy.
func (r *Report) conclude() {
	r.Healthy, r.Verdict = true, Healthy
	if len(r.unsure) > 0 {
		r.Verdict = Inconclusive
	}
	for _, c := range r.Checks {
		if c.Status == Fail {
			r.Healthy, r.Verdict = false, Unhealthy
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
