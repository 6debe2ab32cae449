package plan

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

var names = []string{"prometheus", "loki", "promtail", "alertmanager", "grafana", "node_exporter", "nginx"}

func genVersion(t *rapid.T) string {
	return fmt.Sprintf("%d.%d.%d", rapid.IntRange(1, 3).Draw(t, "major"), rapid.IntRange(0, 3).Draw(t, "minor"), rapid.IntRange(0, 2).Draw(t, "patch"))
}

func genRange(t *rapid.T) Range {
	v := genVersion(t)
	switch rapid.IntRange(0, 4).Draw(t, "range") {
	case 0:
		return rng(v)
	case 1:
		return rng(">=" + v)
	case 2:
		return rng("<" + v)
	case 3:
		return rng(fmt.Sprintf("%d.x", rapid.IntRange(1, 3).Draw(t, "x")))
	}
	return rng("~" + v)
}

func genInput(t *rapid.T) Input {
	var in Input
	name := rapid.SampledFrom(names)
	some := func(label string, most int, f func()) {
		for range rapid.IntRange(0, most).Draw(t, label) {
			f()
		}
	}
	used := rapid.SliceOfNDistinct(name, 1, len(names), rapid.ID).Draw(t, "installed")
	for i, n := range used {
		current := ""
		if rapid.IntRange(0, 9).Draw(t, "known") > 0 {
			current = genVersion(t)
		}
		var releases []string
		some("releases", 8, func() {
			if v := genVersion(t); !slices.Contains(releases, v) {
				releases = append(releases, v)
			}
		})
		inst := comp(n, rapid.SampledFrom(component.Roles()).Draw(t, "role"), current, releases...)
		for j := range inst.Releases {
			inst.Releases[j].PublishedAt = time.Time{}
		}
		some("failed", 1, func() { inst.Failed = append(inst.Failed, Failed{Version: ver(genVersion(t))}) })
		if rapid.IntRange(0, 9).Draw(t, "excluded") == 0 {
			inst.Excluded = "not ours"
		}
		if i > 0 { // no circles: only on those before
			some("depends", 2, func() {
				inst.Component.DependsOn = append(inst.Component.DependsOn, rapid.SampledFrom(used[:i]).Draw(t, "on"))
			})
		}
		in.Installed = append(in.Installed, inst)
	}
	some("rules", 8, func() {
		in.Rules = append(in.Rules, Rule{name.Draw(t, "component"), genRange(t), name.Draw(t, "other"), genRange(t), ""})
	})
	some("holds", 2, func() { in.Holds = append(in.Holds, Hold{Component: name.Draw(t, "held"), Range: genRange(t)}) })
	some("blacklist", 2, func() {
		in.Blacklist = append(in.Blacklist, Blacklisted{Component: name.Draw(t, "black"), Range: genRange(t)})
	})
	some("paths", 3, func() {
		in.Paths = append(in.Paths, Path{Component: name.Draw(t, "path"), To: genRange(t), From: genRange(t)})
	})
	some("doors", 2, func() {
		in.OneWay = append(in.OneWay, Edge{Component: name.Draw(t, "door"), From: genRange(t), To: genRange(t), Reversible: "no"})
	})
	in.Target = rapid.SampledFrom([]Target{"", Latest, Minor, Patch}).Draw(t, "target")
	in.Now, in.OS, in.Arch = now, "linux", "amd64"
	return in
}

func TestProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := genInput(t)
		p, err := Make(in)
		if err != nil {
			t.Fatalf("Make: %v", err)
		}
		rel := map[string]component.Version{}
		deps := map[string][]string{}
		first := map[string]component.Version{}
		for _, i := range in.Installed {
			rel[i.Component.Name], first[i.Component.Name] = i.Current, i.Current
			deps[i.Component.Name] = i.Component.DependsOn
		}
		final := map[string]component.Version{}
		for _, s := range p.Steps() {
			final[s.Component] = s.To
		}
		for _, s := range p.Steps() {
			if !s.From.Less(s.To) || !s.From.Equal(rel[s.Component]) {
				t.Errorf("%s goes from %s to %s", s.Component, s.From, s.To)
			}
			if why := barred(in, s.Component, s.From, s.To); why != "" {
				t.Errorf("%s %s -> %s: %s", s.Component, s.From, s.To, why)
			}
			for _, d := range deps[s.Component] {
				told := slices.ContainsFunc(p.Warnings, func(w string) bool { return strings.HasPrefix(w, s.Component+" goes before "+d+",") })
				if goal, planned := final[d]; planned && !rel[d].Equal(goal) && !told {
					t.Errorf("%s runs before %s, which it depends on", s.Component, d)
				}
			}
			rel[s.Component] = s.To
			if r, ok := breaks(in, first, rel); ok {
				t.Errorf("after %s is at %s, %s %s with %s %s breaks %s needs %s", s.Component, s.To,
					r.Component, rel[r.Component], r.Other, rel[r.Other], r.When, r.Needs)
			}
		}
		after, at := rel, final
		report := Check(in)
		for _, c := range report.Components {
			if _, planned := at[c.Name]; planned != (c.Action == ActionUpgrade) || planned && !c.Target.Equal(after[c.Name]) {
				t.Errorf("check and plan differ on %s: %+v", c.Name, c)
			}
			if c.Action != ActionUpgrade && c.Reason == "" {
				t.Errorf("%s stays without a reason", c.Name)
			}
		}
		settled(t, in, after)
		permuted(t, in, p, report)
	})
}

// settled plans again from where the plan led: nothing is left to do.
func settled(t *rapid.T, in Input, after map[string]component.Version) {
	in.Installed = slices.Clone(in.Installed)
	for i := range in.Installed {
		in.Installed[i].Current = after[in.Installed[i].Component.Name]
	}
	again, err := Make(in)
	if err != nil {
		t.Fatalf("Make again: %v", err)
	}
	for _, s := range again.Steps() {
		t.Errorf("a second plan goes on: %s %s → %s", s.Component, s.From, s.To)
	}
}

// permuted compares the answers with those to the same input in another order.
func permuted(t *rapid.T, in Input, p *Plan, report CheckReport) {
	r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
	in.Installed, in.Rules, in.Holds = shuffled(r, in.Installed), shuffled(r, in.Rules), shuffled(r, in.Holds)
	in.Blacklist, in.Paths, in.OneWay = shuffled(r, in.Blacklist), shuffled(r, in.Paths), shuffled(r, in.OneWay)
	for i := range in.Installed {
		in.Installed[i].Releases = shuffled(r, in.Installed[i].Releases)
		in.Installed[i].Failed = shuffled(r, in.Installed[i].Failed)
	}
	q, err := Make(in)
	if err != nil {
		t.Fatalf("Make: %v", err)
	}
	if a, b := document(t, p), document(t, q); a != b {
		t.Errorf("the order of the input changes the plan:\n%s\n%s", a, b)
	}
	if a, b := document(t, report), document(t, Check(in)); a != b {
		t.Errorf("the order of the input changes the report:\n%s\n%s", a, b)
	}
}

func shuffled[T any](r *rand.Rand, list []T) []T {
	out := slices.Clone(list)
	r.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

func document(t *rapid.T, v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestPinProperties: a named version is taken exactly, or refused.
func TestPinProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := genInput(t)
		c := rapid.SampledFrom(in.Installed).Draw(t, "pinned")
		v := ver(genVersion(t))
		in.Pins = map[string]component.Version{c.Component.Name: v}
		in.Force = rapid.Bool().Draw(t, "force")
		p, err := Make(in)
		var refused *PinRefusedError
		if p == nil {
			if err == nil || errors.As(err, &refused) {
				t.Fatalf("no plan, and %v", err)
			}
			return
		}
		steps := p.Steps()
		switch {
		case err != nil:
			if !errors.As(err, &refused) || len(steps) != 0 {
				t.Errorf("error %v with steps %v", err, steps)
			}
		case c.Current.Equal(v):
			if len(steps) != 0 {
				t.Errorf("steps %v to the version in place", steps)
			}
		case len(steps) == 0 || !steps[len(steps)-1].To.Equal(v):
			t.Errorf("steps %v, want %s to %s", steps, c.Component.Name, v)
		}
	})
}
