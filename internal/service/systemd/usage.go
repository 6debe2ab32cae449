package systemd

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/service"
)

// Usage reads the accounting of the unit's control group: CPUUsageNSec,
// MemoryCurrent and MemoryMax of org.freedesktop.systemd1(5). Their greatest
// value stands for "not known" and "no limit".
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
	use := service.Usage{At: time.Now(), CPU: time.Duration(cpu), MemoryLimit: service.HostMemory()}
	use.Memory, _ = u.big("MemoryCurrent")
	if limit, ok := u.big("MemoryMax"); ok && limit < use.MemoryLimit {
		use.MemoryLimit = limit
	}
	return use, nil
}

func (u unit) big(key string) (uint64, bool) {
	n, ok := u.props[key].(uint64)
	if !ok || n == math.MaxUint64 {
		return 0, false
	}
	return n, true
}
