package e2e

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/config"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/notify"
	"github.com/observability-upgrade/observability-upgrade/internal/notify/notifytest"
)

// When the timer's job ends, systemd kills the process that it left to deliver; the
// unit delivers the rest itself, and its outcome stays that of the job.
func TestNotificationsOutliveTheUnit(t *testing.T) {
	t.Parallel()
	h := newHost(t, map[string]string{"node_exporter": "1.5"}, nil)
	l, err := h.Listen(h.ctx, "tcp", "127.0.0.1:9999")
	h.check(err)
	receiver := notifytest.ServeHTTP(l, nil, notifytest.Answer{Hang: true}, notifytest.Answer{Status: 200})
	t.Cleanup(receiver.Close)
	const conf = `channels: [{name: hook, type: webhook, enabled: true, config: {url: "${HOOK}"}, events: [upgrade_failed]}]
`
	const hook = "http://127.0.0.1:9999/"
	h.file("/etc/observability/notifications.yaml", conf)
	h.file("/etc/observability/environment", "HOOK="+hook+"\n") // the unit has none of a shell's variables
	h.MustRun(h.ctx, "chmod", "0600", "/etc/observability/environment")
	h.upgrade(0, "auto-enable", "--policy=minor")
	h.file("/etc/systemd/system/observability-upgrade.service.d/job.conf", `[Service]
ExecStart=
ExecStart=/bin/sh -c "observability-upgrade notify deliver --quiet & until observability-upgrade notify status --output=json | grep -q '\"delivering\": true'; do sleep 0.1; done; sleep 1; exit 8"
`)

	// A message as a run leaves it.
	root := layout.Root(t.TempDir())
	h.check(errors.Join(os.MkdirAll(root.Config(), 0o755), os.WriteFile(root.Notifications(), []byte(conf), 0o600)))
	notes, err := config.LoadNotifications(root, func(string) string { return hook })
	h.check(err)
	h.check(notify.Open(root, &hostfs.Host{}, notes, slog.New(slog.DiscardHandler)).Send(notify.Sample(notify.UpgradeFailed)))
	files, err := filepath.Glob(filepath.Join(root.NotifyDir(), "queue", "*.json"))
	h.check(err)
	h.MustRun(h.ctx, "install", "-d", "-m", "0700", "/var/lib/observability/notify", "/var/lib/observability/notify/queue")
	for _, f := range files {
		h.check(h.CopyIn(f, "/var/lib/observability/notify/queue/"+filepath.Base(f), 0o600))
	}

	h.MustRun(h.ctx, "systemctl", "daemon-reload")
	h.MustRun(h.ctx, "systemctl", "start", "--no-block", "observability-upgrade.service")
	h.until("the unit has ended", time.Minute, func() bool {
		state := h.MustRun(h.ctx, "systemctl", "show", "-P", "ActiveState", "observability-upgrade.service")
		return len(receiver.Requests()) > 1 && strings.HasPrefix(state, "inactive")
	})
	log := h.MustRun(h.ctx, "journalctl", "-u", "observability-upgrade.service", "--no-pager")
	if n := len(receiver.Requests()); n != 2 {
		t.Errorf("%d requests, want the one that was cut off and one more\n%s", n, log)
	}
	var s notify.Status
	h.document(&s, 0, "notify", "status")
	if c := s.Channels[0]; c.Sent != 1 || c.Queued != 0 || c.Dead != 0 || s.Delivering {
		t.Errorf("%+v\n%s", s, log)
	}
	if code := strings.TrimSpace(h.MustRun(h.ctx, "systemctl", "show", "-P", "ExecMainStatus", "observability-upgrade.service")); code != "8" {
		t.Errorf("the service ended with %s\n%s", code, log)
	}
}
