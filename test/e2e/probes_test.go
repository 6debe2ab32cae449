package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/observability-upgrade/observability-upgrade/test/e2e/rig"
)

// probed is a program of a Debian package, started as its definition expects it.
type probed struct {
	component string
	pkg       string
	program   string            // in the package's usr/bin
	install   string            // its name below /usr/local/bin; the component's when empty
	args      string            // of the command line; all listen on loopback alone
	env       string            // KEY=VALUE for the unit; may be empty
	files     map[string]string // configuration
	metrics   string
	silent    bool // Debian's build tells no version
	// away: what it watches is not in Debian, so that it cannot be more than
	// inconclusive.
	away bool
}

// probedPrograms are the exporters and stores that Debian's stable release has,
// beside those of the rig's own stack.
func probedPrograms() []probed {
	return []probed{
		{
			component: "blackbox_exporter", pkg: "prometheus-blackbox-exporter", program: "prometheus-blackbox-exporter",
			args:    "--config.file=/etc/blackbox_exporter/blackbox.yml --web.listen-address=127.0.0.1:9115",
			files:   map[string]string{"/etc/blackbox_exporter/blackbox.yml": "modules: {http_2xx: {prober: http}}\n"},
			metrics: "http://127.0.0.1:9115/metrics",
		},
		{
			component: "pushgateway", pkg: "prometheus-pushgateway", program: "prometheus-pushgateway",
			args: "--web.listen-address=127.0.0.1:9091", metrics: "http://127.0.0.1:9091/metrics",
		},
		{
			component: "mysqld_exporter", pkg: "prometheus-mysqld-exporter", program: "prometheus-mysqld-exporter", away: true,
			args:    "--config.my-cnf=/etc/mysqld_exporter/my.cnf --web.listen-address=127.0.0.1:9104",
			files:   map[string]string{"/etc/mysqld_exporter/my.cnf": "[client]\nuser=nobody\npassword=nothing\nhost=127.0.0.1\n"},
			metrics: "http://127.0.0.1:9104/metrics",
		},
		{
			component: "postgres_exporter", pkg: "prometheus-postgres-exporter", program: "prometheus-postgres-exporter", away: true,
			args: "--web.listen-address=127.0.0.1:9187", env: "DATA_SOURCE_NAME=postgresql://nobody@127.0.0.1:5432/postgres?sslmode=disable", metrics: "http://127.0.0.1:9187/metrics",
		},
		{
			component: "redis_exporter", pkg: "prometheus-redis-exporter", program: "prometheus-redis-exporter", away: true,
			args: "--web.listen-address=127.0.0.1:9121", metrics: "http://127.0.0.1:9121/metrics",
		},
		{
			component: "snmp_exporter", pkg: "prometheus-snmp-exporter", program: "prometheus-snmp-exporter",
			args:    "--config.file=/etc/snmp_exporter/snmp.yml --web.listen-address=127.0.0.1:9116",
			files:   map[string]string{"/etc/snmp_exporter/snmp.yml": "system: {walk: [1.3.6.1.2.1.1]}\n"},
			metrics: "http://127.0.0.1:9116/metrics",
		},
		{
			component: "process_exporter", pkg: "prometheus-process-exporter", program: "prometheus-process-exporter", install: "process-exporter", silent: true,
			args:    "-config.path=/etc/process-exporter/all.yaml -web.listen-address=127.0.0.1:9256",
			files:   map[string]string{"/etc/process-exporter/all.yaml": "process_names: [{name: \"{{.Comm}}\", cmdline: [\".+\"]}]\n"},
			metrics: "http://127.0.0.1:9256/metrics",
		},
		{
			component: "haproxy_exporter", pkg: "prometheus-haproxy-exporter", program: "prometheus-haproxy-exporter",
			args: "--haproxy.scrape-uri=http://127.0.0.1:8404/;csv --web.listen-address=127.0.0.1:9101", metrics: "http://127.0.0.1:9101/metrics",
		},
		{
			component: "nginx_exporter", pkg: "prometheus-nginx-exporter", program: "prometheus-nginx-exporter", install: "nginx-prometheus-exporter",
			args: "-nginx.scrape-uri=http://127.0.0.1:8405/stub_status -web.listen-address=127.0.0.1:9113", metrics: "http://127.0.0.1:9113/metrics",
		},
		{
			component: "elasticsearch_exporter", pkg: "prometheus-elasticsearch-exporter", program: "prometheus-elasticsearch-exporter",
			args: "--web.listen-address=127.0.0.1:9114", metrics: "http://127.0.0.1:9114/metrics",
		},
		{
			component: "victoriametrics", pkg: "victoria-metrics", program: "victoria-metrics", install: "victoria-metrics", silent: true,
			args: "-storageDataPath=/var/lib/victoria-metrics -httpListenAddr=127.0.0.1:8428", metrics: "http://127.0.0.1:8428/metrics",
		},
		{
			component: "vmagent", pkg: "victoria-metrics", program: "vmagent", silent: true,
			args:    "-promscrape.config=/etc/vmagent/prometheus.yml -remoteWrite.url=http://127.0.0.1:8428/api/v1/write -remoteWrite.tmpDataPath=/var/lib/victoria-metrics/agent -httpListenAddr=127.0.0.1:8429",
			files:   map[string]string{"/etc/vmagent/prometheus.yml": "scrape_configs: []\n"},
			metrics: "http://127.0.0.1:8429/metrics",
		},
		{
			component: "vmalert", pkg: "victoria-metrics", program: "vmalert", silent: true,
			args:    "-rule=/etc/vmalert/*.yml -datasource.url=http://127.0.0.1:8428 -notifier.url=http://127.0.0.1:9093 -httpListenAddr=127.0.0.1:8880",
			files:   map[string]string{"/etc/vmalert/rules.yml": "groups: []\n"},
			metrics: "http://127.0.0.1:8880/metrics",
		},
		{
			component: "vmauth", pkg: "victoria-metrics", program: "vmauth", silent: true,
			args:    "-auth.config=/etc/vmauth/auth.yml -httpListenAddr=127.0.0.1:8427",
			files:   map[string]string{"/etc/vmauth/auth.yml": "users: [{username: a, password: b, url_prefix: \"http://127.0.0.1:8428\"}]\n"},
			metrics: "http://127.0.0.1:8427/metrics",
		},
	}
}

// The two proxies of the image are what their exporters watch.
const (
	statsHAProxy = "defaults\n  mode http\n  timeout connect 2s\n  timeout client 5s\n  timeout server 5s\nfrontend stats\n  bind 127.0.0.1:8404\n  stats enable\n  stats uri /\n"
	statsNginx   = "server {\n    listen 127.0.0.1:8405;\n    location /stub_status { stub_status; }\n}\n"
)

// Every built-in definition of which Debian has the program finds the real one
// well, and knows its version where it tells one.
func TestProbes(t *testing.T) {
	t.Parallel()
	if reason := rig.PackageAvailable(); reason != "" {
		t.Skip(reason)
	}
	h := newHost(t, old, nil)
	programs := probedPrograms()
	var names []string
	for _, p := range programs {
		names = append(names, p.pkg)
	}
	dirs, missing, err := rig.DebianPackages(h.ctx, "bookworm", names, nil)
	h.check(err)
	h.file("/etc/haproxy/haproxy.cfg", statsHAProxy)
	h.file("/etc/nginx/conf.d/stats.conf", statsNginx)
	h.check(h.StartUnit(h.ctx, "haproxy.service"))
	h.check(h.StartUnit(h.ctx, "nginx.service"))
	h.MustRun(h.ctx, "install", "-d", "-o", "nobody", "/var/lib/victoria-metrics")
	var units []string
	var up []probed
	for _, p := range programs {
		if missing[p.pkg] != nil {
			continue
		}
		h.start(p, dirs[p.pkg])
		up, units = append(up, p), append(units, p.unit())
	}
	for _, tool := range []string{"vmctl", "vmbackup", "vmrestore"} {
		if dir := dirs["victoria-metrics"]; dir != "" {
			h.check(h.CopyIn(dir+"/usr/bin/"+tool, "/usr/local/bin/"+tool, 0o755))
		}
	}
	h.MustRun(h.ctx, "systemctl", "daemon-reload")
	h.MustRun(h.ctx, append([]string{"systemctl", "start"}, units...)...)
	for _, p := range up {
		h.waitReady(p.metrics, p.unit())
	}
	h.waitSamples()

	var v struct {
		Components []struct {
			Name, Verdict, Version string
			Healthy                bool
			Checks                 []struct{ Name, Status, Detail string }
		} `json:"components"`
	}
	h.document(&v, 0, "verify")
	var st status
	h.document(&st, 0, "status")
	told := map[string]string{}
	for _, c := range st.Components {
		told[c.Name] = c.Current
	}
	found := map[string]bool{}
	expect := func(name, verdict string, silent bool) {
		t.Run(name, func(t *testing.T) {
			for _, c := range v.Components {
				if c.Name != name {
					continue
				}
				if !c.Healthy || c.Verdict != verdict {
					t.Errorf("%s, want %s: %+v", c.Verdict, verdict, c.Checks)
				}
				if told[name] == "" != silent || !silent && c.Version == "" {
					t.Errorf("its program tells version %q, its process %q", told[name], c.Version)
				}
				return
			}
			t.Error("it was not found")
		})
		found[name] = true
	}
	for _, p := range programs {
		if err := missing[p.pkg]; err != nil {
			t.Run(p.component, func(t *testing.T) { t.Skip(err) })
			continue
		}
		verdict := "healthy"
		if p.away {
			verdict = "inconclusive"
		}
		expect(p.component, verdict, p.silent)
	}
	for name := range old {
		expect(name, "healthy", false)
	}
	expect("nginx", "healthy", true)
	for _, tool := range []string{"vmctl", "vmbackup", "vmrestore"} {
		if dirs["victoria-metrics"] != "" {
			expect(tool, "healthy", true)
		}
	}
	for _, c := range v.Components {
		if !found[c.Name] {
			t.Errorf("%s was found as well: %+v", c.Name, c)
		}
	}
}

// unit is the name that the definition gives.
func (p probed) unit() string {
	if p.component == "process_exporter" {
		return "process-exporter.service"
	}
	return p.component + ".service"
}

// start installs a program and its unit.
func (h *host) start(p probed, dir string) {
	h.t.Helper()
	name := p.install
	if name == "" {
		name = p.component
	}
	h.check(h.CopyIn(dir+"/usr/bin/"+p.program, "/usr/local/bin/"+name, 0o755))
	for path, text := range p.files {
		h.file(path, text)
	}
	env := ""
	if p.env != "" {
		env = "Environment=\"" + p.env + "\"\n"
	}
	h.file("/etc/systemd/system/"+p.unit(), fmt.Sprintf("[Service]\nUser=nobody\nExecStart=/usr/local/bin/%s %s\n%sRestart=on-failure\n", name, strings.ReplaceAll(p.args, "%", "%%"), env))
}
