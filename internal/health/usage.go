package health

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/service"
)

// Limits of specification section 4 above which use is worth a warning.
const (
	defaultCPUPercent    = 90
	defaultMemoryPercent = 80
)

// usage is the use now; nil when it cannot be told.
func (p *Prober) usage(ctx context.Context, t Target) *service.Usage {
	if p.Services == nil {
		return nil
	}
	u, err := p.Services.Usage(ctx, t.Service)
	if err != nil {
		return nil
	}
	return &u
}

// checkUsage compares the use now with that of a moment ago. Both limits are of
// what the component may use, not of one processor: a server that works on many is
// not in need. It warns only: a busy program is not a broken one.
func (p *Prober) checkUsage(ctx context.Context, t Target, before *service.Usage, r *Report) {
	after := p.usage(ctx, t)
	if before == nil || after == nil || !after.At.After(before.At) {
		r.add("resources", Skipped, "the service manager does not account for them")
		return
	}
	limits := t.Spec.Health.Resources
	if limits.CPUPercent == 0 {
		limits.CPUPercent = defaultCPUPercent
	}
	if limits.MemoryPercent == 0 {
		limits.MemoryPercent = defaultMemoryPercent
	}
	over := after.At.Sub(before.At)
	processors := after.Processors
	if processors <= 0 {
		processors = float64(runtime.NumCPU())
	}
	busy := max(float64(after.CPU-before.CPU)/float64(over), 0)
	cpu := 100 * busy / processors
	text := fmt.Sprintf("CPU %.0f%% of %.3g processors, %.2g busy, over %s", cpu, processors, busy, over.Round(10*time.Millisecond))
	status := OK
	if cpu > limits.CPUPercent {
		status, text = Warn, text+fmt.Sprintf(", expected at most %g%%", limits.CPUPercent)
	}
	if after.Memory > 0 && after.MemoryLimit > 0 {
		mem := 100 * float64(after.Memory) / float64(after.MemoryLimit)
		text += fmt.Sprintf("; memory %.0f MiB, %.0f%% of %.0f MiB", mib(after.Memory), mem, mib(after.MemoryLimit))
		if mem > limits.MemoryPercent {
			status, text = Warn, text+fmt.Sprintf(", expected at most %g%%", limits.MemoryPercent)
		}
	}
	r.add("resources", status, "%s", text)
}

func mib(n uint64) float64 { return float64(n) / (1 << 20) }
