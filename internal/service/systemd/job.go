package systemd

import (
	"context"
	"fmt"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
)

// The results of a job; see JobRemoved in org.freedesktop.systemd1(5).
const (
	jobDone    = "done"
	jobUnknown = "" // the job is over and nobody told us how
)

// forever as a timeout of await.
const forever = time.Duration(-1)

// job is a job of systemd that was submitted.
type job struct {
	unit, verb string
	id         uint32
	done       chan string
	missing    int // how often in a row the unit had no such job
}

// submit asks systemd for a job.
func (m *Manager) submit(ctx context.Context, unit, verb string, start func(conn *dbus.Conn, done chan<- string) (int, error)) (*job, error) {
	j := &job{unit: unit, verb: verb}
	err := m.do(ctx, func(conn *dbus.Conn) error {
		j.done = make(chan string, 1) // systemd's answer must not block anybody
		id, err := start(conn, j.done)
		j.id = uint32(id) //nolint:gosec // a job has a uint32 on the bus: org.freedesktop.systemd1(5)
		return err
	})
	if err != nil {
		return nil, refused(unit, verb, err)
	}
	return j, nil
}

// await waits until the job is over and returns its result; over is false when
// it is not within timeout. The announcement is lost with the connection, so
// once a second, and at the end, the unit is asked whether it still has the job.
func (m *Manager) await(ctx context.Context, j *job, timeout time.Duration) (result string, over bool, err error) {
	var late <-chan time.Time
	if timeout != forever {
		timer := time.NewTimer(timeout)
		defer timer.Stop()
		late = timer.C
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return "", false, fmt.Errorf("%s %s: its job is not done: %w", j.verb, j.unit, ctx.Err())
		case result := <-j.done:
			return result, true, nil
		case <-late:
			return jobUnknown, m.gone(ctx, j), nil
		case <-tick.C:
			if m.gone(ctx, j) {
				return jobUnknown, true, nil
			}
		}
	}
}

// gone reports that the unit has no such job, twice in a row, so that an
// announcement on its way can arrive. An error says nothing: systemd may be
// starting again.
func (m *Manager) gone(ctx context.Context, j *job) bool {
	u, err := m.look(ctx, j.unit)
	if err != nil || u.job() == j.id {
		j.missing = 0
		return false
	}
	j.missing++
	return j.missing > 1
}
