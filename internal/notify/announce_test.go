package notify

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

func names(list []Component) []string {
	out := []string{}
	for _, c := range list {
		out = append(out, c.Name+"@"+c.LatestVersion)
	}
	return out
}

// A version is told once, not each time that somebody looks.
func TestFresh(t *testing.T) {
	w := newWorld(t, "%s", hooks("a", "http://127.0.0.1:1/"))
	n := Open(w.root, &hostfs.Host{}, w.conf(), w.logger())
	prom, loki := Component{Name: "prometheus", CurrentVersion: "1", LatestVersion: "2"}, Component{Name: "loki", CurrentVersion: "1", LatestVersion: "3"}
	fresh := func(want []string, list ...Component) func() error {
		t.Helper()
		got, commit, err := n.Fresh(list)
		if err != nil || !slices.Equal(names(got), want) {
			t.Errorf("%v, %v; want %v", names(got), err, want)
		}
		return commit
	}
	commit := fresh([]string{"prometheus@2"}, prom)
	fresh([]string{"prometheus@2"}, prom) // not committed: the message was not queued
	if err := commit(); err != nil {
		t.Fatal(err)
	}
	commit = fresh([]string{"loki@3"}, prom, loki)
	if err := commit(); err != nil {
		t.Fatal(err)
	}
	if err := fresh([]string{}, prom, loki)(); err != nil {
		t.Error(err)
	}
	prom.LatestVersion = "2.1"
	commit = fresh([]string{"prometheus@2.1"}, prom, loki)
	if err := commit(); err != nil {
		t.Fatal(err)
	}
	prom.LatestVersion = "2" // the newer one was withdrawn
	fresh([]string{}, prom)

	if err := os.WriteFile(n.announcedPath(), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	fresh([]string{"prometheus@2"}, prom)
	if _, err := os.Stat(n.announcedPath() + ".corrupt"); err != nil || !strings.Contains(w.log.String(), "moved aside") {
		t.Errorf("%v: %s", err, w.log)
	}
}

// Where nobody is told nothing counts as told.
func TestFreshWithoutChannel(t *testing.T) {
	w := newWorld(t, `channels: [{name: a, type: webhook, enabled: true, config: {url: "http://h/"}, events: [upgrade_failed]}]`)
	list := []Component{{Name: "prometheus", LatestVersion: "2"}}
	got, commit, err := w.notifier().Fresh(list)
	if err != nil || len(got) != 0 || commit() != nil {
		t.Errorf("%v, %v", got, err)
	}
	w.configure("%s", hooks("a", "http://h/"))
	if got, _, err := w.notifier().Fresh(list); err != nil || len(got) != 1 {
		t.Errorf("%v, %v", got, err)
	}
}

// What is remembered of a component does not grow for ever.
func TestFreshIsBounded(t *testing.T) {
	w := newWorld(t, "%s", hooks("a", "http://h/"))
	n := w.notifier()
	for i := range maxAnnounced + 5 {
		_, commit, err := n.Fresh([]Component{{Name: "p", LatestVersion: strings.Repeat("1", i+1)}})
		if err != nil || commit() != nil {
			t.Fatal(err)
		}
	}
	a, err := n.announced()
	if err != nil || len(a.Announced["p"]) != maxAnnounced || len(a.Announced["p"][0]) != 6 {
		t.Errorf("%v, %v", a, err)
	}
}
