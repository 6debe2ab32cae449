package overview

import (
	"os"
	"testing"

	"github.com/observability-upgrade/observability-upgrade/internal/layout"
)

// What views read of the last look and of the backups.
func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"checked_at":"2026-01-01T00:00:00Z","components":[{"name":"x","current":"1.0.0","latest":"1.1.0","type":"minor","action":"upgrade"}],"errors":[]}`))
	f.Add([]byte(`[{"timestamp":"20260101_000000","complete":true,"bytes":9}]`))
	f.Add([]byte("null"))
	root := layout.Root(f.TempDir())
	if err := os.MkdirAll(root.Cache(), 0o700); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, path := range []string{root.LastCheck(), root.BackupList()} {
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		report, err := ReadCheck(root)
		if (err == nil) != (report != nil) {
			t.Fatalf("%+v %v", report, err)
		}
		if list, err := ReadBackups(root); err != nil && len(list) > 0 && list[0].Timestamp == "" {
			t.Logf("%+v %v", list, err)
		}
	})
}
