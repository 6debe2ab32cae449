package plan

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// vulnerable makes the installed version have vulnerabilities, each fixed from a
// version on: "GO-1<2.48.2".
func vulnerable(inst Installed, fixes ...string) Installed {
	s := Security{State: SecurityAffected, Releases: map[string]ReleaseSecurity{}}
	for _, f := range fixes {
		id, fixed, _ := strings.Cut(f, "<")
		s.Found = append(s.Found, Vulnerability{ID: id, FixedIn: fixed, Summary: "what " + id + " is about", Severity: "high", Source: "component", Aliases: []string{"CVE-" + id}})
		for _, r := range inst.Releases {
			if fixed != "" && !r.Version.Less(ver(fixed)) {
				known := s.Releases[r.Version.String()]
				known.State, known.Fixes = SecurityNone, append(known.Fixes, id)
				s.Releases[r.Version.String()] = known
			}
		}
	}
	inst.Security = s
	return inst
}

// What a known vulnerability lifts for unattended runs, and what it does not.
func TestSecurityLifts(t *testing.T) {
	releases := []string{"3.0.0", "2.55.0", "2.49.1", "2.49.0", "2.48.2", "2.48.1"}
	base := func(fixes ...string) Input {
		in := input(vulnerable(comp("prometheus", component.RoleDatastore, "2.48.1", releases...), fixes...))
		in.Auto = true
		in.Policies = map[string]Policy{"prometheus": {Level: PatchOnly, Security: "any"}}
		return in
	}
	policy := func(in *Input, change func(*Policy)) {
		p := in.Policies["prometheus"]
		change(&p)
		in.Policies["prometheus"] = p
	}
	for _, tt := range []struct {
		name   string
		fixes  []string
		change func(*Input)
		target string // "" for none
		reason string
	}{
		{"a patch fixes it: nothing is lifted", []string{"GO-1<2.48.2"}, nil, "2.48.2", "3.0.0 is a major upgrade, beyond its policy patch_only"},
		{"a minor release fixes it", []string{"GO-1<2.49.1"}, nil, "2.55.0", "security: fixes GO-1, though 2.55.0 is a minor upgrade, beyond its policy patch_only"},
		{"only a major release fixes it", []string{"GO-1<3.0.0"}, nil, "3.0.0", "security: fixes GO-1, though 3.0.0 is a major upgrade, beyond its policy patch_only"},
		{"the smallest step that fixes most", []string{"GO-1<2.48.2", "GO-2<2.49.0", "GO-3<2.55.0"}, nil, "2.55.0", "security: fixes GO-2, GO-3, though"},
		{"nothing fixes it", []string{"GO-1"}, nil, "2.48.2", "beyond its policy"},
		{"not asked for", []string{"GO-1<2.49.1"}, func(in *Input) { policy(in, func(p *Policy) { p.Security = "" }) }, "2.48.2", "beyond its policy"},
		{"not in this component", []string{"GO-1<2.49.1"}, func(in *Input) { policy(in, func(p *Policy) { p.Security = "none" }) }, "2.48.2", "beyond its policy"},
		{"policy none", []string{"GO-1<2.48.2"}, func(in *Input) { policy(in, func(p *Policy) { p.Level = None }) }, "2.48.2", "security: fixes GO-1, though its policy is none"},
		{"on hold", []string{"GO-1<2.48.2"}, func(in *Input) { in.Holds = []Hold{{Component: "prometheus", Reason: "freeze"}} }, "2.48.2", "security: fixes GO-1, though 2.48.2 is on hold: freeze"},
		{"on hold, and nothing fixes it", []string{"GO-1"}, func(in *Input) { in.Holds = []Hold{{Component: "prometheus", Reason: "freeze"}} }, "", "3.0.0 is on hold: freeze"},
		{"released today", []string{"GO-1<2.48.2"}, func(in *Input) {
			for i := range in.Installed[0].Releases {
				in.Installed[0].Releases[i].PublishedAt = now.Add(-time.Hour)
			}
			policy(in, func(p *Policy) { p.MinReleaseAge = 7 * day })
		}, "2.48.2", "security: fixes GO-1, though 2.48.2 was released on"},
		{"the installed version is young", []string{"GO-1<2.48.2"}, func(in *Input) {
			for i := range in.Installed[0].Releases {
				in.Installed[0].Releases[i].PublishedAt = now.Add(-10 * day)
			}
			policy(in, func(p *Policy) { p.MaxAge = 60 * day })
		}, "2.48.2", "security: fixes GO-1, though 2.48.1 was released on"},
		{"a pin stays", []string{"GO-1<2.49.0"}, func(in *Input) { in.Pinned = []Pin{{Component: "prometheus", Range: rng("2.48.x")}} }, "2.48.2", "outside its pin"},
		{"the blacklist stays", []string{"GO-1<2.49.0"}, func(in *Input) { in.Blacklist = []Blacklisted{{Component: "prometheus", Range: rng(">=2.49.0")}} }, "2.48.2", "blacklisted"},
		{"of the releases that fix it one is blacklisted", []string{"GO-1<2.49.0"}, func(in *Input) { in.Blacklist = []Blacklisted{{Component: "prometheus", Range: rng("2.55.0")}} }, "2.49.1", "security: fixes GO-1"},
		{"what failed here stays", []string{"GO-1<2.55.0"}, func(in *Input) { in.Installed[0].Failed = []Failed{{Version: ver("2.55.0")}} }, "3.0.0", "security: fixes GO-1"},
		{"an older one is no way around a failure", []string{"GO-1<2.49.0"}, func(in *Input) {
			in.Installed[0].Failed = []Failed{{Version: ver("3.0.0")}, {Version: ver("2.55.0")}}
		}, "2.48.2", "beyond its policy"},
		{"a door stays shut", []string{"GO-1<3.0.0"}, func(in *Input) {
			in.OneWay = []Edge{{"prometheus", rng("<3.0.0"), rng(">=3.0.0"), "no", "no way back", ""}}
		}, "2.48.2", "no way back"},
		{"through a stepping stone", []string{"GO-1<3.0.0"}, func(in *Input) {
			in.Paths = []Path{{Component: "prometheus", To: rng(">=3.0.0"), From: rng(">=2.55.0")}}
		}, "3.0.0", "through 2.55.0"},
		{"the channel stays", []string{"GO-1<2.49.0"}, func(in *Input) { policy(in, func(p *Policy) { p.Channel, p.ChannelName = rng("2.48.x"), "lts" }) }, "2.48.2", ""},
		{"the target stays", []string{"GO-1<2.49.0"}, func(in *Input) { in.Target = Patch }, "2.48.2", ""},
		{"the matrix stays", []string{"GO-1<3.0.0"}, func(in *Input) {
			in.Installed = append(in.Installed, comp("alertmanager", component.RoleAlerting, "0.25.0", "0.25.0"))
			in.Rules = []Rule{{"prometheus", rng(">=3.0.0"), "alertmanager", rng(">=0.27.0"), ""}}
		}, "2.48.2", "alertmanager is 0.25.0, and upstream has nothing newer"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := base(tt.fixes...)
			if tt.change != nil {
				tt.change(&in)
			}
			c := find(t, Check(in), "prometheus")
			if c.Target.String() != tt.target || !strings.Contains(c.Reason, tt.reason) {
				t.Errorf("goes to %q because %q, want %q because %q", c.Target, c.Reason, tt.target, tt.reason)
			}
			if got := targets(make1(t, in))["prometheus"]; got != tt.target {
				t.Errorf("the plan goes to %q", got)
			}
			// By hand holds bind as ever.
			in.Auto = false
			in.Holds = []Hold{{Component: "prometheus", Reason: "freeze"}}
			if c := find(t, Check(in), "prometheus"); !c.Target.IsZero() {
				t.Errorf("a run by hand goes to %s", c.Target)
			}
		})
	}
}

// What fixes a vulnerability comes first, with what must go before it, within what
// dependencies and rules allow.
func TestUrgentFirst(t *testing.T) {
	exporter := comp("node_exporter", component.RoleExporter, "1.0.0", "1.1.0")
	store := vulnerable(comp("loki", component.RoleDatastore, "1.0.0", "1.1.0"), "GO-1<1.1.0")
	ui := comp("grafana", component.RoleUI, "1.0.0", "1.1.0")
	alerting := comp("alertmanager", component.RoleAlerting, "1.0.0", "1.1.0")
	order := func(in Input) string {
		var names []string
		for _, s := range make1(t, in).Steps() {
			names = append(names, s.Component)
		}
		return strings.Join(names, " ")
	}
	if got := order(input(exporter, ui, alerting, store)); got != "loki node_exporter alertmanager grafana" {
		t.Error(got)
	}
	on := store
	on.Component = &component.Component{Name: "loki", Role: component.RoleDatastore, Source: store.Component.Source, Asset: store.Component.Asset, DependsOn: []string{"grafana"}}
	if got := order(input(exporter, ui, alerting, on)); got != "grafana loki node_exporter alertmanager" {
		t.Error(got)
	}
	in := input(exporter, ui, alerting, store)
	in.Rules = []Rule{{"loki", rng("1.1.x"), "alertmanager", rng(">=1.1.0"), ""}}
	if got := order(in); got != "alertmanager loki node_exporter grafana" {
		t.Error(got)
	}
	// What is known of what it was built from does not tell that a release mends it.
	built := store
	built.Security.Found = []Vulnerability{{ID: "GO-1", Source: "dependency"}}
	built.Security.Releases = nil
	if got := order(input(exporter, built)); got != "node_exporter loki" {
		t.Error(got)
	}
	p := make1(t, input(exporter, store))
	if s := p.Steps()[0]; !slices.Equal(s.Fixes, []string{"GO-1"}) || p.Steps()[1].Fixes != nil {
		t.Errorf("%+v", p.Steps())
	}
}

// What check says of vulnerabilities, and what it does not know.
func TestCheckVulnerabilities(t *testing.T) {
	store := vulnerable(comp("loki", component.RoleDatastore, "1.0.0", "1.1.0", "1.0.0"), "GO-1<1.1.0", "GO-2")
	store.Security.Reason = "the database is old"
	offered := store.Security.Releases["1.1.0"]
	offered.State, offered.Found = SecurityAffected, []Vulnerability{{ID: "GO-2"}}
	store.Security.Releases["1.1.0"] = offered
	safe := comp("grafana", component.RoleUI, "1.0.0", "1.0.0")
	safe.Security.State = SecurityNone
	dark := comp("tempo", component.RoleDatastore, "1.0.0", "1.0.0")
	dark.Security = Security{State: SecurityUnknown, Reason: "no records"}
	r := Check(input(store, safe, dark, comp("nobody", component.RoleUI, "1.0.0")))
	c := find(t, r, "loki")
	if c.Vulnerable == nil || !*c.Vulnerable || len(c.Vulnerabilities) != 2 || !slices.Equal(c.Fixes, []string{"GO-1"}) || c.OfferedState != SecurityAffected || len(c.Offered) != 1 || c.VulnerableReason != "the database is old" {
		t.Errorf("%+v", c)
	}
	if c := find(t, r, "grafana"); c.Vulnerable == nil || *c.Vulnerable || c.Vulnerabilities == nil {
		t.Errorf("%+v", c)
	}
	for _, name := range []string{"tempo", "nobody"} {
		if c := find(t, r, name); c.Vulnerable != nil {
			t.Errorf("%+v", c)
		}
	}
}

// genVulnerable adds vulnerabilities to what is installed, and policies.
func genVulnerable(t *rapid.T, in Input) Input {
	for i := range in.Installed {
		inst := in.Installed[i]
		var fixes []string
		for n := range rapid.IntRange(0, 3).Draw(t, "vulnerabilities") {
			f := fmt.Sprintf("GO-%d<", n)
			if rapid.IntRange(0, 3).Draw(t, "has a fix") > 0 {
				f += genVersion(t)
			}
			fixes = append(fixes, f)
		}
		if len(fixes) > 0 {
			in.Installed[i] = vulnerable(inst, fixes...)
		}
	}
	in.Auto = true
	in.DefaultPolicy = Policy{Level: rapid.SampledFrom([]Level{PatchOnly, MinorLevel, Any, None}).Draw(t, "level")}
	in.Policies = map[string]Policy{}
	for _, i := range in.Installed {
		if rapid.Bool().Draw(t, "own policy") {
			in.Policies[i.Component.Name] = Policy{Level: rapid.SampledFrom([]Level{PatchOnly, MinorLevel, Any, None}).Draw(t, "own level")}
		}
	}
	for range rapid.IntRange(0, 1).Draw(t, "pins") {
		in.Pinned = append(in.Pinned, Pin{Component: rapid.SampledFrom(names).Draw(t, "pinned"), Range: genRange(t)})
	}
	return in
}

// lifting is the input with security: any for all.
func lifting(in Input) Input {
	in.DefaultPolicy.Security = "any"
	policies := map[string]Policy{}
	for n, p := range in.Policies {
		p.Security = "any"
		policies[n] = p
	}
	in.Policies = policies
	return in
}

// overlooked is the input without what is known of vulnerabilities.
func overlooked(in Input) Input {
	in.Installed = slices.Clone(in.Installed)
	for i := range in.Installed {
		in.Installed[i].Security = Security{}
	}
	return in
}

// TestSecurityProperties: vulnerabilities that nobody asked to be urgent change no
// target; those that are go nowhere that anything but policies and holds bars, and
// only where that fixes something that could not be fixed otherwise.
func TestSecurityProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := genVulnerable(t, genInput(t))
		plain, err := Make(in)
		if err != nil {
			t.Fatal(err)
		}
		without, err := Make(overlooked(in))
		if err != nil {
			t.Fatal(err)
		}
		if a, b := fmt.Sprint(targets(plain)), fmt.Sprint(targets(without)); a != b {
			t.Errorf("vulnerabilities change what is gone to: %s, without them %s", a, b)
		}
		asked := lifting(in)
		p, err := Make(asked)
		if err != nil {
			t.Fatal(err)
		}
		permuted(t, asked, p, Check(asked))
		first, at := map[string]component.Version{}, map[string]component.Version{}
		for _, i := range in.Installed {
			first[i.Component.Name], at[i.Component.Name] = i.Current, i.Current
		}
		bound := asked
		bound.Holds = nil // what barred judges, but for holds
		for _, s := range p.Steps() {
			if why := barred(bound, s.Component, s.From, s.To); why != "" {
				t.Errorf("%s %s -> %s: %s", s.Component, s.From, s.To, why)
			}
			for _, pin := range in.Pinned {
				if pin.Component == s.Component && !pin.Range.Contains(s.To) {
					t.Errorf("%s -> %s: outside its pin %s", s.Component, s.To, pin.Range)
				}
			}
			for _, i := range in.Installed {
				if i.Component.Name == s.Component && slices.ContainsFunc(i.Failed, func(f Failed) bool { return f.Version.Equal(s.To) }) {
					t.Errorf("%s -> %s: it failed here", s.Component, s.To)
				}
			}
			at[s.Component] = s.To
			if r, ok := breaks(in, first, at); ok {
				t.Errorf("after %s is at %s: %s %s is broken", s.Component, s.To, r.Component, r.Other)
			}
		}
		for _, i := range in.Installed {
			name := i.Component.Name
			to := at[name]
			if to.Equal(first[name]) || permittedTo(in, i, to) {
				continue
			}
			c := find2(Check(asked), name)
			if len(c.Fixes) == 0 || !strings.Contains(c.Reason, "security: fixes ") {
				t.Errorf("%s goes to %s against its policy and fixes %v, because %q", name, to, c.Fixes, c.Reason)
			}
		}
	})
}

// permittedTo reports whether an unattended run may go to a version without a
// vulnerability.
func permittedTo(in Input, i Installed, v component.Version) bool {
	p := in.policy(i.Component.Name)
	bump := component.BumpBetween(i.Current, v)
	if p.Level == None || p.Level == PatchOnly && bump != component.BumpPatch || p.Level == MinorLevel && bump == component.BumpMajor {
		return false
	}
	return !slices.ContainsFunc(in.Holds, func(h Hold) bool { return h.Component == i.Component.Name && h.Range.Contains(v) })
}

// TestUrgentProperty: where nothing ties components together, all that fix something
// come before all that do not; where dependencies do, only those are before that an
// urgent one depends on.
func TestUrgentProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := genVulnerable(t, genInput(t))
		in.Auto, in.Rules = false, nil
		p, err := Make(in)
		if err != nil {
			t.Fatal(err)
		}
		steps := p.Steps()
		urgent := map[string]bool{}
		for _, s := range steps {
			if c := find2(Check(in), s.Component); len(c.Fixes) > 0 {
				urgent[s.Component] = true
			}
		}
		needed := map[string]bool{}
		var need func(name string)
		need = func(name string) {
			for _, i := range in.Installed {
				if i.Component.Name == name && !needed[name] {
					needed[name] = true
					for _, d := range i.Component.DependsOn {
						need(d)
					}
				}
			}
		}
		for n := range urgent {
			need(n)
		}
		last := -1
		for k, s := range steps {
			if urgent[s.Component] {
				last = k
			}
		}
		for k, s := range steps {
			if k < last && !needed[s.Component] {
				t.Errorf("%s comes before %s, which is urgent and does not need it: %v", s.Component, steps[last].Component, steps)
			}
		}
	})
}
