package run

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/observability-upgrade/observability-upgrade/internal/backup"
	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
)

// What another host's program prints is an answer or is none; a backup that it
// names is of the version asked for.
func FuzzRemoteAnswer(f *testing.F) {
	f.Add([]byte(`{"status":"success","components":[{"name":"x","status":"upgraded","to":"1.1.0"}]}`))
	f.Add([]byte(`{"error":{"code":4,"message":"refused"}}`))
	f.Add([]byte(`{"status":"failed","error":"text","components":[{"name":"x","error":"why"}]}`))
	f.Add([]byte(`{"backups":[{"timestamp":"20260101_000000","complete":true,"components":[{"name":"x","version":"1.0.0"}]}]}`))
	f.Add([]byte(`{"backups":[{"timestamp":"--force","complete":true,"components":[{"name":"x","version":"1.0.0"}]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var res remoteResult
		if json.Unmarshal(data, &res) == nil {
			_ = res.reason("x")
		}
		stamp, err := BackupOf(func(doc any, _ ...string) error { return json.Unmarshal(data, doc) }, "x", component.MustParseVersion("1.0.0"))
		if (err == nil) != backup.IsStamp(stamp) {
			t.Fatalf("%q %v", stamp, err)
		}
	})
}

// A result is read whole or not at all.
func FuzzResult(f *testing.F) {
	f.Add([]byte(`{"id":"20260101_000000","status":"success","components":[{"name":"x","from":"1.0.0","to":"1.1.0","status":"upgraded","downtime_seconds":0.5}],"backup_path":"/x","duration_seconds":3}`))
	f.Add([]byte(`{"components":null,"duration_seconds":1e400}`))
	f.Add([]byte("{"))
	root := layout.Root(f.TempDir())
	dir := filepath.Join(root.RunsDir(), "20260101_000000")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, "result.json"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		res, err := ReadResult(root, "20260101_000000")
		if (err == nil) != (res != nil) {
			t.Fatalf("%+v %v", res, err)
		}
	})
}
