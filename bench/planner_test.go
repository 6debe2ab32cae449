// Package bench holds the benchmarks of what has a speed to keep.
package bench

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/config"
	"github.com/observability-upgrade/observability-upgrade/internal/plan"
)

func within(b *testing.B, text string) plan.Range {
	b.Helper()
	r, err := config.ParseRange(text)
	if err != nil {
		b.Fatal(err)
	}
	return r
}

// stack is an installation whose every component is tied by rules to ten others,
// has two stepping stones, and of which every tenth is on hold half-way.
func stack(b *testing.B, components, releases int) plan.Input {
	in := plan.Input{Now: time.Date(2026, 11, 24, 2, 0, 0, 0, time.UTC), OS: "linux", Arch: "amd64"}
	for i := range components {
		name := fmt.Sprintf("c%03d", i)
		c := &component.Component{
			Name: name, Role: component.Roles()[i%6], Asset: "{name}-{version}.tar.gz",
			Source: component.Source{Type: component.SourceGitHub, Repo: "example/" + name},
		}
		inst := plan.Installed{Component: c, Current: component.MustParseVersion("1.0.0")}
		for j := releases; j > 0; j-- {
			v := component.MustParseVersion(fmt.Sprintf("%d.%d.%d", 1+j*4/(releases+1), j*40/(releases+1)%10, j%4))
			inst.Releases = append(inst.Releases, component.Release{
				Version: v, Tag: "v" + v.String(), Assets: []component.Asset{{Name: name + "-" + v.String() + ".tar.gz", Size: 1}},
			})
		}
		in.Installed = append(in.Installed, inst)
		for k := 1; k <= 10; k++ {
			other := fmt.Sprintf("c%03d", (i+k*7)%components)
			for major := 2; major <= 4; major++ {
				in.Rules = append(in.Rules, plan.Rule{
					Component: name, When: within(b, fmt.Sprintf("%d.x", major)), Other: other, Needs: within(b, fmt.Sprintf(">=%d.%d.0", major-1, k%10)),
				})
			}
		}
		in.Paths = append(in.Paths,
			plan.Path{Component: name, To: within(b, ">=3.0.0"), From: within(b, ">=2.5.0")},
			plan.Path{Component: name, To: within(b, ">=4.0.0"), From: within(b, ">=3.2.0")})
		if i%10 == 0 {
			in.Holds = append(in.Holds, plan.Hold{Component: name, Range: within(b, fmt.Sprintf(">=%d.5.0", 1+i/10%4)), Reason: "bench"})
		}
	}
	return in
}

// dense is stack with its rules in the form of docs/specification.md, section 8:
// for each line of releases of each component ("2.49.x") a rule for each of ten
// others, which must not be more than a major version behind.
func dense(b *testing.B, components, releases int) plan.Input {
	in := stack(b, components, releases)
	in.Rules = nil
	for i, inst := range in.Installed {
		seen := map[string]bool{}
		for _, r := range inst.Releases {
			line := fmt.Sprintf("%d.%d.x", r.Version.Major(), r.Version.Minor())
			if seen[line] || r.Version.Major() < 2 {
				continue
			}
			seen[line] = true
			for k := 1; k <= 10; k++ {
				in.Rules = append(in.Rules, plan.Rule{
					Component: inst.Component.Name, When: within(b, line), Other: fmt.Sprintf("c%03d", (i+k*7)%components),
					Needs: within(b, fmt.Sprintf(">=%d.%d.0", r.Version.Major()-1, r.Version.Minor())),
				})
			}
		}
	}
	return in
}

// BenchmarkPlan plans stacks of growing size; steps is the length of the plan.
func BenchmarkPlan(b *testing.B) {
	for _, size := range [][2]int{{20, 50}, {60, 100}, {120, 100}, {250, 150}, {500, 200}} {
		b.Run(fmt.Sprintf("%dx%d", size[0], size[1]), func(b *testing.B) { run(b, stack(b, size[0], size[1])) })
	}
}

// BenchmarkPlanDense is BenchmarkPlan with a rule for every line and pair.
func BenchmarkPlanDense(b *testing.B) {
	for _, size := range [][2]int{{60, 50}, {60, 100}} {
		b.Run(fmt.Sprintf("%dx%d", size[0], size[1]), func(b *testing.B) { run(b, dense(b, size[0], size[1])) })
	}
}

func run(b *testing.B, in plan.Input) {
	b.ReportAllocs()
	steps, began := 0, spent(b)
	for b.Loop() {
		p, err := plan.Make(in)
		if err != nil {
			b.Fatal(err)
		}
		steps = len(p.Steps())
	}
	if steps == 0 {
		b.Fatal("nothing was planned")
	}
	b.ReportMetric(float64(steps), "steps")
	b.ReportMetric(float64(len(in.Rules)), "rules")
	b.ReportMetric(float64((spent(b)-began).Microseconds())/1000/float64(b.N), "cpu-ms/op")
}

// spent is the processor time of this process so far: what a plan costs, also
// where the machine has other things to do.
func spent(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
