package catalogue

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"

	"github.com/observability-upgrade/observability-upgrade/internal/artifact"
	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/yamlfile"
)

var update = flag.Bool("update", false, "write the golden files anew")

func load(t *testing.T, files map[string]string) (*Catalogue, error) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "components.d")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return Load(dir)
}

func builtIn(t *testing.T) *Catalogue {
	t.Helper()
	c, err := Load(filepath.Join(t.TempDir(), "none"))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// fields are the keys of a definition.
func fields() []string {
	var out []string
	for typ, i := reflect.TypeFor[component.Component](), 0; i < typ.NumField(); i++ {
		key, _, _ := strings.Cut(typ.Field(i).Tag.Get("yaml"), ",")
		out = append(out, key)
	}
	return out
}

// tools are the components that people call: they have no service and no health.
var tools = []string{"logcli", "lokitool", "vmalert-tool", "vmbackup", "vmctl", "vmrestore"}

func TestBuiltIn(t *testing.T) {
	c := builtIn(t)
	var names []string
	for _, d := range c.All() {
		names = append(names, d.Name)
		tool := slices.Contains(tools, d.Name)
		if d.Description == "" || d.Homepage == "" || d.Health.Settle.Std().Seconds() != 5 && !tool || c.Origin(d.Name) != BuiltIn {
			t.Errorf("%s: description, homepage, settle or origin is not as it should be: %+v", d.Name, d)
		}
		if tool {
			if d.Unit() != "" || len(d.Process.Command) > 0 || d.Health.URL != "" || d.Health.MetricsURL != "" {
				t.Errorf("%s is a tool, and has a service or health: %+v", d.Name, d)
			}
			continue
		}
		// Vector's API and metrics are off unless configured.
		proven := d.Health.ExpectedMetric != "" || d.Health.Body != "" || d.Name == "vector"
		if d.Swappable() && (len(d.Process.Command) == 0 || !strings.HasPrefix(d.Process.Command[0], "{root}/") || !proven) {
			t.Errorf("%s: process or health is incomplete", d.Name)
		}
		for _, r := range d.Recalled {
			field, _, _ := strings.Cut(r, ".")
			if !slices.Contains(fields(), field) {
				t.Errorf("%s: recalled: %q is no field of a definition", d.Name, r)
			}
		}
		for _, cmd := range d.Config.Check {
			if !strings.Contains(strings.Join(cmd, " "), "{root}/etc/") {
				t.Errorf("%s: %q does not stay below the root", d.Name, cmd)
			}
		}
	}
	want := []string{
		"blackbox_exporter", "cadvisor", "elasticsearch_exporter", "fail2ban_exporter", "haproxy_exporter", "loki-canary", "memcached_exporter", "mongodb_exporter",
		"mysqld_exporter", "nginx_exporter", "node_exporter", "phpfpm_exporter", "postgres_exporter", "process_exporter", "redis_exporter", "snmp_exporter", "statsd_exporter",
		"jaeger", "loki", "mimir", "prometheus", "pushgateway", "pyroscope", "tempo", "thanos", "victoriametrics", "vmbackup", "vmctl", "vmrestore",
		"alloy", "otelcol", "otelcol-contrib", "promtail", "vector", "vmagent",
		"alertmanager", "lokitool", "vmalert", "vmalert-tool",
		"grafana", "karma", "logcli",
		"nginx", "vmauth",
	}
	if d := cmp.Diff(want, names); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	units := map[string]string{ // docs/specification.md, section 5
		"prometheus": "prometheus", "loki": "loki", "promtail": "promtail", "node_exporter": "node_exporter", "nginx_exporter": "nginx_exporter",
		"phpfpm_exporter": "phpfpm_exporter", "fail2ban_exporter": "fail2ban_exporter", "mysqld_exporter": "mysqld_exporter",
		"alertmanager": "alertmanager", "grafana": "grafana-server", "nginx": "nginx",
	}
	for name, unit := range units {
		if d, _ := c.Get(name); d.Unit() != unit+".service" {
			t.Errorf("%s: unit %s", name, d.Unit())
		}
	}
	if d, _ := c.Get("nginx"); d.Swappable() {
		t.Error("nginx belongs to the package manager")
	}
	// Measured: these die of SIGHUP.
	for _, name := range []string{
		"loki", "node_exporter", "pushgateway", "mysqld_exporter", "nginx_exporter", "phpfpm_exporter", "postgres_exporter", "redis_exporter",
		"process_exporter", "haproxy_exporter", "cadvisor",
	} {
		if d, _ := c.Get(name); d.Reload.Signal != "" {
			t.Errorf("%s: a signal would kill it", name)
		}
	}
	if d, _ := c.Get("loki"); d.Health.Timeout.Std().Seconds() < 60 {
		t.Error("loki takes 15.5 s to become ready at every start")
	}
}

// TestVersionAnswers has forms that no packaged program prints: those of upstream's
// own builds, from their source or by recall. See TestVersionOfRealPrograms.
func TestVersionAnswers(t *testing.T) {
	c := builtIn(t)
	for _, tc := range []struct{ name, output, want string }{
		{"prometheus", "prometheus, version 3.5.0 (branch: HEAD, revision: 8be3a9560fbdd18a94dedec4b747c35178177202)\n  build user: root@x\n  go version: go1.24.4\n", "3.5.0"},
		{"prometheus", "prometheus, version 2.42.0+ds (branch: debian/sid, revision: 2.42.0+ds-5+b5)\n", "2.42.0+ds"},
		{"prometheus", "prometheus, version  (branch: , revision: unknown)\n  go version:       go1.26.0\n", ""},
		{"alertmanager", "alertmanager, version 0.28.1+ds (branch: , revision: unknown)\n", "0.28.1+ds"},
		{"node_exporter", "node_exporter, version 1.8.2 (branch: , revision: )\n", "1.8.2"},
		{"logcli", "logcli, version 3.6.4 (branch: HEAD, revision: 12b1b3a)\n  build user:       root@x\n", "3.6.4"},
		{"lokitool", "loki, version 3.6.4 (branch: HEAD, revision: 12b1b3a)\n  build user:       root@x\n", "3.6.4"},
		{"lokitool", "loki, version  (branch: , revision: unknown)\n", ""},
		{"vmbackup", "vmbackup-20260213-201617-tags-v1.136.0-0-g7386a35942\n", "1.136.0"},
		{"vmrestore", "vmrestore-20260213-201617-tags-v1.136.0-enterprise-0-g7386a35942\n", ""},
		{"vmctl", "2026/03/01 21:12:05 INFO: metrics: disable exposing PSI metrics\nvmctl version vmctl-20260213-201617-tags-v1.136.0-0-g7386a35942\n2026/03/01 21:12:05 Total time: 675.49µs\n", "1.136.0"},
		{"vmctl", "Incorrect Usage: flag provided but not defined: -version\n", ""}, // Debian's
		{"vmalert-tool", "vmalert-tool version vmalert-tool-20260213-201617-tags-v1.136.0-0-g7386a35942\n2026/03/01 21:12:05 Total time: 675.49µs\n", "1.136.0"},
		{"blackbox_exporter", "blackbox_exporter, version 0.28.0 (branch: , revision: unknown)\n", "0.28.0"},
		{"pushgateway", "pushgateway, version 1.5.1+ds (branch: , revision: unknown)\n", "1.5.1+ds"},
		{"mysqld_exporter", "mysqld_exporter, version 0.19.0 (branch: , revision: unknown)\n", "0.19.0"},
		{"nginx_exporter", "nginx_exporter, version 1.4.1 (branch: , revision: unknown)\n", "1.4.1"},
		{"nginx_exporter", "NGINX Prometheus Exporter version=0.11.0 commit=abc date=2022\n", "0.11.0"},
		{"phpfpm_exporter", "php-fpm_exporter 2.2.0\n", "2.2.0"},
		{"loki", "loki, version 3.7.8 (branch: , revision: unknown)\n", "3.7.8"},
		{"promtail", "promtail, version 3.6.11 (branch: HEAD, revision: 8c6d4c1)\n", "3.6.11"},
		{"alloy", "alloy, version v1.20.1 (branch: HEAD, revision: 1234567)\n", "1.20.1"},
		{"grafana", "grafana version 12.0.2\n", "12.0.2"},
		{"grafana", "Version 9.2.0 (commit: NA, branch: main)\n", "9.2.0"},
		{"loki-canary", "loki-canary, version 3.7.8 (branch: HEAD, revision: 1234567)\n", "3.7.8"},
		{"tempo", "tempo, version 3.0.3 (branch: HEAD, revision: 1234567)\n", "3.0.3"},
		{"mimir", "Mimir, version 3.2.2 (branch: release-3.2, revision: 1234567)\n  go version: go1.26\n", "3.2.2"},
		{"pyroscope", "pyroscope, version v1.16.0 (branch: HEAD, revision: 1234567)\n", "1.16.0"},
		{"thanos", "thanos, version 0.42.4 (branch: HEAD, revision: 1234567)\n", "0.42.4"},
		{"statsd_exporter", "statsd_exporter, version 0.30.0 (branch: HEAD, revision: 1234567)\n", "0.30.0"},
		{"memcached_exporter", "memcached_exporter, version 0.16.0 (branch: HEAD, revision: 1234567)\n", "0.16.0"},
		{"process_exporter", "process-exporter, version 0.8.7 (branch: HEAD, revision: 1234567)\n", "0.8.7"},
		{"redis_exporter", "time=\"2026-11-24T04:30:19Z\" level=info msg=\"Redis Metrics Exporter v1.93.0    build date: 2026-01-01-00:00:00    sha1: 1\"\n", "1.93.0"},
		{"mongodb_exporter", "mongodb_exporter - MongoDB Prometheus exporter\nVersion: v0.53.0\nCommit: 1234567\n", "0.53.0"},
		{"victoriametrics", "victoria-metrics-20260101-101010-tags-v1.153.0-0-g1234567890\n", "1.153.0"},
		{"victoriametrics", "\n", ""},
		{"vmagent", "vmagent-20260911-125958-tags-v1.152.0-0-g540b91da03\n", "1.152.0"},
		{"vmagent", "vmagent-20260101-101010-tags-v1.122.3-enterprise-0-g1234567890\n", ""},
		{"otelcol", "otelcol version 0.161.0\n", "0.161.0"},
		{"otelcol-contrib", "otelcol-contrib version 0.161.0\n", "0.161.0"},
		{"jaeger", "2026/11/24 application version: git-commit=1, git-version=v2.22.0\n{\"gitCommit\":\"1\",\"gitVersion\":\"v2.22.0\",\"buildDate\":\"2026-10-01T00:00:00Z\"}", "2.22.0"},
		{"karma", "v0.132\n", "0.132"},
		{"vector", "vector 0.58.0 (x86_64-unknown-linux-musl 1234567 2026-10-01 00:00:00.000000000)\n", "0.58.0"},
		{"cadvisor", "cAdvisor version v0.60.6 (1234567)\n", "0.60.6"},
	} {
		d, _ := c.Get(tc.name)
		got, err := artifact.FindVersion(tc.output, d.Version.Regexp)
		if got.String() != tc.want || (err == nil) != (tc.want != "") {
			t.Errorf("%s: %q found in %q (%v), want %q", tc.name, got, tc.output, err, tc.want)
		}
	}
}

// contractSample is a definition as its format was agreed, comments included.
const contractSample = `name: prometheus
role: datastore            # exporter | datastore | shipper | alerting | ui | proxy
source: {type: github, repo: prometheus/prometheus, tag: "v{version}"}   # github | gitlab | grafana | directory | http
asset: "prometheus-{version}.{os}-{arch}.tar.gz"     # tar.gz tar.xz tar.zst zip gz, or a bare binary
checksums: "sha256sums.txt"                          # asset name; "{asset}.sha256" works too
signature: {type: gpg, asset: "sha256sums.txt.asc", keyring: /etc/observability/keys/prometheus.asc}   # gpg | cosign | minisign; optional
binaries:
  - {name: prometheus, path: "prometheus-{version}.{os}-{arch}/prometheus", install: /usr/local/bin/prometheus}
  - {name: promtool,   path: "prometheus-{version}.{os}-{arch}/promtool",   install: /usr/local/bin/promtool}
version: {args: ["--version"], regexp: 'version (\S+)'}
service: prometheus.service
process: {command: ["{root}/usr/local/bin/prometheus", "--config.file={root}/etc/prometheus/prometheus.yml"]}   # used by the process manager
config: {paths: [/etc/prometheus], check: [["promtool", "check", "config", "{root}/etc/prometheus/prometheus.yml"]]}
health: {url: "http://localhost:9090/-/ready", metrics_url: "http://localhost:9090/metrics", expected_metric: prometheus_build_info, settle: 5s}
reload: {http: "http://localhost:9090/-/reload"}     # or {signal: HUP}
data: {path: /var/lib/prometheus}
depends_on: []
instances: []                                        # HA, spec section 5: list of {name, service, process, health}, each overriding the component's own
balancer: {type: haproxy, socket: /run/haproxy/admin.sock, backend: prometheus, server: "{instance}"}   # haproxy | nginx | consul | exec
`

func TestContractSample(t *testing.T) {
	c, err := load(t, map[string]string{"prometheus.yaml": contractSample, "mine.yml": strings.Replace(contractSample, "name: prometheus\n", "", 1)})
	if err != nil {
		t.Fatal(err)
	}
	p, _ := c.Get("prometheus")
	mine, _ := c.Get("mine")
	if p.Reload != (component.Reload{HTTP: "http://localhost:9090/-/reload"}) || p.Signature.Type != "gpg" || p.Balancer.Server != "{instance}" || !p.Instances.IsZero() {
		t.Errorf("got %+v", p)
	}
	if c.Origin("prometheus") == BuiltIn || filepath.Base(c.Origin("mine")) != "mine.yml" || c.Origin("loki") != BuiltIn {
		t.Error("origins")
	}
	q := *p
	q.Name, q.Family, q.Description, q.Homepage = "mine", "", "", ""
	// What the sample does not speak of is the built-in definition's.
	q.Functional, q.Integration, q.Health.Startup, q.Data = nil, nil, component.Startup{}, component.Data{Path: q.Data.Path}
	q.Vulnerabilities = nil
	if d := cmp.Diff(&q, mine); d != "" {
		t.Errorf("the same text gives another definition: %s", d)
	}
}

// TestDefaultSettle proves that a definition that says nothing of settle is
// watched all the same, and that 0s is not nothing.
func TestDefaultSettle(t *testing.T) {
	const rest = "source: {type: github, repo: example/x}\nrole: exporter\nasset: x.tar.gz\nversion: {args: [--version], regexp: '(.+)'}\n" +
		"binaries: [{name: x, path: x, install: /usr/local/bin/x}]\n"
	c, err := load(t, map[string]string{
		"a.yaml":          rest,
		"b.yaml":          rest + "health: {url: \"http://localhost:1/ready\", timeout: 2s}\n",
		"c.yaml":          rest + "health: {settle: 0s}\n",
		"d.yaml":          rest + "health: {settle: 700ms}\n",
		"prometheus.yaml": "health: {settle: 0s}\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]component.Duration{
		"a": component.DefaultSettle, "b": component.DefaultSettle, "c": 0, "d": component.Duration(700 * time.Millisecond), "prometheus": 0,
	} {
		if d, _ := c.Get(name); d.Health.Settle != want {
			t.Errorf("%s settles for %s, want %s", name, d.Health.Settle.Std(), want.Std())
		}
	}
}

func TestOverride(t *testing.T) {
	c, err := load(t, map[string]string{
		"prometheus.yaml": "health: {settle: 1s}\nsource: {type: directory, path: /srv/releases}\nconfig: null\nbinaries:\n  - {name: prometheus, path: p, install: /opt/p}\n",
		"loki.yml":        "reload: {signal: HUP}\ninstances:\n  - {name: a, service: loki-a, health: {url: \"http://localhost:1/ready\"}}\n  - {name: b}\n",
		"nginx.yaml":      "# nothing changed\n",
		"alloy.yaml":      "instances: {type: consul, address: \"http://127.0.0.1:8500\", service: alloy}\n",
		"promtail.yaml":   "instances: {type: etcd, endpoints: [\"http://127.0.0.1:2379\"], prefix: /promtail/}\n",
		"junos_exporter.yaml": "family: promu\nrole: exporter\nsource: {type: github, repo: example/junos_exporter}\n" +
			"health: {metrics_url: \"http://localhost:9326/metrics\", expected_metric: junos_up}\n",
		".hidden": "x", "prometheus.yaml~": "x", "a.bak": "x", ".prometheus.yaml.swp": "x", "a.yaml.dpkg-old": "x",
		"prometheus.yaml.rpmsave": "x", "loki.yml.rpmnew": "x", "loki.yml.orig": "x", "README": "x", "notes.txt": "x", "nginx.json": "x",
	})
	if err != nil {
		t.Fatal(err)
	}
	var skipped []string
	for _, e := range c.Skipped() {
		skipped = append(skipped, filepath.Base(e.File))
	}
	if want := []string{"README", "a.bak", "a.yaml.dpkg-old", "loki.yml.orig", "loki.yml.rpmnew", "nginx.json", "notes.txt", "prometheus.yaml.rpmsave"}; !slices.Equal(skipped, want) {
		t.Errorf("skipped %v, want %v", skipped, want)
	}
	p, _ := c.Get("prometheus")
	if p.Health.Settle.Std().Seconds() != 1 || p.Health.URL != "http://localhost:9090/-/ready" || len(p.Binaries) != 1 || len(p.Config.Paths) != 0 {
		t.Errorf("got %+v", p)
	}
	if p.Source != (component.Source{Type: component.SourceDirectory, Path: "/srv/releases", Tag: "v{version}"}) {
		t.Errorf("source %+v", p.Source)
	}
	l, _ := c.Get("loki")
	if l.Reload.Signal != "HUP" || len(l.Instances.List) != 2 || l.Instances.List[0].Health.URL != "http://localhost:1/ready" {
		t.Errorf("got %+v", l)
	}
	if a, _ := c.Get("alloy"); a.Instances.Type != "consul" || a.Instances.Service != "alloy" {
		t.Errorf("got %+v", a.Instances)
	}
	s, ok := c.Get("junos_exporter")
	if !ok || s.Asset != "junos_exporter-{version}.{os}-{arch}.tar.gz" || s.Binaries[0].Install != "/usr/local/bin/junos_exporter" || s.Unit() != "junos_exporter.service" {
		t.Errorf("got %+v", s)
	}
	if got, want := len(c.All()), len(builtIn(t).All())+1; got != want {
		t.Errorf("%d components, want %d", got, want)
	}
}

// TestOverrideWhole gives each built-in name a definition that is whole in itself:
// what is replaced must not shine through. Another project's program is not
// judged by what the built-in one does.
func TestOverrideWhole(t *testing.T) {
	for _, name := range builtIn(t).Names() {
		whole := func(repo string) map[string]string {
			return map[string]string{name + ".yaml": strings.ReplaceAll("name: NAME\nrole: exporter\nsource: {type: github, repo: "+repo+", tag: \"v{version}\"}\n"+
				"asset: \"NAME-{version}.{os}-{arch}.tar.gz\"\nchecksums: sha256sums.txt\n"+
				"binaries:\n  - {name: NAME, path: \"NAME-{version}.{os}-{arch}/NAME\", install: /usr/local/bin/NAME}\n"+
				"version: {args: [--version], regexp: 'version (\\S+)'}\nservice: NAME.service\nhealth: {url: \"http://localhost:1/-/ready\"}\n", "NAME", name)}
		}
		c, err := load(t, whole("example/my-own"))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		d, _ := c.Get(name)
		if main, _ := d.MainBinary(); main.Install != "/usr/local/bin/"+name || len(d.Variants) > 0 {
			t.Errorf("%s: %+v", name, d)
		}
		if b, _ := builtIn(t).Get(name); b.Source.Repo != "" && (len(d.Functional)+len(d.Integration)+len(d.Data.Fingerprint)+len(d.Config.Check) > 0) {
			t.Errorf("%s is judged as the built-in program: %+v", name, d)
		}
	}
	c, err := load(t, map[string]string{"prometheus.yaml": "source: {repo: mirror/prometheus}\n"})
	if err != nil {
		t.Fatal(err)
	}
	if d, _ := c.Get("prometheus"); len(d.Functional) == 0 || len(d.Config.Check) == 0 {
		t.Errorf("a mirror of it is no longer judged as Prometheus: %+v", d)
	}
}

// TestBad reads every folder of testdata/bad as a components.d and compares all
// errors with the folder's golden file.
func TestBad(t *testing.T) {
	entries, err := os.ReadDir("testdata/bad")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		src := filepath.Join("testdata/bad", e.Name())
		t.Run(e.Name(), func(t *testing.T) {
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(src)); err != nil {
				t.Fatal(err)
			}
			// A checkout's modes depend on the umask.
			if err := filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
				if err == nil && !e.IsDir() {
					err = os.Chmod(p, 0o644)
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
			_, err := Load(dir)
			if err == nil {
				t.Fatal("no error")
			}
			got := strings.ReplaceAll(err.Error(), dir+"/", "") + "\n"
			golden := src + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
		})
	}
}

// Braces that belong to a command, and placeholders that only it knows, are no mistake.
func TestForeignBraces(t *testing.T) {
	_, err := load(t, map[string]string{"prometheus.yaml": `process: {command: [prometheus, "--config.file={root}/etc/p.yml"]}
config: {check: [[sh, -c, "test -n ${foo}", "{{name}} {{ end }}", '{job="x"}']]}
functional: [{name: disk, exec: {command: [awk, "{ print }", "{print}", "{url}"]}}]
balancer: {type: exec, status: [lb, "{server}"], drain: [lb, "{instance}"], admit: [lb]}
instances: {type: consul, address: "http://127.0.0.1:8500", service: p, exec: [ssh, "{instance}@{address}"]}
`})
	if err != nil {
		t.Error(err)
	}
}

func TestOthersCanWrite(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "loki.yaml")
	if err := errors.Join(os.WriteFile(file, []byte("service: x\n"), 0o644), os.Chmod(file, 0o666)); err != nil {
		t.Fatal(err)
	}
	_, err := Load(dir)
	var insecure *yamlfile.InsecureError
	if !errors.As(err, &insecure) || insecure.Path != file {
		t.Errorf("got %v", err)
	}
}

func TestSuggest(t *testing.T) {
	c := builtIn(t)
	for in, want := range map[string]string{
		"promethuse": "prometheus", "node": "node_exporter", "grafana-server": "grafana", "nginx-prometheus-exporter": "nginx_exporter", "zabbix": "", "mysqld": "mysqld_exporter",
	} {
		if got := c.Suggest(in); got != want {
			t.Errorf("%s: got %q, want %q", in, got, want)
		}
	}
	if _, ok := c.Get("zabbix"); ok || c.Origin("zabbix") != "" {
		t.Error("zabbix is not there")
	}
}

// What `components show` prints is a definition again.
func TestPrintedDefinitionsLoad(t *testing.T) {
	c, err := load(t, map[string]string{
		"loki.yaml":     "instances: [{name: a, service: loki-a}]\n",
		"promtail.yaml": "instances: {type: etcd, endpoints: [\"http://127.0.0.1:2379\"], prefix: /promtail/}\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, d := range c.All() {
		b, err := yaml.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		files[d.Name+".yaml"] = string(b)
	}
	again, err := load(t, files)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(c.All(), again.All()); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

func FuzzOverride(f *testing.F) {
	f.Add([]byte(contractSample))
	for _, s := range []string{"", "role: x", "binaries: null", "source: {type: http}", "instances: {type: etcd}", "depends_on: [prometheus]", "family: promu", "variants: [{versions: \"<3.0.0\", asset: x, paths: {promtool: p}}]", "[]", "reload: null", "name: [a]"} {
		f.Add([]byte(s))
	}
	file := filepath.Join(f.TempDir(), "prometheus.yaml")
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := yamlfile.Parse(file, data)
		if err != nil {
			return
		}
		l := newLoader()
		l.override("prometheus", file, n)
		c, err := l.finish()
		if c == nil {
			t.Fatalf("nothing was read: %v", err)
		}
		if err != nil {
			return
		}
		p, ok := c.Get("prometheus")
		if !ok || p.Name != "prometheus" || p.Swappable() && (p.Asset == "" || bytes.Contains([]byte(p.Version.Regexp), []byte("{name}"))) {
			t.Fatalf("%+v", p)
		}
	})
}

// What holds is salvaged: definitions with a mistake are left out, and so are the
// built-in ones that they override.
func TestSalvage(t *testing.T) {
	const sound = "role: exporter\nsource: {type: github, repo: a/sound, tag: \"v{version}\"}\nasset: a\nbinaries: [{name: a, install: /usr/local/bin/a}]\nversion: {args: [\"--version\"], regexp: 'version (\\S+)'}\n"
	dir := filepath.Join(t.TempDir(), "components.d")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"sound.yaml": sound, "loki.yaml": "health: {settle: 9s}\n",
		"prometheus.yaml": "healht: {}\n", "alertmanager.yaml": "[\n", "grafana.yaml": "name: other\n", "node_exporter.yaml": "role: king\n",
		"mysqld_exporter.yaml": sound, "mysqld_exporter.yml": sound, "stray.txt": "x",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	_, strict := Load(dir)
	c, err := Salvage(dir)
	if strict == nil || err == nil || err.Error() != strict.Error() {
		t.Fatalf("%v; Load says %v", err, strict)
	}
	for name, want := range map[string]bool{
		"sound": true, "loki": true, "promtail": true, "prometheus": false, "alertmanager": false, "grafana": false, "node_exporter": false, "mysqld_exporter": false,
	} {
		if _, ok := c.Get(name); ok != want {
			t.Errorf("%s is there: %v, want %v: %v", name, ok, want, err)
		}
	}
	if whole, err := Salvage(filepath.Join(dir, "none")); err != nil || len(whole.All()) != len(builtIn(t).All()) {
		t.Errorf("nothing is wrong: %v", err)
	}
}
