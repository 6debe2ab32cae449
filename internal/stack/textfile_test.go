package stack

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
)

// opened opens a stack on an empty root with a policy, and gathers its notices.
func opened(t *testing.T, policy string, guard hostfs.Guard) (s *Stack, notices *[]string) {
	t.Helper()
	root := layout.Root(t.TempDir())
	if err := os.MkdirAll(root.Config(), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(root.Policy(), []byte(policy), 0o644); err != nil {
		t.Fatal(err)
	}
	notices = &[]string{}
	s, err := Open(t.Context(), Options{
		Root: root, Env: func(string) string { return "" }, Build: "1.2.3", Guard: guard,
		Notice: func(msg string) { *notices = append(*notices, msg) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, notices
}

const textfilePolicy = "metrics: {textfile: /textfile/upgrade.prom}\n"

func (s *Stack) mutate(t *testing.T, do func() error) error {
	t.Helper()
	return s.Mutate(t.Context(), "test", nil, func(context.Context) (string, error) { return "", do() })
}

func nothing() error { return nil }

// Every command that changes something brings the file up to date, below the
// root, and doing nothing leaves it as it is.
func TestTextfileAfterCommands(t *testing.T) {
	s, notices := opened(t, textfilePolicy, nil)
	path := s.Root.Path("textfile/upgrade.prom")
	hold := func() error { return s.Hold("loki", "", "audit", time.Time{}) }
	if err := s.mutate(t, hold); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(data), "observability_hold{component=\"loki\"} 1\n") {
		t.Fatalf("%v\n%s", err, data)
	}
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.mutate(t, nothing); err != nil {
		t.Fatal(err)
	}
	if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) {
		t.Errorf("the file was written again: %v", err)
	}
	// Also one that fails.
	boom := errors.New("boom")
	if err := s.mutate(t, func() error { _, _, err := s.Unhold("loki"); return errors.Join(boom, err) }); !errors.Is(err, boom) {
		t.Fatal(err)
	}
	if data, err = os.ReadFile(path); err != nil || strings.Contains(string(data), "loki") {
		t.Errorf("%v\n%s", err, data)
	}
	if len(*notices) > 0 {
		t.Errorf("%q", *notices)
	}
}

func TestNoTextfileWithoutPolicy(t *testing.T) {
	s, _ := opened(t, "", nil)
	if err := s.mutate(t, nothing); err != nil {
		t.Fatal(err)
	}
	found, err := filepath.Glob(s.Root.Path("*/*.prom"))
	if err != nil || len(found) > 0 {
		t.Errorf("%v %v", found, err)
	}
}

// What goes wrong with the file is told, and is the failure of nothing.
func TestTextfileFailsNothing(t *testing.T) {
	full := errors.New("no space left on device")
	for name, c := range map[string]struct {
		err  error
		told bool
	}{"full": {full, true}, "no rights": {os.ErrPermission, false}} {
		t.Run(name, func(t *testing.T) {
			s, notices := opened(t, textfilePolicy, func(_, target string) error {
				if strings.Contains(target, "textfile") {
					return c.err
				}
				return nil
			})
			if err := s.mutate(t, nothing); err != nil {
				t.Fatal(err)
			}
			told := slices.ContainsFunc(*notices, func(n string) bool {
				return strings.Contains(n, "metrics for node_exporter are not written") && strings.Contains(n, c.err.Error())
			})
			if told != c.told {
				t.Errorf("%q", *notices)
			}
		})
	}
}
