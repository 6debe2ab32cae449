package script

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/observability-upgrade/observability-upgrade/internal/config"
	"github.com/observability-upgrade/observability-upgrade/internal/history"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/notify"
	"github.com/observability-upgrade/observability-upgrade/internal/notify/notifytest"
)

// planted is the secret of the scripts; wherever it turns up, it has got out.
const planted = "hunter2-planted"

type receiversKey struct{}

// receivers are the servers of a script.
type receivers struct {
	mail *notifytest.MailServer
	hook *notifytest.HTTPServer
}

// receive is `receive`: starts a mail server with STARTTLS and authentication and a
// web server, and plants the secret that both demand.
func receive(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) == 0, "receive")
	mail, err := notifytest.StartMail(notifytest.MailOptions{STARTTLS: true, User: "obs", Password: planted})
	ts.Check(err)
	ts.Defer(func() { ts.Check(mail.Close()) })
	hook := notifytest.StartHTTP(nil)
	ts.Defer(hook.Close)
	*ts.Value(receiversKey{}).(*receivers) = receivers{mail, hook}
	root := layout.Root(ts.Getenv("ROOT"))
	ts.Check(errors.Join(os.MkdirAll(root.SecretsDir(), 0o755), os.MkdirAll(root.Path("etc/observability/keys"), 0o755)))
	ts.Check(os.WriteFile(filepath.Join(root.SecretsDir(), "planted"), []byte(planted+"\n"), 0o600))
	ts.Check(os.WriteFile(root.Path("etc/observability/keys/mail-ca.pem"), mail.Cert.PEM, 0o644))
}

// notifications is `notifications FILE`: makes a file the notifications of the
// sandbox, with HOOK and MAILPORT in place of the servers' addresses.
func notifications(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) == 1, "notifications FILE")
	r := ts.Value(receiversKey{}).(*receivers)
	text := strings.NewReplacer("HOOK", r.hook.URL, "MAILPORT", r.mail.PortText()).Replace(ts.ReadFile(args[0]))
	ts.Check(os.WriteFile(layout.Root(ts.Getenv("ROOT")).Notifications(), []byte(text), 0o644))
}

// answer is `answer STATUS|hang...`: what the web server says from now on. A refusal
// repeats what it got.
func answer(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) > 0, "answer STATUS|hang...")
	var list []notifytest.Answer
	for _, a := range args {
		if a == "hang" {
			list = append(list, notifytest.Answer{Hang: true})
			continue
		}
		code, err := strconv.Atoi(a)
		ts.Check(err)
		list = append(list, notifytest.Answer{Status: code, Echo: code >= 400})
	}
	ts.Value(receiversKey{}).(*receivers).hook.Answer(list...)
}

// received is `received mail|hook N`: waits until that many have come in all.
func received(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) == 2, "received mail|hook N")
	want, err := strconv.Atoi(args[1])
	ts.Check(err)
	r := ts.Value(receiversKey{}).(*receivers)
	count := func() int {
		if args[0] == "mail" {
			return len(r.mail.Mails())
		}
		return len(r.hook.Requests())
	}
	for deadline := time.Now().Add(20 * time.Second); count() < want && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	if got := count(); got != want {
		ts.Fatalf("%s: %d, want %d", args[0], got, want)
	}
}

// told is `told EVENT [FIELD REGEXP]...`: waits until the web server has got the
// event, and checks fields of the newest of its kind. @FILE is what a file holds.
func told(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, false, len(args)%2 == 1, "[!] told EVENT [FIELD REGEXP]...")
	hook := ts.Value(receiversKey{}).(*receivers).hook
	find := func() any {
		for _, r := range slices.Backward(hook.Requests()) {
			var doc map[string]any
			ts.Check(json.Unmarshal(r.Body, &doc))
			if doc["event"] == args[0] {
				return doc
			}
		}
		return nil
	}
	if neg {
		if doc := find(); doc != nil {
			ts.Fatalf("%s was told: %v", args[0], doc)
		}
		return
	}
	doc := find()
	for deadline := time.Now().Add(20 * time.Second); doc == nil; doc = find() {
		if time.Now().After(deadline) {
			ts.Fatalf("%s was not told", args[0])
		}
		time.Sleep(10 * time.Millisecond)
	}
	for i := 1; i < len(args); i += 2 {
		got := lookUp(ts, doc, args[i])
		if file, ok := strings.CutPrefix(args[i+1], "@"); ok {
			args[i+1] = strings.TrimSpace(ts.ReadFile(file))
		}
		if !regexp.MustCompile(`(?s)\A(?:` + args[i+1] + `)\z`).MatchString(got) {
			ts.Fatalf("%s of %s is %q, %s was the expression", args[i], args[0], got, args[i+1])
		}
	}
}

// queue is `queue EVENT RUN`: tells of an event, as a run does. "last" is the run
// that the history knows last.
func queue(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) == 2, "queue EVENT RUN")
	root := layout.Root(ts.Getenv("ROOT"))
	conf, err := config.LoadNotifications(root, func(string) string { return "" })
	ts.Check(err)
	d := notify.Sample(args[0])
	d.RunID = args[1]
	if args[1] == "last" {
		db, err := history.OpenReadOnly(context.Background(), root.History())
		ts.Check(err)
		rows, err := db.List(context.Background(), history.Filter{Limit: 1})
		ts.Check(errors.Join(err, db.Close()))
		d.RunID = rows[0].RunID
	}
	ts.Check(notify.Open(root, &hostfs.Host{}, conf, slog.New(slog.DiscardHandler)).Send(d))
}

// nowhere is `nowhere`: the planted secret is in no file below the sandbox's root
// but where it was put, and in nothing that the last command printed.
func nowhere(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) == 0, "nowhere")
	check := func(name, text string) {
		if strings.Contains(text, planted) || strings.Contains(text, "hunter2") {
			ts.Fatalf("the secret is in %s: %s", name, text)
		}
	}
	check("stdout", ts.ReadFile("stdout"))
	check("stderr", ts.ReadFile("stderr"))
	root := layout.Root(ts.Getenv("ROOT"))
	ts.Check(filepath.WalkDir(string(root), func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // a file that was moved meanwhile
			return nil
		}
		if err != nil || !d.Type().IsRegular() || filepath.Dir(path) == root.SecretsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err == nil {
			check(path, string(data))
		}
		return nil
	}))
}
