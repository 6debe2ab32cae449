package plan

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// TestChoose looks at one component, prometheus, at 2.48.1.
func TestChoose(t *testing.T) {
	standard := []string{"3.0.0", "2.49.1", "2.49.0", "2.48.2", "2.48.1", "2.48.0"}
	tests := []struct {
		name     string
		releases []string
		change   func(*Input)
		action   Action
		target   string // "" when it stays
		reason   string // part of it
		behind   int
		kind     component.Bump
		latest   string
	}{
		{"newest", standard, nil, ActionUpgrade, "3.0.0", "", 4, component.BumpMajor, "3.0.0"},
		{"minor", standard, func(in *Input) { in.Target = Minor }, ActionUpgrade, "2.49.1", "3.0.0 is a major upgrade, beyond --target=minor", 4, component.BumpMajor, "3.0.0"},
		{"patch", standard, func(in *Input) { in.Target = Patch }, ActionUpgrade, "2.48.2", "3.0.0", 4, component.BumpMajor, "3.0.0"},
		{"line excludes all", []string{"3.0.0", "2.48.1"}, func(in *Input) { in.Target = Minor }, ActionHold, "", "beyond --target=minor", 1, component.BumpMajor, "3.0.0"},
		{"up to date", []string{"2.48.1", "2.48.0"}, nil, ActionSkip, "", "up to date", 0, component.BumpNone, "2.48.1"},
		{"ahead of upstream", []string{"2.48.0"}, nil, ActionSkip, "", "newer than upstream's newest release 2.48.0", 0, component.BumpNone, "2.48.0"},
		{"backport published later is not newer", []string{"2.45.9", "2.48.1"}, nil, ActionSkip, "", "up to date", 0, component.BumpNone, "2.48.1"},
		{"published out of order", []string{"2.48.2", "2.49.0", "2.48.1"}, nil, ActionUpgrade, "2.49.0", "", 2, component.BumpMinor, "2.49.0"},
		{"pre-release", []string{"2.50.0-rc.1", "2.48.1"}, nil, ActionSkip, "", "up to date", 0, component.BumpNone, "2.48.1"},
		{"no release", nil, nil, ActionSkip, "", "lists no stable release", 0, component.BumpUnknown, ""},
		{"upstream away", nil, func(in *Input) { in.Installed[0].Err = errors.New("dial tcp: refused") }, ActionSkip, "", "upstream could not be asked: dial tcp: refused", 0, component.BumpUnknown, ""},
		{"old answer kept", standard, func(in *Input) { in.Installed[0].Err = errors.New("refused; answer of yesterday") }, ActionUpgrade, "3.0.0", "", 4, component.BumpMajor, "3.0.0"},
		{"owned by a package", standard, func(in *Input) { in.Installed[0].Excluded = "belongs to the package prometheus" }, ActionSkip, "", "belongs to the package", 4, component.BumpMajor, "3.0.0"},
		{"package source", standard, func(in *Input) { in.Installed[0].Component.Source.Type = component.SourcePackage }, ActionSkip, "", "package manager", 4, component.BumpMajor, "3.0.0"},
		{"version unknown", standard, func(in *Input) { in.Installed[0].Current = component.Version{} }, ActionSkip, "", "not known", 0, component.BumpUnknown, "3.0.0"},
		{"other architecture only", standard, func(in *Input) { in.Arch = "arm64" }, ActionBlocked, "", "3.0.0 has no file prometheus-3.0.0.linux-arm64.tar.gz for linux/arm64", 4, component.BumpMajor, "3.0.0"},
		{"architecture not published", standard, func(in *Input) {
			in.Arch, in.Installed[0].Component.Arches = "riscv64", map[string]string{"amd64": "amd64"}
		}, ActionBlocked, "", "publishes nothing for linux/riscv64", 4, component.BumpMajor, "3.0.0"},
		{"newest still being uploaded", standard, func(in *Input) { in.Installed[0].Releases[0].Assets[0].Name = "source.tar.gz" }, ActionUpgrade, "2.49.1", "3.0.0 has no file", 4, component.BumpMajor, "3.0.0"},
		{"assets not listed", standard, func(in *Input) { in.Installed[0].Releases[0].Assets = nil }, ActionUpgrade, "3.0.0", "", 4, component.BumpMajor, "3.0.0"},
		{"by pattern", standard, func(in *Input) {
			in.Installed[0].Component.Asset = "{name}-{version}*{arch}.tar.gz"
		}, ActionUpgrade, "3.0.0", "", 4, component.BumpMajor, "3.0.0"},
		{"pattern of two", standard, func(in *Input) {
			in.Installed[0].Component.Asset = "{name}-{version}*{arch}.tar.gz"
			in.Installed[0].Releases[0].Assets = append(in.Installed[0].Releases[0].Assets, component.Asset{Name: "prometheus-3.0.0.darwin-amd64.tar.gz"})
		}, ActionUpgrade, "2.49.1", "3.0.0 has 2 files that match prometheus-3.0.0*amd64.tar.gz for linux/amd64", 4, component.BumpMajor, "3.0.0"},
		{"no longer published", standard, func(in *Input) {
			since, err := component.ParseRange(">=3.0.0")
			if err != nil {
				panic(err)
			}
			in.Installed[0].Component.Variants = []component.Variant{{Versions: since, Arches: map[string]string{"arm64": "arm64"}}}
		}, ActionUpgrade, "2.49.1", "prometheus 3.0.0: upstream publishes nothing for linux/amd64", 4, component.BumpMajor, "3.0.0"},
		{"blacklisted version", standard, func(in *Input) {
			in.Blacklist = []Blacklisted{{"prometheus", rng("3.0.0"), "Critical bug", "https://example.com/1"}}
		}, ActionUpgrade, "2.49.1", "3.0.0 is blacklisted: Critical bug (https://example.com/1)", 4, component.BumpMajor, "3.0.0"},
		{"blacklisted range", standard, func(in *Input) {
			in.Blacklist = []Blacklisted{{"prometheus", rng(">2.48.1"), "all bad", ""}}
		}, ActionBlocked, "", "3.0.0 is blacklisted: all bad", 4, component.BumpMajor, "3.0.0"},
		{"held", standard, func(in *Input) { in.Holds = []Hold{{Component: "prometheus", Reason: "freeze"}} }, ActionHold, "", "3.0.0 is on hold: freeze", 4, component.BumpMajor, "3.0.0"},
		{"held range", standard, func(in *Input) { in.Holds = []Hold{{Component: "prometheus", Range: rng(">=3.0.0")}} }, ActionUpgrade, "2.49.1", "3.0.0 is on hold", 4, component.BumpMajor, "3.0.0"},
		{"held until tomorrow", standard, func(in *Input) {
			in.Holds = []Hold{{Component: "prometheus", Until: now.Add(24 * time.Hour)}}
		}, ActionHold, "", "on hold until 2026-11-25", 4, component.BumpMajor, "3.0.0"},
		{"hold has ended", standard, func(in *Input) { in.Holds = []Hold{{Component: "prometheus", Until: now}} }, ActionUpgrade, "3.0.0", "", 4, component.BumpMajor, "3.0.0"},
		{"held at the newest", []string{"2.48.1"}, func(in *Input) { in.Holds = []Hold{{Component: "prometheus"}} }, ActionSkip, "", "up to date", 0, component.BumpNone, "2.48.1"},
		{"newest failed here", standard, func(in *Input) {
			in.Installed[0].Failed = []Failed{{Version: ver("3.0.0"), Reason: "not ready within 60s", At: time.Date(2026, 11, 23, 1, 0, 0, 0, time.UTC)}}
		}, ActionHold, "", "3.0.0 failed here on 2026-11-23: not ready within 60s; name it with --component=prometheus@3.0.0 to try again", 4, component.BumpMajor, "3.0.0"},
		{"older one failed", standard, func(in *Input) { in.Installed[0].Failed = []Failed{{Version: ver("2.49.1")}} }, ActionUpgrade, "3.0.0", "", 4, component.BumpMajor, "3.0.0"},
		{"newest blacklisted, next failed", standard, func(in *Input) {
			in.Blacklist = []Blacklisted{{"prometheus", rng("3.0.0"), "bad", ""}}
			in.Installed[0].Failed = []Failed{{Version: ver("2.49.1")}}
		}, ActionHold, "", "2.49.1 failed here", 4, component.BumpMajor, "3.0.0"},
		{"failure beyond the target does not count", standard, func(in *Input) {
			in.Target = Minor
			in.Installed[0].Failed = []Failed{{Version: ver("3.0.0")}}
		}, ActionUpgrade, "2.49.1", "", 4, component.BumpMajor, "3.0.0"},
		{"stepping stone", append([]string{"2.55.1", "2.55.0"}, standard...), func(in *Input) {
			in.Paths = []Path{{"prometheus", rng(">=3.0.0"), rng(">=2.55.0"), "index format", "https://example.com/p"}}
		}, ActionUpgrade, "3.0.0", "through 2.55.1: 3.0.0 needs prometheus >=2.55.0 first: index format (https://example.com/p)", 6, component.BumpMajor, "3.0.0"},
		{"stepping stone not published", []string{"3.0.0", "2.48.1"}, func(in *Input) {
			in.Paths = []Path{{"prometheus", rng(">=3.0.0"), rng(">=2.55.0"), "", ""}}
		}, ActionBlocked, "", "3.0.0 needs prometheus >=2.55.0 first; none of those can be installed from 2.48.1", 1, component.BumpMajor, "3.0.0"},
		{"stepping stone failed here", append([]string{"2.55.1", "2.55.0"}, standard...), func(in *Input) {
			in.Paths = []Path{{"prometheus", rng(">=3.0.0"), rng(">=2.55.0"), "", ""}}
			in.Installed[0].Failed = []Failed{{Version: ver("2.55.1")}}
		}, ActionHold, "", "2.55.1 failed here", 6, component.BumpMajor, "3.0.0"},
		{"two stones", []string{"4.0.0", "3.9.0", "3.0.0", "2.55.0", "2.48.1"}, func(in *Input) {
			in.Paths = []Path{{"prometheus", rng(">=4.0.0"), rng(">=3.9.0"), "", ""}, {"prometheus", rng(">=3.0.0"), rng(">=2.55.0"), "", ""}}
		}, ActionUpgrade, "4.0.0", "through 2.55.0, then 3.9.0: 4.0.0 needs prometheus >=3.9.0 first", 4, component.BumpMajor, "4.0.0"},
		{"jump over the range passes through it", []string{"4.0.0", "3.0.0", "2.55.0", "2.48.1"}, func(in *Input) {
			in.Paths = []Path{{"prometheus", rng("3.x"), rng(">=2.55.0"), "", ""}}
		}, ActionUpgrade, "4.0.0", "through 2.55.0: 4.0.0 needs", 3, component.BumpMajor, "4.0.0"},
		{"at the stone already", []string{"3.0.0", "2.48.1"}, func(in *Input) {
			in.Paths = []Path{{"prometheus", rng(">=3.0.0"), rng(">=2.48.0"), "", ""}}
		}, ActionUpgrade, "3.0.0", "", 1, component.BumpMajor, "3.0.0"},
		{"door without way back", []string{"3.0.0", "2.48.1"}, func(in *Input) {
			in.OneWay = []Edge{{"prometheus", rng("<3.0.0"), rng(">=3.0.0"), "no", "new format", ""}}
		}, ActionBlocked, "", "3.0.0 is a one-way upgrade: new format; there is no way back from it; --force", 1, component.BumpMajor, "3.0.0"},
		{"door needs a backup", []string{"3.0.0", "2.48.1"}, func(in *Input) {
			in.OneWay = []Edge{{"prometheus", rng("<3.0.0"), rng(">=3.0.0"), "with-backup", "", ""}}
		}, ActionBlocked, "", "needs a copy of its data", 1, component.BumpMajor, "3.0.0"},
		{"before the door", standard, func(in *Input) {
			in.OneWay = []Edge{{"prometheus", rng("<3.0.0"), rng(">=3.0.0"), "no", "", ""}}
		}, ActionUpgrade, "2.49.1", "3.0.0 is a one-way upgrade", 4, component.BumpMajor, "3.0.0"},
		{"door open both ways", []string{"3.0.0", "2.48.1"}, func(in *Input) {
			in.OneWay = []Edge{{"prometheus", rng("<3.0.0"), rng(">=3.0.0"), "yes", "", ""}}
		}, ActionUpgrade, "3.0.0", "", 1, component.BumpMajor, "3.0.0"},
		{"door forced", []string{"3.0.0", "2.48.1"}, func(in *Input) {
			in.Force = true
			in.OneWay = []Edge{{"prometheus", rng("<3.0.0"), rng(">=3.0.0"), "no", "", ""}}
		}, ActionUpgrade, "3.0.0", "", 1, component.BumpMajor, "3.0.0"},
		{"through the door already", []string{"2.49.0", "2.48.1"}, func(in *Input) {
			in.OneWay = []Edge{{"prometheus", rng("<2.48.0"), rng(">=2.48.0"), "no", "", ""}}
		}, ActionUpgrade, "2.49.0", "", 1, component.BumpMinor, "2.49.0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := input(comp("prometheus", component.RoleDatastore, "2.48.1", tt.releases...))
			if tt.change != nil {
				tt.change(&in)
			}
			c := find(t, Check(in), "prometheus")
			if c.Action != tt.action || c.Target.String() != tt.target || !strings.Contains(c.Reason, tt.reason) ||
				c.VersionsBehind != tt.behind || c.Type != tt.kind || c.Latest.String() != tt.latest {
				t.Errorf("got %+v\nwant action %s, target %q, reason with %q, %d behind, type %s, latest %q",
					c, tt.action, tt.target, tt.reason, tt.behind, tt.kind, tt.latest)
			}
			if c.Action != ActionUpgrade && c.Reason == "" {
				t.Error("no reason is given")
			}
			p := make1(t, in)
			if got := targets(p)["prometheus"]; got != tt.target {
				t.Errorf("the plan goes to %q, the check to %q", got, tt.target)
			}
			if held := tt.action == ActionHold || tt.action == ActionBlocked; held && (len(p.Held) != 1 || p.Held[0].Reason != c.Reason) {
				t.Errorf("held is %+v, want one with reason %q", p.Held, c.Reason)
			}
		})
	}
}

func TestReportErrors(t *testing.T) {
	a, b := comp("loki", component.RoleDatastore, "2.9.3"), comp("grafana", component.RoleUI, "10.0.0", "10.0.0")
	a.Err = errors.New("connection refused")
	in := input(a, b)
	r := Check(in)
	if len(r.Errors) != 1 || r.Errors[0] != (ComponentError{"loki", "connection refused"}) {
		t.Errorf("errors: %+v", r.Errors)
	}
	if !r.CheckedAt.Equal(now) || r.Components[0].Name != "grafana" || r.Updates() {
		t.Errorf("report: %+v", r)
	}
	in.Selected = []string{"grafanna"}
	if r := Check(in); len(r.Components) != 0 || !strings.Contains(r.Errors[0].Error, "did you mean grafana?") {
		t.Errorf("report: %+v", r)
	}
}

func TestPins(t *testing.T) {
	base := func() Input {
		in := input(comp("prometheus", component.RoleDatastore, "2.48.1", "2.50.0-rc.1", "2.49.1", "2.49.0", "2.48.1", "2.47.0"),
			comp("loki", component.RoleDatastore, "2.9.3", "2.9.4"))
		return in
	}
	tests := []struct {
		name, version string
		change        func(*Input)
		want          string
		err           string
	}{
		{"exactly that", "2.49.0", nil, "2.49.0", ""},
		{"pre-release by name", "2.50.0-rc.1", nil, "2.50.0-rc.1", ""},
		{"current", "2.48.1", nil, "", ""},
		{"unknown", "2.49.7", nil, "", "prometheus: upstream lists no version 2.49.7; the nearest are 2.50.0-rc.1, 2.49.1, 2.49.0, 2.48.1, 2.47.0"},
		{"older", "2.47.0", nil, "", "use `observability-upgrade rollback`"},
		{"older, forced", "2.47.0", func(in *Input) { in.Force = true }, "2.47.0", ""},
		{"failed before", "2.49.1", func(in *Input) { in.Installed[0].Failed = []Failed{{Version: ver("2.49.1")}} }, "2.49.1", ""},
		{"held", "2.49.1", func(in *Input) { in.Holds = []Hold{{Component: "prometheus"}} }, "2.49.1", ""},
		{"beyond the target", "2.49.1", func(in *Input) { in.Target = Patch }, "2.49.1", ""},
		{"blacklisted", "2.49.1", func(in *Input) { in.Blacklist = []Blacklisted{{"prometheus", rng("2.49.1"), "bad", ""}} }, "", "prometheus@2.49.1 cannot be installed: 2.49.1 is blacklisted: bad"},
		{"blacklisted, forced", "2.49.1", func(in *Input) {
			in.Force, in.Blacklist = true, []Blacklisted{{"prometheus", rng("2.49.1"), "bad", ""}}
		}, "2.49.1", ""},
		{"against the matrix", "2.49.1", func(in *Input) {
			in.Rules = []Rule{{"prometheus", rng("2.49.x"), "loki", rng(">=3.0.0"), ""}}
		}, "", "prometheus 2.49.1 needs loki >=3.0.0; loki is 2.9.3 and not selected"},
		{"against the matrix, forced", "2.49.1", func(in *Input) {
			in.Force, in.Rules = true, []Rule{{"prometheus", rng("2.49.x"), "loki", rng(">=3.0.0"), ""}}
		}, "2.49.1", ""},
		{"stone missing", "2.49.1", func(in *Input) { in.Paths = []Path{{"prometheus", rng(">=2.49.1"), rng("2.49.0"), "", ""}} }, "2.49.1", ""},
		{"stone blacklisted", "2.49.1", func(in *Input) {
			in.Paths = []Path{{"prometheus", rng(">=2.49.1"), rng("2.49.0"), "", ""}}
			in.Blacklist = []Blacklisted{{Component: "prometheus", Range: rng("2.49.0")}}
		}, "", "none of those can be installed"},
		{"no file for this system", "2.49.1", func(in *Input) { in.Arch, in.Force = "arm64", true }, "", "has no file"},
		{"not ours", "2.49.1", func(in *Input) { in.Installed[0].Excluded = "owned by dpkg" }, "", "owned by dpkg"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := base()
			in.Pins = map[string]component.Version{"prometheus": ver(tt.version)}
			if tt.change != nil {
				tt.change(&in)
			}
			p, err := Make(in)
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Fatalf("error %v, want %q", err, tt.err)
			}
			if p == nil {
				return
			}
			got := targets(p)
			if got["prometheus"] != tt.want || got["loki"] != "" {
				t.Errorf("steps %v, want prometheus to %q alone", got, tt.want)
			}
			if tt.want == "" && err != nil && (len(p.Held) != 1 || p.Held[0].Candidate.String() != tt.version) {
				t.Errorf("held: %+v", p.Held)
			}
		})
	}
}

func TestMistakes(t *testing.T) {
	in := specification()
	in.Pins = map[string]component.Version{"prometeus": ver("1.0.0")}
	_, err := Make(in)
	var unknown *UnknownComponentError
	if !errors.As(err, &unknown) || unknown.Suggestion != "prometheus" {
		t.Errorf("got %v", err)
	}
	in = specification()
	in.Selected = []string{"zzz"}
	if _, err = Make(in); !errors.As(err, &unknown) || unknown.Suggestion != "" || !strings.Contains(err.Error(), "alertmanager, loki") {
		t.Errorf("got %v", err)
	}
	in = specification()
	in.Target = "newest"
	if _, err = Make(in); err == nil || !strings.Contains(err.Error(), "want latest, minor or patch") {
		t.Errorf("got %v", err)
	}
	in = specification()
	in.Pins = map[string]component.Version{"prometheus": ver("2.49.7")}
	var version *UnknownVersionError
	if _, err = Make(in); !errors.As(err, &version) || version.Component != "prometheus" {
		t.Errorf("got %v", err)
	}
	in.Pins["prometheus"] = ver("2.48.0")
	var down *DowngradeError
	if _, err = Make(in); !errors.As(err, &down) {
		t.Errorf("got %v", err)
	}
	for _, s := range []string{"", "latest", "minor", "patch"} {
		if _, err := ParseTarget(s); err != nil {
			t.Errorf("ParseTarget(%q): %v", s, err)
		}
	}
}

func TestNearestVersions(t *testing.T) {
	c := comp("x", component.RoleUI, "", "9.0.0", "8.0.0", "7.0.0", "6.0.0", "5.0.0", "4.0.0", "3.0.0")
	for want, v := range map[string]string{
		"[9.0.0 8.0.0 7.0.0 6.0.0 5.0.0]": "99.0.0", "[7.0.0 6.0.0 5.0.0 4.0.0 3.0.0]": "1.0.0", "[8.0.0 7.0.0 6.0.0 5.0.0 4.0.0]": "5.5.0",
	} {
		got := nearestVersions(ver(v), c.Releases)
		names := make([]string, len(got))
		for i, g := range got {
			names[i] = g.String()
		}
		if s := "[" + strings.Join(names, " ") + "]"; s != want {
			t.Errorf("nearest to %s: %s, want %s", v, s, want)
		}
	}
	if got := nearestVersions(ver("1.0.0"), nil); got != nil {
		t.Errorf("got %v", got)
	}
}

// What is broken is held whatever is wanted; of an upstream that is away nobody knows
// what is newer, and what is at the newest version is counted.
func TestHeldAndUpToDate(t *testing.T) {
	broken := comp("alpha", component.RoleExporter, "", "1.1.0")
	broken.Amiss = "its version cannot be read: hello"
	away := comp("beta", component.RoleExporter, "1.0.0")
	away.Err = errors.New("dial tcp: refused")
	newest := comp("gamma", component.RoleExporter, "1.1.0", "1.1.0")
	waiting := comp("delta", component.RoleExporter, "1.0.0", "1.1.0")
	in := input(broken, away, newest, waiting)
	in.Holds = []Hold{{Component: "delta", Reason: "freeze"}}
	p, err := Make(in)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, h := range p.Held {
		got = append(got, h.Component+" "+h.Versions())
	}
	if want := "alpha -, beta 1.0.0, delta 1.0.0 → 1.1.0"; strings.Join(got, ", ") != want {
		t.Errorf("held: %s, want %s", strings.Join(got, ", "), want)
	}
	if !p.Held[1].Candidate.IsZero() {
		t.Errorf("candidate of an unknown upstream: %s", p.Held[1].Candidate)
	}
	if strings.Join(p.UpToDate, ", ") != "gamma" {
		t.Errorf("up to date: %v", p.UpToDate)
	}
	if c := Check(in).Components[0]; c.Action != ActionBlocked || c.Reason != broken.Amiss {
		t.Errorf("%+v", c)
	}
}
