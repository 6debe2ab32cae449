package notify

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/observability-upgrade/observability-upgrade/internal/config"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/notify/notifytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// planted is the secret of all tests; wherever it turns up, it has got out.
const planted = "pl4nted-s3cret/+value"

// world is an installation with a configuration.
type world struct {
	t    *testing.T
	root layout.Root
	log  *strings.Builder
}

// newWorld writes a configuration, in which %s stand for args; ${SECRET:planted} is
// there to be used.
func newWorld(t *testing.T, text string, args ...any) *world {
	t.Helper()
	w := &world{t: t, root: layout.Root(t.TempDir()), log: &strings.Builder{}}
	w.write(filepath.Join(w.root.SecretsDir(), "planted"), planted, 0o600)
	w.configure(text, args...)
	return w
}

func (w *world) write(path, text string, mode fs.FileMode) {
	w.t.Helper()
	err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), mode), os.Chmod(path, mode))
	if err != nil {
		w.t.Fatal(err)
	}
}

// configure replaces the configuration, which nobody sees half written.
func (w *world) configure(text string, args ...any) {
	w.t.Helper()
	path := w.root.Notifications()
	w.write(path+".new", fmt.Sprintf(text, args...), 0o644)
	if err := os.Rename(path+".new", path); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) load() (*config.Notifications, error) {
	return config.LoadNotifications(w.root, func(string) string { return "" })
}

func (w *world) conf() *config.Notifications {
	w.t.Helper()
	conf, err := w.load()
	if err != nil {
		w.t.Fatal(err)
	}
	return conf
}

// logger writes into w.log; it is for one goroutine at a time.
func (w *world) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (w *world) notifier() *Notifier {
	w.t.Helper()
	return Open(w.root, &hostfs.Host{}, w.conf(), slog.New(slog.DiscardHandler))
}

func (w *world) box() *box { return &box{dir: w.root.NotifyDir(), host: &hostfs.Host{}} }

// send queues an event, on the specification's sample data unless change makes it
// something else.
func (w *world) send(event string, change ...func(*Data)) {
	w.t.Helper()
	d := Sample(event)
	for _, f := range change {
		f(&d)
	}
	if err := w.notifier().Send(d); err != nil {
		w.t.Fatal(err)
	}
}

func run(id string) func(*Data) { return func(d *Data) { d.RunID = id } }

// quick are rules under which a whole life takes a moment.
var quick = rules{attempts: 4, first: 5 * time.Millisecond, max: 20 * time.Millisecond, growth: 2, jitter: 0.2, poll: 5 * time.Millisecond}

// deliverer is one with quick rules.
func (w *world) deliverer() *Deliverer {
	return &Deliverer{Root: w.root, Host: &hostfs.Host{}, Log: slog.New(slog.DiscardHandler), Load: w.load, rules: quick}
}

// deliver runs a deliverer to its end.
func (w *world) deliver() Report {
	w.t.Helper()
	r, err := w.deliverer().Run(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func (w *world) status() Status {
	w.t.Helper()
	s, err := Look(w.root, w.conf())
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// hidden fails if the planted secret is in a text or in any file below the notify
// directory.
func (w *world) hidden(texts ...string) {
	w.t.Helper()
	err := filepath.WalkDir(w.root.NotifyDir(), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		texts = append(texts, path+": "+string(data))
		if st, statErr := d.Info(); statErr == nil && filepath.Base(path) != "deliver.lock" && st.Mode().Perm() != 0o600 {
			w.t.Errorf("%s has mode %o", path, st.Mode().Perm())
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.t.Fatal(err)
	}
	for _, text := range texts {
		for _, part := range []string{planted, "pl4nted", "s3cret"} {
			if strings.Contains(text, part) {
				w.t.Errorf("%q is in: %s", part, text)
			}
		}
	}
}

func mailServer(t *testing.T, o notifytest.MailOptions) *notifytest.MailServer {
	t.Helper()
	s, err := notifytest.StartMail(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func httpServer(t *testing.T, answers ...notifytest.Answer) *notifytest.HTTPServer {
	t.Helper()
	s := notifytest.StartHTTP(nil, answers...)
	t.Cleanup(s.Close)
	return s
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-ctx.Done():
			t.Fatalf("not in 10 s: %s", what)
		case <-tick.C:
		}
	}
}
