package hold

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

var now = time.Date(2026, 11, 24, 2, 0, 0, 0, time.UTC)

func TestSetAndRemove(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lib", "holds.json")
	h := &hostfs.Host{}
	if list, err := Load(path); err != nil || len(list) != 0 {
		t.Fatalf("%v, %v", list, err)
	}
	for _, x := range []Hold{
		{Component: "loki", Reason: "audit", SetAt: now},
		{Component: "prometheus", Version: ">=3.0.0", Reason: "dashboards", Until: now.Add(time.Hour), SetAt: now},
		{Component: "loki", Reason: "audit, longer", SetAt: now.Add(time.Minute)},
	} {
		if err := Set(h, path, x); err != nil {
			t.Fatal(err)
		}
	}
	list, err := Load(path)
	if err != nil || len(list) != 2 || list[0].Reason != "audit, longer" || list[1].Version != ">=3.0.0" {
		t.Fatalf("%+v, %v", list, err)
	}
	if list[1].Ended(now) || !list[1].Ended(now.Add(time.Hour)) || list[0].Ended(now.AddDate(10, 0, 0)) {
		t.Error("ends are wrong")
	}
	if n, err := Remove(h, path, "loki"); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	before, _ := os.Stat(path)
	if n, err := Remove(h, path, "loki"); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if after, err := os.Stat(path); err != nil || !after.ModTime().Equal(before.ModTime()) {
		t.Errorf("a removal of nothing wrote the file: %v", err)
	}
	// One that ended goes when another is set.
	if err := Set(h, path, Hold{Component: "grafana", Reason: "x", SetAt: now.AddDate(0, 0, 1)}); err != nil {
		t.Fatal(err)
	}
	if list, err := Load(path); err != nil || len(list) != 1 || list[0].Component != "grafana" {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestCorrupt(t *testing.T) {
	for _, text := range []string{"", "{", `{"holds":[{"component":""}]}`, `{"holds":[{"component":"x","version":"~~"}]}`, `{"hold":[]}`, `{"holds":[]} {}`, `{"holds":[{"component":"x","until":"soon"}]}`} {
		path := filepath.Join(t.TempDir(), "holds.json")
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		var corrupt *CorruptError
		if _, err := Load(path); !errors.As(err, &corrupt) {
			t.Errorf("%q: %v", text, err)
		}
		if err := Set(&hostfs.Host{}, path, Hold{Component: "loki", SetAt: now}); !errors.As(err, &corrupt) {
			t.Errorf("%q is written over: %v", text, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"holds":[{"component":"loki","version":">=3.0.0","reason":"x","until":"2026-12-01T00:00:00Z","set_at":"2026-11-24T02:00:00Z"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := decode(data)
		for _, h := range list {
			if err != nil || h.Component == "" {
				t.Errorf("%+v, %v", h, err)
			}
		}
	})
}
