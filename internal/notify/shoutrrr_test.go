package notify

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/observability-upgrade/observability-upgrade/internal/notify/notifytest"
)

const serviceConfig = `channels:
  - name: phone
    type: shoutrrr
    enabled: true
    config: {url: "%s", timeout: 1s}
    events: [upgrade_available, upgrade_started, upgrade_completed, upgrade_failed, rollback_required, rollback_completed]
`

// Two services of the library, as a server gets them.
func TestServices(t *testing.T) {
	s := httpServer(t, notifytest.Answer{Status: 200, Body: `{"id": "x"}`})
	host := strings.TrimPrefix(s.URL, "http://")
	for _, c := range []struct {
		url   string
		check func(t *testing.T, r notifytest.Request, subject, body string)
	}{
		{"generic://" + host + "/hook/${SECRET:planted}?template=json&disabletls=yes", func(t *testing.T, r notifytest.Request, subject, body string) {
			var got map[string]string
			if err := json.Unmarshal(r.Body, &got); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(map[string]string{"title": subject, "message": body}, got); d != "" || r.Method != "POST" || !strings.HasPrefix(r.Path, "/hook/pl4nted") {
				t.Errorf("%s %s\n%s", r.Method, r.Path, d)
			}
		}},
		{"ntfy://:pl4nted@" + host + "/upgrades?scheme=http", func(t *testing.T, r notifytest.Request, subject, body string) {
			if r.Path != "/upgrades" || r.Header.Get("Title") != subject || string(r.Body) != body {
				t.Errorf("%s, title %q\n%s", r.Path, r.Header.Get("Title"), r.Body)
			}
			if got := r.Header.Get("Authorization"); got != "Basic "+base64.StdEncoding.EncodeToString([]byte(":pl4nted")) {
				t.Errorf("authorization %q", got)
			}
		}},
	} {
		t.Run(c.url[:4], func(t *testing.T) {
			w := newWorld(t, serviceConfig, c.url)
			if errs := Check(w.root, w.conf()); len(errs) > 0 {
				t.Fatal(errs)
			}
			w.send(UpgradeFailed)
			if r := w.deliver(); r != (Report{Sent: 1}) {
				t.Fatalf("%+v: %+v", r, w.status().Dead)
			}
			reqs := s.Requests()
			subject, body := render(w.conf(), Sample(UpgradeFailed))
			c.check(t, reqs[len(reqs)-1], subject, body)
			w.hidden()
		})
	}
}

func TestServiceAnswers(t *testing.T) {
	for status, tries := range map[int]int{404: 1, 401: 1, 429: quick.attempts, 500: quick.attempts} {
		s := httpServer(t, notifytest.Answer{Status: status, Echo: true})
		host := strings.TrimPrefix(s.URL, "http://")
		for _, url := range []string{"generic://" + host + "/pl4nted?disabletls=yes", "ntfy://u:pl4nted@" + host + "/topic-s3cret?scheme=http"} {
			w := newWorld(t, serviceConfig, url)
			w.send(UpgradeFailed)
			r := w.deliver()
			dead := w.status().Dead
			if r != (Report{Dead: 1}) || dead[0].Attempts != tries || dead[0].Reason == "" {
				t.Errorf("%d: %+v: %+v", status, r, dead)
			}
			w.hidden()
		}
	}
	w := newWorld(t, serviceConfig, "generic://127.0.0.1:1/pl4nted?disabletls=yes")
	got := Try(t.Context(), w.root, w.conf(), w.conf().Channels, "", w.logger())
	if got[0].OK || !strings.Contains(got[0].Error, "connection refused") {
		t.Errorf("%+v", got)
	}
	w.hidden(got[0].Error)
}

// A call that does not end in time is not made a second time beside itself: its
// outcome is waited for, and counts.
func TestServiceHangs(t *testing.T) {
	s := httpServer(t, notifytest.Answer{Hang: true}, notifytest.Answer{Status: 200})
	w := newWorld(t, serviceConfig, "generic://"+strings.TrimPrefix(s.URL, "http://")+"/?disabletls=yes")
	made, err := newSender(w.root, w.conf().Channels[0], w.logger())
	if err != nil {
		t.Fatal(err)
	}
	svc := made.(*service)
	m := &message{ID: "0000000000000001", Data: Sample(UpgradeFailed)}
	enough := errors.New("enough")
	attempt := func(m *message, d time.Duration) error {
		ctx, cancel := context.WithTimeoutCause(t.Context(), d, enough)
		defer cancel()
		return svc.send(ctx, m)
	}
	if err := attempt(m, 50*time.Millisecond); !errors.Is(err, enough) {
		t.Fatalf("%v", err)
	}
	if err := attempt(&message{ID: "0000000000000002", Data: m.Data}, 50*time.Millisecond); !errors.Is(err, enough) || !strings.Contains(err.Error(), "the attempt before this one has not ended") {
		t.Errorf("%v", err)
	}
	eventually(t, "the request", func() bool { return len(s.Requests()) > 0 })
	if len(s.Requests()) != 1 {
		t.Errorf("%d requests", len(s.Requests()))
	}
	// It ends well after all: nothing is sent twice.
	late := svc.late
	svc.late = &call{id: m.ID, result: make(chan error, 1)}
	svc.late.result <- nil
	if err := attempt(m, time.Minute); err != nil || len(s.Requests()) != 1 {
		t.Errorf("%v, %d requests", err, len(s.Requests()))
	}
	// It fails after all: it is sent anew.
	svc.late = &call{id: m.ID, result: make(chan error, 1)}
	svc.late.result <- errors.New("no")
	if err := attempt(m, time.Minute); err != nil || len(s.Requests()) != 2 {
		t.Errorf("%v, %d requests", err, len(s.Requests()))
	}
	s.Close()
	<-late.result
}

func TestServiceAddresses(t *testing.T) {
	for url, want := range map[string]string{
		"nosuch://pl4nted":                "there is no service",
		"logger://":                       "reaches nobody",
		"pushover://pl4nted":              "url: pushover does not take it",
		"discord://pl4nted@123":           "",
		"teams+https://pl4nted.test/path": "url: teams does not take it",
		"matrix://u:pl4nted@h.invalid/":   "", // it signs in only when something is sent
	} {
		w := newWorld(t, serviceConfig, url)
		errs := Check(w.root, w.conf())
		switch {
		case want == "" && len(errs) > 0:
			t.Errorf("%s: %v", url, errs)
		case want != "" && (len(errs) != 1 || !strings.Contains(errs[0].Message, want) || errs[0].Line != 5 || errs[0].File != w.root.Notifications()):
			t.Errorf("%s: %v", url, errs)
		}
		w.hidden(errs.Error())
	}
}
