package notify

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/observability-upgrade/observability-upgrade/internal/freeport"
	"github.com/observability-upgrade/observability-upgrade/internal/notify/notifytest"
)

const slackConfig = `channels:
  - name: slack
    enabled: true
    config: {webhook_url: "%s/services/T0/B0/${SECRET:planted}"%s}
    events: [upgrade_available, upgrade_started, upgrade_completed, upgrade_failed, rollback_required, rollback_completed]
`

// The payload as the server got it, field by field.
func TestSlack(t *testing.T) {
	for _, c := range []struct {
		event, conf string
		change      func(map[string]any)
	}{
		{UpgradeStarted, `, channel: "#ops-alerts", mention_on_failure: "@ops-team"`, func(map[string]any) {}},
		{UpgradeCompleted, "", func(p map[string]any) { delete(p, "channel") }},
		{UpgradeFailed, `, channel: "#ops-alerts", mention_on_failure: "@ops-team"`, func(p map[string]any) {
			p["text"], p["link_names"] = "@ops-team", true
		}},
		{RollbackRequired, `, channel: "#ops-alerts", mention_on_failure: "<!subteam^S012AB3CD>"`, func(p map[string]any) {
			p["text"] = "<!subteam^S012AB3CD>"
		}},
		{RollbackCompleted, `, channel: "#ops-alerts", mention_on_failure: "<@U012AB3CD>"`, func(map[string]any) {}},
		{UpgradeFailed, `, channel: "#ops-alerts"`, func(map[string]any) {}},
	} {
		t.Run(c.event, func(t *testing.T) {
			s := httpServer(t)
			w := newWorld(t, slackConfig+`templates:
  upgrade_started: {subject: "a < b & c", body: "<!channel> {{.Event}}"}
`, s.URL, c.conf)
			w.send(c.event)
			if r := w.deliver(); r.Sent != 1 {
				t.Fatalf("%+v: %+v", r, w.status().Dead)
			}
			reqs := s.Requests()
			if len(reqs) != 1 || reqs[0].Method != http.MethodPost || reqs[0].Path != "/services/T0/B0/"+planted {
				t.Fatalf("%+v", reqs)
			}
			if got := reqs[0].Header.Get("Content-Type"); got != "application/json; charset=utf-8" {
				t.Errorf("content type %q", got)
			}
			var got map[string]any
			if err := json.Unmarshal(reqs[0].Body, &got); err != nil {
				t.Fatal(err)
			}
			title, text := render(w.conf(), Sample(c.event))
			color := "good"
			switch c.event {
			case UpgradeStarted:
				title, text = "a &lt; b &amp; c", "&lt;!channel&gt; upgrade_started"
			case UpgradeFailed, RollbackRequired:
				color = "danger"
			}
			want := map[string]any{"channel": "#ops-alerts", "attachments": []any{map[string]any{
				"fallback": title, "color": color, "title": title, "text": strings.ReplaceAll(text, ">", "&gt;"),
				"footer": "Observability Upgrade System", "ts": float64(Sample(c.event).Timestamp.Unix()),
			}}}
			if c.event == UpgradeStarted {
				want["attachments"].([]any)[0].(map[string]any)["text"] = text
			}
			c.change(want)
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
			w.hidden()
		})
	}
}

const webhookConfig = `channels:
  - name: tickets
    type: webhook
    enabled: true
    config: {url: "%s/up?key=${SECRET:planted}", %s}
    events: [upgrade_available, upgrade_started, upgrade_completed, upgrade_failed, rollback_required, rollback_completed]
`

// The document as the server got it, field by field, and its signature.
func TestWebhook(t *testing.T) {
	s := httpServer(t)
	w := newWorld(t, webhookConfig, s.URL, `method: PUT, headers: {Authorization: "Bearer ${SECRET:planted}", Host: hooks.example.com, X-Mine: "1"}, hmac_secret: "${SECRET:planted}"`)
	w.send(UpgradeFailed)
	began := time.Now().Unix()
	if r := w.deliver(); r.Sent != 1 {
		t.Fatalf("%+v: %+v", r, w.status().Dead)
	}
	reqs := s.Requests()
	if len(reqs) != 1 {
		t.Fatalf("%d requests", len(reqs))
	}
	r := reqs[0]
	if r.Method != http.MethodPut || r.Path != "/up?key="+planted || r.Host != "hooks.example.com" {
		t.Errorf("%s %s to %s", r.Method, r.Path, r.Host)
	}
	id := Sample(UpgradeFailed).id("tickets")
	for name, want := range map[string]string{
		"Content-Type": "application/json", "Authorization": "Bearer " + planted, "X-Mine": "1", "User-Agent": "observability-upgrade",
		"X-Observability-Event": "upgrade_failed", "Idempotency-Key": id, "X-Signature-256": Sign([]byte(planted), r.Body),
	} {
		if got := r.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	var got map[string]any
	if err := json.Unmarshal(r.Body, &got); err != nil {
		t.Fatal(err)
	}
	sent, _ := got["sent_at"].(float64)
	if int64(sent) < began || int64(sent) > time.Now().Unix() || r.Header.Get("X-Signature-Timestamp") != strconv.FormatInt(int64(sent), 10) {
		t.Errorf("sent at %v, header %s", got["sent_at"], r.Header.Get("X-Signature-Timestamp"))
	}
	delete(got, "sent_at")
	subject, body := render(w.conf(), Sample(UpgradeFailed))
	part := func(name, from, to string, ids ...any) map[string]any {
		return map[string]any{
			"name": name, "current_version": from, "latest_version": to, "old_version": from, "new_version": to, "rolled_back_version": from,
			"vulnerabilities": append([]any{}, ids...), "instance": "",
		}
	}
	want := map[string]any{
		"id": id, "subject": subject, "body": body, "event": "upgrade_failed", "hostname": "host.example.com", "run_id": "20241227_030000", "status": "failed",
		"timestamp":                  "2024-12-27T03:00:00Z",
		"components":                 []any{part("prometheus", "2.48.1", "2.49.0", "CVE-2024-0001", "CVE-2024-0002"), part("node_exporter", "1.7.0", "1.8.0")},
		"estimated_duration_seconds": 1200.0, "actual_duration_seconds": 750.0, "failed_component": "prometheus",
		"error": "not ready after 60s: 503 Service Unavailable", "auto_rollback": true, "backup_timestamp": "20241227_030000",
		"operation": "apply", "failed_unit": "prometheus.service", "refused": false, "unchecked": false, "next": "observability-upgrade status",
		"rollback_command": "observability-upgrade rollback --to=20241227_030000 --component=prometheus",
		"kept":             []any{part("grafana", "10.2.2", "10.2.3")},
		"warnings":         []any{"grafana: its configuration was changed meanwhile and is kept"},
	}
	kept := want["kept"].([]any)[0].(map[string]any)
	kept["instance"], kept["current_version"] = "a", "10.2.3"
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	w.hidden()
}

func TestWebhookGET(t *testing.T) {
	s := httpServer(t)
	w := newWorld(t, webhookConfig, s.URL, "method: GET")
	w.send(UpgradeCompleted)
	if r := w.deliver(); r.Sent != 1 {
		t.Fatalf("%+v: %+v", r, w.status().Dead)
	}
	r := s.Requests()[0]
	if r.Method != http.MethodGet || len(r.Body) != 0 || r.Header.Get("Content-Type") != "" || r.Header.Get("X-Observability-Event") != "upgrade_completed" {
		t.Errorf("%+v", r)
	}
}

// A server of one's own authority is trusted by its file alone.
func TestWebhookOverTLS(t *testing.T) {
	cert, err := notifytest.NewCertificate()
	if err != nil {
		t.Fatal(err)
	}
	s := notifytest.StartHTTP(cert)
	t.Cleanup(s.Close)
	w := newWorld(t, webhookConfig, s.URL, "ca_file: /etc/ca.pem")
	w.write(w.root.Path("etc/ca.pem"), string(cert.PEM), 0o644)
	if got := Try(t.Context(), w.root, w.conf(), w.conf().Channels, UpgradeFailed, w.logger()); !got[0].OK || len(s.Requests()) != 1 {
		t.Errorf("%+v", got)
	}
	if !strings.Contains(string(s.Requests()[0].Body), `"subject":"[Test] [CRITICAL] Observability Upgrade Failed"`) {
		t.Errorf("%s", s.Requests()[0].Body)
	}
	w.configure(webhookConfig, s.URL, "timeout: 5s")
	if got := Try(t.Context(), w.root, w.conf(), w.conf().Channels, "", w.logger()); got[0].OK || !strings.Contains(got[0].Error, "certificate") {
		t.Errorf("%+v", got)
	}
	w.hidden()
}

// What a server answers decides whether it is asked again, and no secret that it
// repeats is kept.
func TestHTTPAnswers(t *testing.T) {
	for _, c := range []struct {
		answers  []notifytest.Answer
		requests int
		dead     string // "" where it is sent in the end
	}{
		{[]notifytest.Answer{{Status: 200}}, 1, ""},
		{[]notifytest.Answer{{Status: 204}}, 1, ""},
		{[]notifytest.Answer{{Status: 500}, {Status: 502}, {Status: 200}}, 3, ""},
		{[]notifytest.Answer{{Status: 408}, {Status: 425}, {Status: 429}, {Status: 200}}, 4, ""},
		{[]notifytest.Answer{{Status: 503, Body: "later"}}, quick.attempts, `answered 503 Service Unavailable ("later"), expected 2xx`},
		{[]notifytest.Answer{{Status: 404, Body: "no_service"}}, 1, `answered 404 Not Found ("no_service"), expected 2xx`},
		{[]notifytest.Answer{{Status: 403, Echo: true}}, 1, "answered 403 Forbidden"},
		{[]notifytest.Answer{{Status: 400, Body: strings.Repeat("x", 10_000)}}, 1, "… (cut off)"},
		{[]notifytest.Answer{{Status: 302, Header: map[string]string{"Location": "http://127.0.0.1:1/"}}}, 1, "a redirect, which is not followed"},
	} {
		for name, conf := range map[string]string{"slack": slackConfig, "webhook": webhookConfig} {
			t.Run(name+"/"+strconv.Itoa(c.answers[0].Status), func(t *testing.T) {
				s := httpServer(t, c.answers...)
				more := ""
				if name == "webhook" {
					more = `headers: {Authorization: "Bearer ${SECRET:planted}"}, hmac_secret: "x${SECRET:planted}"`
				}
				w := newWorld(t, conf, s.URL, more)
				w.send(UpgradeFailed)
				r := w.deliver()
				dead := w.status().Dead
				if len(s.Requests()) != c.requests {
					t.Errorf("%d requests, want %d", len(s.Requests()), c.requests)
				}
				if c.dead == "" && (r != Report{Sent: 1}) {
					t.Errorf("%+v, %+v", r, dead)
				}
				if c.dead != "" && (r != Report{Dead: 1} || !strings.Contains(dead[0].Reason, c.dead) || dead[0].Attempts != c.requests) {
					t.Errorf("%+v, %+v", r, dead)
				}
				w.hidden()
			})
		}
	}
}

func TestNobodyListens(t *testing.T) {
	shut, bound, err := freeport.Shut()
	if err != nil {
		t.Fatal(err)
	}
	defer bound.Close()
	w := newWorld(t, webhookConfig, "http://"+shut, "timeout: 5s")
	got := Try(t.Context(), w.root, w.conf(), w.conf().Channels, "", w.logger())
	if got[0].OK || !strings.Contains(got[0].Error, "connection refused") || !strings.Contains(got[0].Error, "POST to 127.0.0.1:") {
		t.Errorf("%+v", got)
	}
	w.hidden(got[0].Error)
}
