package e2e

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/sigstore/sigstore-go/pkg/testing/data"
	"golang.org/x/crypto/bcrypt"

	"github.com/observability-upgrade/observability-upgrade/internal/notify/notifytest"
	"github.com/observability-upgrade/observability-upgrade/internal/trace/tracetest"
)

var configuration = document{
	name: "docs/configuration.md",
	setup: func(r *reader) {
		r.secret("github-token", "ghp_1")
		r.file("/srv/staged/etc/observability/upgrade-policy.yaml", "service_manager: systemd\n")
	},
	steps: map[string]step{
		command("config", "validate", "--root=/srv/staged", "--output=json"): {says: `"present": *true`},
		command("config", "show", "--origin"):                                {says: "api_url"},
		command("config", "schema"):                                          {says: "policy"},
		command("config", "schema", "policy"):                                {says: `"maintenance_windows"`},
	},
}

var components = document{
	name: "docs/components.md",
	steps: map[string]step{
		command("components", "list"):               {says: "node_exporter"},
		command("components", "show", "prometheus"): {says: "github.*prometheus/prometheus"},
	},
}

// A mirror in a directory, and the same served by a real nginx, first as a listing
// and then by an index.
var airGapped = document{
	name: "docs/air-gapped.md",
	setup: func(r *reader) {
		forget(r)
		r.upgrade(0, "adopt", "--yes")
		rel := r.release("prometheus", "2.53")
		dir := "/srv/mirror/prometheus/v" + rel.Version
		r.check(r.MkdirAll(dir))
		r.check(r.CopyIn(rel.Archive, dir+"/"+filepath.Base(rel.Archive), 0o644))
		r.MustRun(r.ctx, "sh", "-c", "cd "+dir+" && sha256sum *.tar.gz >sha256sums.txt")
		r.file("/etc/nginx/conf.d/mirror.conf", "server { listen 127.0.0.1:8082; root /srv/mirror; autoindex on; }\n")
		r.check(r.StartUnit(r.ctx, "nginx.service"))
	},
	words: map[string]func(*reader) string{
		"2.53.3":                     func(r *reader) string { return r.release("prometheus", "2.53").Version },
		"https://mirror.example.com": is("http://127.0.0.1:8082"),
		"98000000":                   func(r *reader) string { return fmt.Sprint(len(r.archive())) },
		"sha256:…":                   func(r *reader) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(r.archive())) },
	},
	files: map[string]string{`{"releases": [`: "/srv/mirror/prometheus/index.json"},
	steps: map[string]step{
		command("check", "--component=prometheus"):              {says: "prometheus.*2.42.*2.53"},
		command("check", "--component=prometheus", "--refresh"): {says: "prometheus.*2.42.*2.53"},
		command("plan", "--component=prometheus"):               {says: "2.42.* 2.53"},
	},
}

// archive is what upstream publishes of Prometheus 2.53.
func (r *reader) archive() []byte {
	r.t.Helper()
	data, err := os.ReadFile(r.release("prometheus", "2.53").Archive)
	r.check(err)
	return data
}

var unattended = document{
	name: "docs/unattended.md",
	setup: func(r *reader) {
		forget(r)
		r.upgrade(0, "adopt", "--yes")
	},
	steps: map[string]step{
		command("plan", "--auto", "--policy=patch_only"): {says: "(?s)prometheus.*patch"},
		command("auto-enable", "--policy=patch_only"): {after: func(r *reader) {
			r.MustRun(r.ctx, "systemctl", "is-active", "observability-upgrade.timer")
		}},
		command("auto-status"): {says: "patch_only"},
		command("auto-disable"): {after: func(r *reader) {
			r.MustRun(r.ctx, "sh", "-c", "! systemctl is-active observability-upgrade.timer")
		}},
	},
}

// Mails by a real mail server with TLS and a password, and a server in Slack's place.
var notifications = document{
	name: "docs/notifications.md",
	setup: func(r *reader) {
		l, err := r.Listen(r.ctx, "tcp", "127.0.0.1:587")
		r.check(err)
		mail, err := notifytest.ServeMail(l, notifytest.MailOptions{STARTTLS: true, User: "observability", Password: "open sesame"})
		r.check(err)
		r.t.Cleanup(func() { r.check(mail.Close()) })
		r.mails = mail.Mails
		r.file("/usr/local/share/ca-certificates/mail.crt", string(mail.Cert.PEM))
		r.MustRun(r.ctx, "update-ca-certificates")
		l, err = r.Listen(r.ctx, "tcp", "127.0.0.1:9998")
		r.check(err)
		slack := notifytest.ServeHTTP(l, nil)
		r.t.Cleanup(slack.Close)
		for name, value := range map[string]string{
			"smtp-password": "not typed yet", "slack-webhook": "http://127.0.0.1:9998/services/T0/B0/x", "webhook-token": "t", "webhook-key": "k",
			"ntfy-topic": "t", "discord-url": "discord://token@1",
		} {
			r.secret(name, value)
		}
		r.file("/etc/observability/keys/internal-ca.pem", string(mail.Cert.PEM))
	},
	words: map[string]func(*reader) string{"mail.example.com": is("localhost")},
	steps: map[string]step{
		"install -m 0600 /dev/stdin /etc/observability/secrets/smtp-password": {types: "open sesame\n\x04", after: func(r *reader) {
			r.MustRun(r.ctx, "grep", "-qx", "open sesame", "/etc/observability/secrets/smtp-password")
		}},
		command("notify", "test"): {says: "email", after: func(r *reader) {
			if m := r.mails(); len(m) != 1 || !m[0].Encrypted || m[0].User != "observability" {
				r.t.Errorf("%+v", m)
			}
		}},
		command("notify", "test", "email", "--event=upgrade_failed"): {after: func(r *reader) {
			if m := r.mails(); len(m) != 2 || !bytes.Contains(m[1].Data, []byte("Upgrade Failed")) {
				r.t.Errorf("%+v", m)
			}
		}},
		// The page's e-mail and Slack in one file.
		command("notify", "status"): {says: "(?s)email.*slack", first: func(r *reader) {
			_, slack, _ := strings.Cut(blockOf(r, "yaml", "name: slack"), "channels:\n")
			r.file("/etc/observability/notifications.yaml", r.fill(blockOf(r, "yaml", "name: email\n"))+slack)
		}},
		command("notify", "test", "slack"): {says: "slack"},
	},
}

var signatures = document{
	name: "docs/signatures.md",
	setup: func(r *reader) {
		root, err := data.TrustedRoot(r.t.(*testing.T), "public-good.json").MarshalJSON()
		r.check(err)
		r.file(checkout+"/trusted_root.json", string(root))
		r.file("/etc/observability/keys/trusted_root.json", string(root))
		signer, err := openpgp.NewEntity("Prometheus", "", "prometheus@example.org", nil)
		r.check(err)
		var key bytes.Buffer
		r.check(signer.Serialize(&key))
		r.file("/etc/observability/keys/prometheus.asc", key.String())
	},
	steps: map[string]step{
		"install -m 0644 -o root -g root trusted_root.json /etc/observability/keys/trusted_root.json": {after: func(r *reader) {
			r.MustRun(r.ctx, "test", "-s", "/etc/observability/keys/trusted_root.json")
		}},
	},
}

var health = document{
	name: "docs/health.md",
	setup: func(r *reader) {
		forget(r)
		r.upgrade(0, "adopt", "--yes")
		r.secret("grafana-admin", "x")
		r.file("/etc/observability/keys/ca.pem", string(r.certificate().PEM))
	},
	steps: map[string]step{
		command("verify"):                  {says: "(?s)prometheus.*healthy", first: (*reader).waitSampled},
		command("verify", "--integration"): {says: "(?i)alertmanager"},
		command("restart", "--all"):        {says: "(?s)prometheus.*healthy"},
	},
}

func (r *reader) certificate() *notifytest.Certificate {
	r.t.Helper()
	c, err := notifytest.NewCertificate()
	r.check(err)
	return c
}

// The database is a small one of the same form, since these hosts do not reach the
// Internet.
var vulnerabilities = document{
	name: "docs/vulnerabilities.md",
	setup: func(r *reader) {
		forget(r)
		r.jq()
		r.upgrade(0, "adopt", "--yes")
		r.vulndb()
		r.file("/etc/observability/upgrade-policy.yaml", "vulnerabilities: {database: /srv/vulndb}\n")
		r.MustRun(r.ctx, "mkdir", "-p", "/srv/advisories")
		r.upgrade(0, "auto-enable", "--policy=patch_only")
	},
	steps: map[string]step{
		command("vulnerabilities", "--refresh"):              {says: "GO-2026-9001"},
		command("vulnerabilities", "--component=prometheus"): {says: "(?s)prometheus.*GO-2026-9001"},
		command("check"): {says: "GO-2026-9001|vulnerab"},
		command("vulnerabilities", "--output=json") + ` | jq -r '.components[] | select(.state != "none") | "\(.name) \(.state)"'`: {says: "(?m)^prometheus affected$"},
	},
}

// vulndb writes a database and an archive of records, as the page describes them.
func (r *reader) vulndb() {
	r.t.Helper()
	type object = map[string]any
	day := time.Now().UTC().Add(-time.Hour).Truncate(time.Second).Format(time.RFC3339)
	record := func(id, ecosystem, name, fixed string) string {
		data, err := json.Marshal(object{
			"schema_version": "1.3.1", "id": id, "modified": day, "published": day, "summary": "What " + id + " is about",
			"affected": []object{{
				"package": object{"ecosystem": ecosystem, "name": name},
				"ranges":  []object{{"type": "SEMVER", "events": []object{{"introduced": "0"}, {"fixed": fixed}}}},
			}},
		})
		r.check(err)
		return string(data)
	}
	const module = "github.com/prometheus/prometheus"
	for name, text := range map[string]string{
		"index/db.json":        fmt.Sprintf(`{"modified": %q}`, day),
		"index/modules.json":   fmt.Sprintf(`[{"path": %q, "vulns": [{"id": "GO-2026-9001", "modified": %q}]}]`, module, day),
		"ID/GO-2026-9001.json": record("GO-2026-9001", "Go", module, "0.99.0"),
	} {
		r.file("/srv/vulndb/"+name, text)
	}
	var buf bytes.Buffer
	z := zip.NewWriter(&buf)
	w, err := z.Create("BIT-prometheus-2026-1.json")
	r.check(err)
	_, err = w.Write([]byte(record("BIT-prometheus-2026-1", "Bitnami", "prometheus", "2.99.0")))
	r.check(err)
	r.check(z.Close())
	r.file("/srv/osv/Bitnami.zip", buf.String())
}

// The page, alone and as units, for this host and for others.
var statusPage = document{
	name: "docs/status-page.md",
	setup: func(r *reader) {
		clone(r)
		forget(r)
		r.upgrade(0, "adopt", "--yes")
	},
	words: map[string]func(*reader) string{
		"$2y$10$…": func(r *reader) string {
			hash, err := bcrypt.GenerateFromPassword([]byte("open sesame"), bcrypt.MinCost)
			r.check(err)
			return string(hash)
		},
	},
	steps: map[string]step{
		command("serve"): {until: page + "/healthz"},
		"systemctl enable --now observability-upgrade-serve.socket": {after: func(r *reader) { r.shows("/", "prometheus") }},
		"systemctl enable --now observability-upgrade-check.timer": {after: func(r *reader) {
			r.MustRun(r.ctx, "systemctl", "is-active", "observability-upgrade-check.timer")
		}},
		command("serve", "--listen=:9099", "--web-config=/etc/observability/web.yml"): {
			first: func(r *reader) {
				r.MustRun(r.ctx, "systemctl", "stop", "observability-upgrade-serve.socket", "observability-upgrade-serve.service")
				for name, data := range r.keyPair() {
					r.check(r.WriteFile("/etc/observability/"+name, data, 0o600))
				}
			},
			until: page + "/healthz",
		},
	},
	end: func(r *reader) {
		r.MustRun(r.ctx, "chmod", "0600", webConfig)
		r.MustRun(r.ctx, "systemctl", "restart", "observability-upgrade-serve.socket")
		client := r.HTTP()
		client.Transport.(*http.Transport).TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
		for password, want := range map[string]int{"open sesame": http.StatusOK, "open barley": http.StatusUnauthorized} {
			req, err := http.NewRequestWithContext(r.ctx, http.MethodGet, "https://127.0.0.1:9099/", nil)
			r.check(err)
			req.SetBasicAuth("ops", password)
			res, err := client.Do(req)
			r.check(err)
			res.Body.Close()
			if res.StatusCode != want {
				r.t.Errorf("%s: %d, want %d", password, res.StatusCode, want)
			}
		}
		r.MustRun(r.ctx, "systemctl", "disable", "--now", "observability-upgrade-serve.socket", "observability-upgrade-check.timer")
	},
}

func (r *reader) keyPair() map[string][]byte {
	r.t.Helper()
	cert, key := selfSigned(r.t.(*testing.T))
	return map[string][]byte{"web.crt": cert, "web.key": key}
}

// A run as a unit for the journal, one that logs JSON, and one that is traced.
var logsAndTraces = document{
	name: "docs/logs-and-traces.md",
	setup: func(r *reader) {
		forget(r)
		r.upgrade(0, "adopt", "--yes")
		r.upgrade(0, "auto-enable", "--policy=patch_only")
		r.MustRun(r.ctx, "systemd-run", "--wait", "--quiet", "--setenv=OBSERVABILITY_UPGRADE_GITHUB_API_URL=http://127.0.0.1:8081", program, "apply", "--yes", "--component=prometheus")
		r.MustRun(r.ctx, "journalctl", "--sync")
		collector := new(tracetest.Collector)
		l, err := r.Listen(r.ctx, "tcp", "127.0.0.1:4318")
		r.check(err)
		srv := &http.Server{Handler: collector, ReadHeaderTimeout: 10 * time.Second}
		done := make(chan struct{})
		go func() { defer close(done); _ = srv.Serve(l) }()
		r.t.Cleanup(func() { _ = srv.Close(); <-done })
		r.spans = collector.Spans
	},
	steps: map[string]step{
		"journalctl OBSUP_COMPONENT=prometheus":                                                             {says: "step=swap"},
		"journalctl -t observability-upgrade --since today":                                                 {says: "step=begin"},
		"journalctl OBSUP_COMPONENT=prometheus OBSUP_STEP=health -o verbose":                                {says: "OBSUP_STEP=health"},
		"journalctl -t observability-upgrade OBSUP_STEP=end -o json --output-fields=OBSUP_RUN,OBSUP_STATUS": {says: `"OBSUP_STATUS":"success"`},
		command("apply", "--yes", "--log-format=json", "2>>/var/log/observability-upgrade.jsonl"): {after: func(r *reader) {
			lines, err := r.ReadFile("/var/log/observability-upgrade.jsonl")
			r.check(err)
			steps := 0
			for l := range bytes.Lines(lines) {
				var record struct{ Msg, Step string }
				if err := json.Unmarshal(l, &record); err != nil {
					r.t.Errorf("%v: %s", err, l)
				}
				if record.Step != "" {
					steps++
				}
			}
			if steps < 5 {
				r.t.Errorf("only %d steps in\n%s", steps, lines)
			}
		}},
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 observability-upgrade apply --yes": {after: func(r *reader) {
			if s := r.spans(); len(s) == 0 {
				r.t.Error("nothing was traced")
			}
		}},
	},
}

var monitoring = document{
	name: "docs/monitoring.md",
	setup: func(r *reader) {
		forget(r)
		r.upgrade(0, "adopt", "--yes")
		r.MustRun(r.ctx, "mkdir", "-p", "/var/lib/grafana/dashboards", "/var/lib/node_exporter/textfile")
	},
	steps: map[string]step{
		command("metrics"): {says: `observability_component_version_info\{component="prometheus"`},
		command("monitoring", "install", "--dry-run"): {says: "upgrade-alerts.yml"},
		command("monitoring", "install"): {after: func(r *reader) {
			r.MustRun(r.ctx, "promtool", "check", "rules", "/etc/prometheus/rules/upgrade-alerts.yml")
		}},
		command("monitoring", "install", "--dashboard=/var/lib/grafana/dashboards"): {after: func(r *reader) {
			r.MustRun(r.ctx, "sh", "-c", "ls /var/lib/grafana/dashboards/*.json")
		}},
	},
}

var security = document{
	name: "docs/security.md",
	setup: func(r *reader) {
		r.upgrade(0, "auto-enable", "--policy=patch_only")
	},
}
