package e2e

import (
	"strings"
	"testing"
	"time"
)

const stones = `
paths:
  prometheus: [{to: ">=3.0.0", from: ">=2.53.0", reason: "the nearest of its long-term lines that these packages hold"}]
compatibility:
  prometheus:
    ">=3.0.0": {alertmanager: ">=0.28.0"}
`

type planDoc struct {
	Phases []struct {
		Name  string
		Steps []struct{ Component, From, To, Reason string }
	}
	Held []struct{ Component, Candidate, Reason string }
}

func (p planDoc) steps() []string {
	var out []string
	for _, ph := range p.Phases {
		for _, s := range ph.Steps {
			out = append(out, s.Component+" "+line(s.From)+" "+line(s.To))
		}
	}
	return out
}

// line is the first two parts of a version.
func line(v string) string {
	parts := strings.SplitN(v, ".", 3)
	return strings.Join(parts[:min(2, len(parts))], ".")
}

// From 2.42 to 3.5 the plan leads through a stepping stone, and Alertmanager,
// which the matrix asks for, comes in between. While Alertmanager is on hold the
// plan stops short and says why. All of it is one run, and one rollback.
func TestSteppingStone(t *testing.T) {
	t.Parallel()
	h := newHost(t, old, map[string][]string{"prometheus": {"2.53", "3.5"}, "alertmanager": {"0.28"}})
	h.file("/etc/observability/compatibility-matrix.yaml", stones+"\n")
	const policyFile = "/etc/observability/upgrade-policy.yaml"
	policy := h.MustRun(h.ctx, "cat", policyFile)
	h.file(policyFile, policy+"holds: [{component: alertmanager, reason: audit}]\n")
	h.upgrade(0, "adopt", "--yes")

	var plan planDoc
	h.document(&plan, 0, "plan")
	if got := strings.Join(plan.steps(), "; "); got != "prometheus 2.42 2.53" {
		t.Fatalf("with Alertmanager on hold: %s", got)
	}
	text := h.upgrade(0, "plan").Stdout
	for _, want := range []string{"needs alertmanager >=0.28.0", "alertmanager is 0.25.0", "on hold"} {
		if !strings.Contains(strings.Join(strings.Fields(text), " "), want) {
			t.Errorf("the plan does not say %q:\n%s", want, text)
		}
	}

	h.file(policyFile, policy)
	h.document(&plan, 0, "plan")
	if got := strings.Join(plan.steps(), "; "); got != "prometheus 2.42 2.53; alertmanager 0.25 0.28; prometheus 2.53 3.5" {
		t.Fatalf("without the hold: %s", got)
	}
	h.waitSamples()
	at := time.Now().Add(-2 * time.Second)
	const past = "sum(count_over_time(up[5m]))"
	before := h.query(past, at)
	if before == "" {
		t.Fatal("no samples before the upgrade")
	}
	var res result
	h.document(&res, 0, "apply", "--yes")
	if res.Status != "success" || len(res.Components) != 3 {
		t.Fatalf("%+v", res)
	}
	if got := h.agrees("prometheus"); line(got) != "3.5" {
		t.Fatalf("Prometheus is at %s", got)
	}
	if after := h.query(past, at); after != before {
		t.Fatalf("samples of before: %s then, %s now", before, after)
	}
	h.document(&res, 0, "apply", "--yes")
	if res.Status != "nothing_to_do" {
		t.Fatalf("second apply: %+v", res)
	}

	h.document(&res, 0, "rollback", "--previous", "--yes")
	if res.Status != "success" || len(res.Components) != 2 {
		t.Fatalf("rollback: %+v", res)
	}
	for name, want := range map[string]string{"prometheus": "2.42", "alertmanager": "0.25"} {
		if got := h.agrees(name); line(got) != want {
			t.Errorf("%s is at %s after the rollback, want %s", name, got, want)
		}
	}
	if after := h.query(past, at); after != before {
		t.Fatalf("samples after the rollback: %s then, %s now", before, after)
	}
	var hist historyDoc
	h.document(&hist, 0, "history")
	if len(hist.Upgrades) != 3 {
		t.Fatalf("history: %+v", hist)
	}
	for _, u := range hist.Upgrades {
		if u.Status != "rolled_back" {
			t.Errorf("history of %s: %s", u.Component, u.Status)
		}
	}
}
