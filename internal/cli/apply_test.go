package cli

import (
	"strings"
	"testing"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
)

// What the next apply does after a rollback is said of a component once, however many
// instances it has.
func TestRollbackTellsOncePerComponent(t *testing.T) {
	from, to := component.MustParseVersion("1.1.0"), component.MustParseVersion("1.0.0")
	res := run.Result{Operation: run.Rollback, Status: run.StatusSuccess}
	for _, o := range []run.Outcome{{Name: "aa", Instance: "a"}, {Name: "aa", Instance: "b"}, {Name: "bb"}} {
		o.From, o.To, o.Status = from, to, run.RolledBack
		res.Components = append(res.Components, o)
	}
	var out strings.Builder
	if err := new(global).writeResult(&out, res); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"aa", "bb"} {
		if n := strings.Count(out.String(), "The next apply may upgrade "+name+" again, to 1.1.0 or newer; to stay at 1.0.0: observability-upgrade hold "+name+"@1.0.0 --reason=…\n"); n != 1 {
			t.Errorf("said %d times of %s:\n%s", n, name, out.String())
		}
	}
}
