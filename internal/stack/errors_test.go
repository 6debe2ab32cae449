package stack

import (
	"testing"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/plan"
)

// A refusal tells every check that failed, and its hint is the first command.
func TestRefusalTellsEveryFailure(t *testing.T) {
	p := &Proposal{Plan: &plan.Plan{Checks: []component.Check{
		{Name: "disk_space", Status: component.CheckFail, Detail: "/var: expected 2 GB free, found 1 GB", Next: "df -h /var"},
		{Name: "lock", Status: component.CheckOK},
		{Name: "service_health", Component: "loki", Status: component.CheckFail, Detail: "expected it healthy, found it down"},
	}}}
	err := p.Refusal(false)
	want := `pre-flight: 2 failed, and nothing was touched:
  disk_space: /var: expected 2 GB free, found 1 GB; next: df -h /var
  loki: service_health: expected it healthy, found it down`
	if err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
	if refused, ok := err.(*RefusedError); !ok || refused.Next != "df -h /var" { //nolint:errorlint // it is not wrapped
		t.Errorf("got %#v", err)
	}
	p.Plan.Checks = p.Plan.Checks[1:2]
	if err := p.Refusal(false); err != nil {
		t.Error(err)
	}
}
