package backup

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

// A file that is named twice, by itself, by a link, or with the directory it is in, is
// kept once: a way back that has it twice would put it back and away again.
func TestFilesNamedTwice(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := os.MkdirAll(at("etc/tool.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"etc/tool.d/a", "etc/tool.d2", "etc/other", "program"} {
		if err := os.WriteFile(at(name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"etc/to-file": "etc/tool.d/a", "etc/to-dir": "etc/tool.d", "etc/tool.d/out": "etc/other"} {
		if err := os.Symlink(at(target), at(link)); err != nil {
			t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct {
		configs, units, want []string
		links                map[string]string
	}{
		"once":                      {configs: []string{"etc/tool.d2"}, want: []string{"config etc/tool.d2"}},
		"twice":                     {configs: []string{"etc/tool.d2", "etc/tool.d2"}, want: []string{"config etc/tool.d2"}},
		"a link to it":              {configs: []string{"etc/tool.d", "etc/to-dir"}, want: []string{"config etc/tool.d", "config etc/other"}, links: map[string]string{"etc/to-dir": "etc/tool.d"}},
		"a file in it":              {configs: []string{"etc/tool.d", "etc/tool.d/a", "etc/to-file"}, want: []string{"config etc/tool.d", "config etc/other"}, links: map[string]string{"etc/to-file": "etc/tool.d/a"}},
		"a unit by a link":          {units: []string{"etc/to-file"}, want: []string{"unit etc/tool.d/a"}, links: map[string]string{"etc/to-file": "etc/tool.d/a"}},
		"what a link in it is to":   {configs: []string{"etc/tool.d", "etc/other"}, want: []string{"config etc/tool.d", "config etc/other"}},
		"a name that goes on":       {configs: []string{"etc/tool.d", "etc/tool.d2"}, want: []string{"config etc/tool.d", "config etc/other", "config etc/tool.d2"}},
		"a unit that is configured": {configs: []string{"etc/other"}, units: []string{"etc/other"}, want: []string{"config etc/other", "unit etc/other"}},
	} {
		t.Run(name, func(t *testing.T) {
			sub := Subject{Name: "tool", Version: "1.0.0"}
			for _, c := range tt.configs {
				sub.Configs = append(sub.Configs, at(c))
			}
			for _, u := range tt.units {
				sub.Units = append(sub.Units, at(u))
			}
			p, err := Take(t.Context(), &hostfs.Host{}, "20260101_000000", Request{Dir: t.TempDir(), Now: time.Now(), Subjects: []Subject{sub}})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, it := range p.Manifest.Components[0].Items {
				rel, err := filepath.Rel(dir, it.Path)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, string(it.Kind)+" "+rel)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("it keeps %q, want %q", got, tt.want)
			}
			links := map[string]string{}
			for link, target := range tt.links {
				links[at(link)] = at(target)
			}
			if have := p.Manifest.Components[0].Links; !maps.Equal(have, links) {
				t.Errorf("it knows the links %q, want %q", have, links)
			}
		})
	}
}
