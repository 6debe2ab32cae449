package process

import (
	"context"
	"os"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/service"
)

// ticksPerSecond is the unit of proc_pid_stat(5)'s times, USER_HZ, which Linux
// fixes at 100 on every platform we build for.
const ticksPerSecond = 100

// Usage adds up what the service's processes use; processes that ended do not
// count. It may use what their control group may, such as a container's.
func (m *Manager) Usage(ctx context.Context, s service.Service) (service.Usage, error) {
	if err := ctx.Err(); err != nil {
		return service.Usage{}, err
	}
	r, err := m.find(s.Name)
	if err != nil {
		return service.Usage{}, err
	}
	if r.PID == 0 {
		return service.Usage{}, &service.NotRunningError{Unit: s.Label()}
	}
	procs, err := members(r.PID, r.Token, nil)
	if err != nil {
		return service.Usage{}, err
	}
	u := service.HostLimits()
	u.At = time.Now()
	u.Limit(service.GroupsOf(r.PID))
	for _, p := range procs {
		u.CPU += time.Duration(p.cpu) * time.Second / ticksPerSecond //nolint:gosec // 292 years
		u.Memory += p.pages * uint64(os.Getpagesize())               //nolint:gosec // positive
	}
	return u, nil
}
