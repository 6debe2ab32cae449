package plan

import (
	"strings"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

const day = 24 * time.Hour

// What unattended runs may do, and what runs by hand may do beyond it.
func TestPolicies(t *testing.T) {
	released := map[string]time.Time{
		"2.48.1": now.Add(-100 * day), "2.48.2": now.Add(-40 * day), "2.49.0": now.Add(-20 * day), "2.49.1": now.Add(-3 * day), "3.0.0": now.Add(-30 * day),
	}
	base := func() Input {
		in := input(comp("prometheus", component.RoleDatastore, "2.48.1", "3.0.0", "2.49.1", "2.49.0", "2.48.2", "2.48.1"))
		for i, r := range in.Installed[0].Releases {
			in.Installed[0].Releases[i].PublishedAt = released[r.Version.String()]
		}
		in.Auto = true
		return in
	}
	tests := []struct {
		name   string
		policy Policy
		change func(*Input)
		target string // "" for none
		hand   string // where a run by hand goes
		reason string
	}{
		{"none is given: patches only", Policy{}, nil, "2.48.2", "3.0.0", "3.0.0 is a major upgrade, beyond its policy patch_only"},
		{"patch_only", Policy{Level: PatchOnly}, nil, "2.48.2", "3.0.0", "beyond its policy patch_only"},
		{"minor", Policy{Level: MinorLevel}, nil, "2.49.1", "3.0.0", "beyond its policy minor"},
		{"any", Policy{Level: Any}, nil, "3.0.0", "3.0.0", ""},
		{"none", Policy{Level: None}, nil, "", "3.0.0", "unattended runs leave it alone"},
		{"newest that is old enough", Policy{Level: MinorLevel, MinReleaseAge: 7 * day}, nil, "2.49.0", "3.0.0", ""},
		{"none is old enough", Policy{Level: PatchOnly, MinReleaseAge: 90 * day}, nil, "", "3.0.0", "which it is on 2027-01-13"},
		{"a release without a date is not old enough", Policy{Level: PatchOnly, MinReleaseAge: 7 * day}, func(in *Input) {
			in.Installed[0].Releases[3].PublishedAt = time.Time{}
		}, "", "3.0.0", "2.48.2 has no release date"},
		{"installed version is old", Policy{Level: Any, MaxAge: 60 * day}, nil, "3.0.0", "3.0.0", ""},
		{"installed version is young", Policy{Level: Any, MaxAge: 200 * day}, nil, "", "3.0.0", "upgrades only versions older than 200 days"},
		{"installed version is not listed: older than the next", Policy{Level: Any, MaxAge: 30 * day}, func(in *Input) {
			in.Installed[0].Releases = in.Installed[0].Releases[:4]
		}, "3.0.0", "3.0.0", ""},
		{"installed version is not listed: not known to be old", Policy{Level: Any, MaxAge: 60 * day}, func(in *Input) {
			in.Installed[0].Releases = in.Installed[0].Releases[:4]
		}, "", "3.0.0", "the release date of 2.48.1 is not known"},
		{"channel", Policy{Level: Any, Channel: rng("2.49.x"), ChannelName: "lts"}, nil, "2.49.1", "3.0.0", "3.0.0 is not in its channel lts (2.49.x)"},
		{"pins bind both", Policy{Level: Any}, func(in *Input) {
			in.Pinned = []Pin{{Component: "prometheus", Range: rng("2.48.x"), Reason: "dashboards"}}
		}, "2.48.2", "2.48.2", "3.0.0 is outside its pin 2.48.x: dashboards"},
		{"a pin that ended", Policy{Level: Any}, func(in *Input) {
			in.Pinned = []Pin{{Component: "prometheus", Range: rng("2.48.x"), Until: now}}
		}, "3.0.0", "3.0.0", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := base()
			in.Policies = map[string]Policy{"prometheus": tt.policy}
			if tt.change != nil {
				tt.change(&in)
			}
			c := find(t, Check(in), "prometheus")
			if c.Target.String() != tt.target || !strings.Contains(c.Reason, tt.reason) {
				t.Errorf("goes to %q because %q, want %q because %q", c.Target, c.Reason, tt.target, tt.reason)
			}
			if tt.target == "" && c.Action != ActionHold {
				t.Errorf("action %s, want hold", c.Action)
			}
			in.Auto = false
			if c := find(t, Check(in), "prometheus"); c.Target.String() != tt.hand {
				t.Errorf("a run by hand goes to %q, want %q", c.Target, tt.hand)
			}
		})
	}
	in := base()
	in.DefaultPolicy = Policy{Level: MinorLevel}
	if c := find(t, Check(in), "prometheus"); c.Target.String() != "2.49.1" {
		t.Errorf("the default policy goes to %s", c.Target)
	}
	// A person who names a version is not bound by policies or pins.
	in.Pinned = []Pin{{Component: "prometheus", Range: rng("2.48.x")}}
	in.Pins = map[string]component.Version{"prometheus": ver("3.0.0")}
	if c := find(t, Check(in), "prometheus"); c.Target.String() != "3.0.0" {
		t.Errorf("the named version is not gone to: %+v", c)
	}
}
