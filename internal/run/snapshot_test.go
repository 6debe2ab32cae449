package run

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/observability-upgrade/observability-upgrade/internal/backup"
	"github.com/observability-upgrade/observability-upgrade/internal/health"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

// A component that was taken over names as its snapshot what is somebody else's, and
// puts a link there: nothing of that is read, and nothing removed.
func TestHostileSnapshot(t *testing.T) {
	for name, tc := range map[string]struct {
		answer string
		lay    func(data, victim string) error
		want   string
	}{
		"the directory of all": {answer: ".", want: "it answered"},
		"above":                {answer: "..", want: "it answered"},
		"a path":               {answer: "../../victim", want: "it answered"},
		"a path inside":        {answer: "a/b", want: "it answered"},
		"nothing":              {answer: "", want: "it answered"},
		"an option":            {answer: "-rf", want: "it answered"},
		"a link": {answer: "20260101T000000Z-1", lay: func(data, victim string) error {
			return os.Symlink(victim, filepath.Join(data, "snapshots/20260101T000000Z-1"))
		}, want: "expected a directory, found L"},
		"below a link": {answer: "keep", lay: func(data, victim string) error {
			return errors.Join(os.Remove(filepath.Join(data, "snapshots")), os.Symlink(victim, filepath.Join(data, "snapshots")))
		}, want: "snapshots"},
		"a file": {answer: "20260101T000000Z-1", lay: func(data, _ string) error {
			return os.WriteFile(filepath.Join(data, "snapshots/20260101T000000Z-1"), nil, 0o600)
		}, want: "expected a directory"},
		"one that there is not": {answer: "20260101T000000Z-1", want: "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			base := t.TempDir()
			data, victim := filepath.Join(base, "data"), filepath.Join(base, "victim")
			for _, dir := range []string{filepath.Join(data, "snapshots"), filepath.Join(victim, "keep")} {
				if err := os.MkdirAll(dir, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if tc.lay != nil {
				if err := tc.lay(data, victim); err != nil {
					t.Fatal(err)
				}
			}
			ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				_ = json.NewEncoder(w).Encode(map[string]any{"status": "success", "data": map[string]string{"name": tc.answer}})
			}))
			defer ts.Close()
			r := &running{Engine: &Engine{Prober: &health.Prober{}}}
			_, err := r.snapshot(&Data{URL: ts.URL}, Change{})(t.Context(), &hostfs.Host{}, &backup.DataSet{Path: data}, func(int64) {})
			var none *noSnapshotError
			if !errors.As(err, &none) || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("err = %v, want %q", err, tc.want)
			}
			for _, kept := range []string{filepath.Join(victim, "keep"), filepath.Join(data, "snapshots")} {
				if _, err := os.Lstat(kept); err != nil {
					t.Errorf("%s is gone", kept)
				}
			}
		})
	}
}
