package systemd

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/service"
)

// Usage reads the accounting of the unit's control group: CPUUsageNSec,
// MemoryCurrent, MemoryMax and CPUQuotaPerSecUSec of org.freedesktop.systemd1(5),
// whose greatest value stands for "not known" and "no limit"; and of the group
// itself the working set, and the limits of the slices above it.
func (m *Manager) Usage(ctx context.Context, s service.Service) (service.Usage, error) {
	u, err := m.look(ctx, s.Unit)
	if err != nil {
		return service.Usage{}, err
	}
	if u.activeState() != "active" && u.activeState() != "activating" {
		return service.Usage{}, &service.NotRunningError{Unit: s.Label()}
	}
	cpu, ok := u.big("CPUUsageNSec")
	if !ok {
		return service.Usage{}, fmt.Errorf("systemd does not account for the processor time of %s (CPUAccounting=)", s.Label())
	}
	use := service.HostLimits()
	use.At, use.CPU = time.Now(), time.Duration(cpu) //nolint:gosec // 292 years
	var groups []service.Group
	if name := u.str("ControlGroup"); strings.Trim(name, "/") != "" { // the root group is never a unit's
		groups = service.NamedGroups(name)
	}
	if use.Memory = service.WorkingSet(groups); use.Memory == 0 {
		use.Memory, _ = u.big("MemoryCurrent")
	}
	if limit, ok := u.big("MemoryMax"); ok && limit < use.MemoryLimit {
		use.MemoryLimit = limit
	}
	if quota, ok := u.big("CPUQuotaPerSecUSec"); ok {
		use.Processors = min(use.Processors, float64(quota)/1e6)
	}
	use.Limit(groups)
	return use, nil
}

func (u unit) big(key string) (uint64, bool) {
	n, ok := u.props[key].(uint64)
	if !ok || n == math.MaxUint64 {
		return 0, false
	}
	return n, true
}
