package notify

import (
	"bytes"
	"fmt"
	"io"
	"mime"
	"mime/quotedprintable"
	netmail "net/mail"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/observability-upgrade/observability-upgrade/internal/notify/notifytest"
)

const mailConfig = `channels:
  - name: email
    enabled: true
    config: {to: [ops@example.com, "Ödön <more@example.com>"], from: "Überwachung <obs@example.com>", smtp_host: 127.0.0.1, smtp_port: %s, %s}
    events: [upgrade_available, upgrade_started, upgrade_completed, upgrade_failed, rollback_required, rollback_completed]
`

// The mail as the server got it, field by field.
func TestMailOverSTARTTLS(t *testing.T) {
	s := mailServer(t, notifytest.MailOptions{STARTTLS: true, User: "obs", Password: planted})
	w := newWorld(t, mailConfig+`templates:
  upgrade_failed: {subject: "✗ {{.FailedComponent}}: Größe → 0"}
`, s.PortText(), `username: obs, password: "${SECRET:planted}", ca_file: /ca.pem`)
	w.write(w.root.Path("ca.pem"), string(s.Cert.PEM), 0o644)
	w.send(UpgradeFailed, run("20241227_030000"))
	if r := w.deliver(); r != (Report{Sent: 1}) {
		t.Fatalf("%+v: %+v", r, w.status().Dead)
	}
	mails := s.Mails()
	if len(mails) != 1 {
		t.Fatalf("%d mails", len(mails))
	}
	got := mails[0]
	if !got.Encrypted || got.User != "obs" || got.From != "obs@example.com" || !slices.Equal(got.To, []string{"ops@example.com", "more@example.com"}) {
		t.Errorf("envelope: %+v", got)
	}
	m, err := netmail.ReadMessage(bytes.NewReader(got.Data))
	if err != nil {
		t.Fatal(err)
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject"))
	if err != nil || subject != "✗ prometheus: Größe → 0" {
		t.Errorf("subject %q, %v", subject, err)
	}
	from, err := m.Header.AddressList("From")
	if err != nil || len(from) != 1 || from[0].Name != "Überwachung" || from[0].Address != "obs@example.com" {
		t.Errorf("from %v, %v", from, err)
	}
	to, err := m.Header.AddressList("To")
	if err != nil || len(to) != 2 || to[0].Address != "ops@example.com" || to[1].Name != "Ödön" {
		t.Errorf("to %v, %v", to, err)
	}
	date, err := m.Header.Date()
	if err != nil || !date.Equal(time.Date(2024, 12, 27, 3, 0, 0, 0, time.UTC)) {
		t.Errorf("date %v, %v", date, err)
	}
	id := m.Header.Get("Message-ID")
	if !strings.HasPrefix(id, "<observability-upgrade.") || !strings.HasSuffix(id, "@example.com>") {
		t.Errorf("message id %q", id)
	}
	for name, want := range map[string]string{
		"References": "<observability-upgrade.run.20241227_030000@example.com>", "MIME-Version": "1.0", "Content-Transfer-Encoding": "quoted-printable",
		"Auto-Submitted": "auto-generated", "X-Observability-Event": "upgrade_failed", "Importance": "high",
	} {
		if got := m.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if typ, params, err := mime.ParseMediaType(m.Header.Get("Content-Type")); err != nil || typ != "text/plain" || !strings.EqualFold(params["charset"], "utf-8") {
		t.Errorf("content type %q %v, %v", typ, params, err)
	}
	body, err := io.ReadAll(quotedprintable.NewReader(m.Body))
	if err != nil {
		t.Fatal(err)
	}
	_, want := render(w.conf(), Sample(UpgradeFailed))
	if d := cmp.Diff(want, strings.ReplaceAll(string(body), "\r\n", "\n")); d != "" {
		t.Errorf("body (-want +got)\n%s", d)
	}
	w.hidden()
}

// Which connections are made, and when a password is not sent.
func TestMailConnections(t *testing.T) {
	password := `, username: obs, password: "${SECRET:planted}"`
	for _, c := range []struct {
		name      string
		server    notifytest.MailOptions
		conf      string
		ca        bool
		encrypted bool
		err       string // nothing is sent, and it says this
		dead      bool   // and it is not tried again
	}{
		{name: "plain", conf: "tls: none"},
		{name: "plain where TLS is offered", server: notifytest.MailOptions{STARTTLS: true}, conf: "tls: none"},
		{name: "default, nothing offered", conf: "timeout: 10s"},
		{name: "default, offered with a certificate that nobody knows", server: notifytest.MailOptions{STARTTLS: true}, conf: "timeout: 10s", encrypted: true},
		{name: "opportunistic with a CA", server: notifytest.MailOptions{STARTTLS: true}, conf: "tls: opportunistic", ca: true, encrypted: true},
		{name: "STARTTLS", server: notifytest.MailOptions{STARTTLS: true}, conf: "tls: starttls", ca: true, encrypted: true},
		{name: "STARTTLS, unverified", server: notifytest.MailOptions{STARTTLS: true}, conf: "tls: starttls, tls_skip_verify: true", encrypted: true},
		{name: "STARTTLS with a certificate that nobody knows", server: notifytest.MailOptions{STARTTLS: true}, conf: "tls: starttls", err: "ca_file must be"},
		{name: "STARTTLS not offered", conf: "tls: starttls", err: "does not offer STARTTLS", dead: true},
		{name: "implicit", server: notifytest.MailOptions{Implicit: true}, conf: "tls: implicit", ca: true, encrypted: true},
		{name: "implicit with a certificate that nobody knows", server: notifytest.MailOptions{Implicit: true}, conf: "tls: implicit", err: "ca_file must be"},
		{name: "implicit to a plain server", conf: "tls: implicit", ca: true, err: "first record does not look like a TLS handshake"},
		{name: "a password over implicit TLS", server: notifytest.MailOptions{Implicit: true, User: "obs", Password: planted}, conf: "tls: implicit" + password, ca: true, encrypted: true},
		{name: "LOGIN", server: notifytest.MailOptions{STARTTLS: true, User: "obs", Password: planted, Login: true}, conf: "tls: starttls" + password, ca: true, encrypted: true},
		{name: "a password demands TLS", server: notifytest.MailOptions{User: "obs", Password: planted}, conf: "timeout: 10s" + password, err: "does not offer STARTTLS", dead: true},
		{name: "a wrong password", server: notifytest.MailOptions{STARTTLS: true, User: "obs", Password: "other"}, conf: "tls: starttls" + password, ca: true, err: "535", dead: true},
		{name: "no authentication offered", server: notifytest.MailOptions{STARTTLS: true}, conf: "tls: starttls" + password, ca: true, err: "but none", dead: true},
		{name: "authentication demanded", server: notifytest.MailOptions{STARTTLS: true, User: "obs", Password: planted}, conf: "tls: starttls", ca: true, err: "502", dead: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := mailServer(t, c.server)
			if c.ca {
				c.conf += ", ca_file: /ca.pem"
			}
			w := newWorld(t, mailConfig, s.PortText(), c.conf)
			w.write(w.root.Path("ca.pem"), string(s.Cert.PEM), 0o644)
			w.send(UpgradeStarted)
			r := w.deliver()
			mails, dead := s.Mails(), w.status().Dead
			if c.err == "" {
				if r.Sent != 1 || len(mails) != 1 || mails[0].Encrypted != c.encrypted {
					t.Errorf("%+v, %d mails, %+v", r, len(mails), dead)
				}
				if auth := strings.Contains(c.conf, "password"); len(mails) == 1 && auth != (mails[0].User == "obs") {
					t.Errorf("sent by %q", mails[0].User)
				}
				return
			}
			if r.Dead != 1 || len(mails) != 0 || len(dead) != 1 || !strings.Contains(dead[0].Reason, c.err) {
				t.Fatalf("%+v, %d mails, %+v", r, len(mails), dead)
			}
			want := quick.attempts
			if c.dead {
				want = 1
			}
			if dead[0].Attempts != want {
				t.Errorf("%d attempts, want %d: %s", dead[0].Attempts, want, dead[0].Reason)
			}
			w.hidden()
		})
	}
}

// One bad address keeps the mail from nobody else, and who has it gets it once.
func TestMailRecipients(t *testing.T) {
	for _, c := range []struct {
		name   string
		refuse map[string]int
		mails  int
		dead   string
		tries  int
	}{
		{"one refused for good", map[string]int{"ops@example.com": 550}, 1, "recipient ops@example.com: the server answered 550", 1},
		{"one refused for now", map[string]int{"more@example.com": 450}, 1, "recipient more@example.com: the server answered 450", quick.attempts},
		{"all refused for good", map[string]int{"ops@example.com": 550, "more@example.com": 551}, 0, "answered 551", 1},
		{"one for good, one for now", map[string]int{"ops@example.com": 550, "more@example.com": 451}, 0, "answered 451", quick.attempts},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := mailServer(t, notifytest.MailOptions{Refuse: c.refuse})
			w := newWorld(t, mailConfig, s.PortText(), "tls: none")
			w.send(UpgradeStarted)
			r := w.deliver()
			dead := w.status().Dead
			if r.Dead != 1 || len(s.Mails()) != c.mails || !strings.Contains(dead[0].Reason, c.dead) || dead[0].Attempts != c.tries {
				t.Fatalf("%+v, %d mails, %+v", r, len(s.Mails()), dead)
			}
			for _, m := range s.Mails() {
				if len(m.To) != 1 || c.refuse[m.To[0]] != 0 || !strings.Contains(m.Header("To"), "more@example.com") {
					t.Errorf("to %v: %s", m.To, m.Header("To"))
				}
			}
		})
	}
}

// A refused mail is tried again or not, by the code.
func TestMailRefused(t *testing.T) {
	for _, c := range []struct {
		codes []int
		want  Report
	}{{[]int{451, 452}, Report{Sent: 1}}, {[]int{554}, Report{Dead: 1}}, {[]int{421, 554}, Report{Dead: 1}}} {
		t.Run(fmt.Sprint(c.codes), func(t *testing.T) {
			s := mailServer(t, notifytest.MailOptions{RefuseMail: c.codes})
			w := newWorld(t, mailConfig, s.PortText(), "tls: none")
			w.send(UpgradeStarted)
			if r := w.deliver(); r != c.want {
				t.Errorf("%+v, want %+v: %+v", r, c.want, w.status().Dead)
			}
			if n := len(s.Mails()); n != c.want.Sent {
				t.Errorf("%d mails", n)
			}
		})
	}
}

// Two attempts of one message are one mail to who looks at the Message-ID.
func TestMailIdentity(t *testing.T) {
	w := newWorld(t, mailConfig, "25", "tls: none")
	s, err := newSender(w.root, w.conf().Channels[0], w.logger())
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{}
	for _, m := range []*message{
		{ID: "0000000000000001", Data: Sample(UpgradeStarted)}, {ID: "0000000000000001", Data: Sample(UpgradeStarted), Attempts: 3}, {ID: "0000000000000002", Data: Sample(UpgradeFailed)},
	} {
		data, err := s.(*email).compose(m)
		if err != nil {
			t.Fatal(err)
		}
		ids[notifytest.Mail{Data: data}.Header("Message-ID")] = true
	}
	if len(ids) != 2 || ids[""] {
		t.Errorf("%v", ids)
	}
}

// A server that says nothing is given up after the channel's timeout.
func TestMailHangs(t *testing.T) {
	s := mailServer(t, notifytest.MailOptions{Hang: true})
	w := newWorld(t, mailConfig, s.PortText(), "timeout: 1s")
	began := time.Now()
	got := Try(t.Context(), w.root, w.conf(), w.conf().Channels, "", w.logger())
	if took := time.Since(began); took < time.Second || took > 20*time.Second {
		t.Errorf("it took %s", took)
	}
	if len(got) != 1 || got[0].OK || !strings.Contains(got[0].Error, "no end after 1s (the channel's timeout)") || !strings.Contains(got[0].Error, "127.0.0.1:"+s.PortText()) {
		t.Errorf("%+v", got)
	}
}
