package run_test

import (
	"testing"

	"github.com/observability-upgrade/observability-upgrade/internal/run/runtest"
)

// whole asserts the promises of docs/reference.md for the components, each
// of which must be at one of the versions given, and returns where each is.
func whole(t *testing.T, w *runtest.World, what string, allowed map[string][]string) map[string]string {
	t.Helper()
	at, err := w.Whole(allowed)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	return at
}

// holds asserts what the data directory holds, and nothing beside.
func holds(t *testing.T, w *runtest.World, what, samples, format string) {
	t.Helper()
	if err := w.Holds(samples, format); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// clean asserts that nothing happened that must never happen, and that no journal
// is open.
func clean(t *testing.T, w *runtest.World, what string) {
	t.Helper()
	if err := w.Clean(); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}
