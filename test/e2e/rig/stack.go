package rig

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// readyTimeout bounds how long a fresh stack takes until all answer.
const readyTimeout = 3 * time.Minute

const prometheusConfig = `global:
  scrape_interval: 1s
  evaluation_interval: 1s
alerting:
  alertmanagers:
    - static_configs:
        - targets: [127.0.0.1:9093]
rule_files:
  - /etc/prometheus/rules/*.yml
scrape_configs:
  - job_name: prometheus
    static_configs:
      - targets: [127.0.0.1:9090]
  - job_name: node
    static_configs:
      - targets: [127.0.0.1:9100]
  - job_name: alertmanager
    static_configs:
      - targets: [127.0.0.1:9093]
`

const prometheusRules = `groups:
  - name: rig
    rules:
      - record: rig:up:sum
        expr: sum(up)
      - alert: TargetDown
        expr: up == 0
        for: 1m
`

const alertmanagerConfig = `route:
  receiver: nobody
  group_by: [alertname]
receivers:
  - name: nobody
`

// service is one program of the stack on a host.
type service struct {
	component string
	user      string
	home      string // data directory, "" for none
	args      []string
	reload    bool // SIGHUP reloads the configuration
	config    map[string]string
	ready     string
}

// services are the stack, in the order in which it starts.
func services() []service {
	return []service{
		{
			component: "node_exporter", user: "node_exporter",
			args:  []string{"--web.listen-address=127.0.0.1:9100"},
			ready: "http://127.0.0.1:9100/metrics",
		},
		{
			component: "alertmanager", user: "alertmanager", home: "/var/lib/alertmanager", reload: true,
			args: []string{
				"--config.file=/etc/alertmanager/alertmanager.yml", "--storage.path=/var/lib/alertmanager",
				"--web.listen-address=127.0.0.1:9093", "--cluster.listen-address=",
			},
			config: map[string]string{"/etc/alertmanager/alertmanager.yml": alertmanagerConfig},
			ready:  "http://127.0.0.1:9093/-/ready",
		},
		{
			component: "prometheus", user: "prometheus", home: "/var/lib/prometheus", reload: true,
			args: []string{
				"--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/var/lib/prometheus",
				"--web.listen-address=127.0.0.1:9090", "--web.enable-lifecycle",
			},
			config: map[string]string{
				"/etc/prometheus/prometheus.yml": prometheusConfig,
				"/etc/prometheus/rules/rig.yml":  prometheusRules,
			},
			ready: "http://127.0.0.1:9090/-/ready",
		},
	}
}

// unit is the systemd unit of a service as a careful administrator writes it.
func (s service) unit() string {
	var b strings.Builder
	fmt.Fprintf(&b, "[Unit]\nDescription=%s\nWants=network-online.target\nAfter=network-online.target\n\n", s.component)
	fmt.Fprintf(&b, "[Service]\nType=simple\nUser=%s\nGroup=%s\n", s.user, s.user)
	fmt.Fprintf(&b, "ExecStart=/usr/local/bin/%s \\\n  %s\n", s.component, strings.Join(s.args, " \\\n  "))
	if s.reload {
		b.WriteString("ExecReload=/bin/kill -HUP $MAINPID\n")
	}
	b.WriteString("Restart=on-failure\nRestartSec=1\nTimeoutStopSec=60\nLimitNOFILE=65536\n" +
		"NoNewPrivileges=yes\nProtectHome=yes\n\n[Install]\nWantedBy=multi-user.target\n")
	return b.String()
}

// StartUnit starts a unit of a distribution package that the image keeps aside:
// haproxy.service or nginx.service. Its configuration is the caller's.
func (c *Container) StartUnit(ctx context.Context, unit string) error {
	if err := c.must(ctx, "cp", shelf+"/"+unit, "/etc/systemd/system/"+unit); err != nil {
		return err
	}
	if err := c.must(ctx, "systemctl", "daemon-reload"); err != nil {
		return err
	}
	return c.must(ctx, "systemctl", "enable", "--now", unit)
}

// InstallStack installs programs below /usr/local/bin with users, configuration,
// data directories and units, starts them at boot and now, and returns when all
// are ready. versions maps components (prometheus, alertmanager, node_exporter)
// to a version or a line such as "2.53"; what is not named is not installed.
func (c *Container) InstallStack(ctx context.Context, versions map[string]string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyTimeout, fmt.Errorf("not ready after %v", readyTimeout))
	defer cancel()
	if len(versions) == 0 {
		return nil
	}
	var chosen []service
	for _, s := range services() {
		if _, ok := versions[s.component]; ok {
			chosen = append(chosen, s)
		}
	}
	if len(chosen) != len(versions) {
		return fmt.Errorf("install a stack: %v names components that the rig does not have", versions)
	}
	if err := c.addUsers(ctx, chosen); err != nil {
		return err
	}
	units := []string{}
	for _, s := range chosen {
		if err := c.installService(ctx, s, versions[s.component]); err != nil {
			return fmt.Errorf("install %s %s: %w", s.component, versions[s.component], err)
		}
		units = append(units, s.component+".service")
	}
	for _, args := range [][]string{{"systemctl", "daemon-reload"}, append([]string{"systemctl", "enable", "--quiet", "--now"}, units...)} {
		if err := c.must(ctx, args...); err != nil {
			return err
		}
	}
	return c.WaitStack(ctx, versions)
}

// WaitStack waits until every component named answers as ready. ctx needs a
// deadline.
func (c *Container) WaitStack(ctx context.Context, versions map[string]string) error {
	for _, s := range services() {
		if _, ok := versions[s.component]; !ok {
			continue
		}
		if err := c.WaitHTTP(ctx, s.ready, nil); err != nil {
			status, runErr := c.Run(context.WithoutCancel(ctx), "systemctl", "status", "--no-pager", "--full", s.component+".service")
			return errors.Join(err, runErr, errors.New(status.Stdout))
		}
	}
	return nil
}

// InstallBinaries copies the programs of one release to /usr/local/bin, over
// those that are there.
func (c *Container) InstallBinaries(component, line string) (Release, error) {
	rel, err := c.kit.Release(component, line)
	if err != nil {
		return rel, err
	}
	for _, name := range rel.Binaries() {
		// A program that runs cannot be written over: put the new one beside it.
		to := "/usr/local/bin/" + name
		if err := c.CopyIn(rel.Dir+"/"+name, to+".rig", 0o755); err != nil {
			return rel, err
		}
		dir, err := c.open("/usr/local/bin", unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return rel, err
		}
		err = unix.Renameat(int(dir.Fd()), name+".rig", int(dir.Fd()), name)
		if err = errors.Join(err, dir.Close()); err != nil {
			return rel, fmt.Errorf("put %s in place: %w", to, err)
		}
	}
	return rel, nil
}

func (c *Container) installService(ctx context.Context, s service, line string) error {
	if _, err := c.InstallBinaries(s.component, line); err != nil {
		return err
	}
	files := map[string]string{"/etc/systemd/system/" + s.component + ".service": s.unit()}
	for path, text := range s.config {
		files[path] = text
	}
	for path, text := range files {
		if err := c.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	if s.home == "" {
		return nil
	}
	return c.must(ctx, "install", "-d", "-o", s.user, "-g", s.user, "-m", "0750", s.home)
}

func (c *Container) addUsers(ctx context.Context, chosen []service) error {
	args := []string{"systemd-sysusers", "--inline"}
	for _, s := range chosen {
		home := s.home
		if home == "" {
			home = "/"
		}
		args = append(args, fmt.Sprintf("u %s - %q %s", s.user, s.component, home))
	}
	return c.must(ctx, args...)
}

func (c *Container) must(ctx context.Context, args ...string) error {
	r, err := c.Run(ctx, args...)
	if err != nil {
		return err
	}
	if r.ExitCode != 0 {
		return fmt.Errorf("%s in container %s: %v", strings.Join(args, " "), c.Name, r)
	}
	return nil
}
