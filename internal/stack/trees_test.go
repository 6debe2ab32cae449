package stack

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/inventory"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/service"
)

// A directory that is replaced whole must hold nothing that anybody declares to be
// theirs, by whatever links it is named.
func TestOwnTree(t *testing.T) {
	for name, tt := range map[string]struct {
		links    map[string]string // target by link
		data     string
		config   string
		binaries map[string]string
		database string
		other    inventory.Installed
		want     string // "" for a tree that may be replaced
	}{
		"nothing in it":         {data: "/var/lib/tool", config: "/etc/tool"},
		"nothing is there":      {data: "/opt/tool/none", config: "/opt/tool/none.yml"},
		"a name that goes on":   {data: "/opt/tool-data"},
		"its data":              {data: "/opt/tool/data", want: "its data, "},
		"its configuration":     {config: "/opt/tool/conf", want: "its configuration, "},
		"the tree is one":       {config: "/opt/tool", want: "its configuration, "},
		"data behind a link":    {links: map[string]string{"/srv/data": "/opt/tool/data"}, data: "/srv/data", want: "its data, "},
		"data by a link in it":  {links: map[string]string{"/opt/tool/link": "/var/lib/tool"}, data: "/opt/tool/link", want: "its data, "},
		"a link on the way":     {links: map[string]string{"/opt/tool/link": "/var/lib"}, data: "/opt/tool/link/tool", want: "its data, "},
		"the tree by its link":  {links: map[string]string{"/opt/now": "/opt/tool"}, data: "/opt/now/data", want: "its data, "},
		"a program of its own":  {binaries: map[string]string{"ctl": "/opt/tool/bin"}, want: "its program ctl, "},
		"a program beside":      {binaries: map[string]string{"ctl": "/usr/bin/ctl"}},
		"another's program":     {other: inventory.Installed{Binaries: map[string]string{"other": "/opt/tool/bin"}}, want: "other's program other, "},
		"another's unit":        {other: inventory.Installed{Status: service.Status{DropIns: []string{"/opt/tool/bin"}}}, want: "other's unit, "},
		"another on other host": {other: inventory.Installed{Exec: []string{"ssh"}, Binaries: map[string]string{"other": "/opt/tool/bin"}}},
		"its database":          {data: "/var/lib/none", database: "tool.db", want: "its database, "},
		"a database elsewhere":  {data: "/var/lib/none", database: "other.db"},
		"this program's":        {links: map[string]string{"/var/backups/observability": "/opt/tool/data"}, want: "what this program keeps, "},
	} {
		t.Run(name, func(t *testing.T) {
			dir, err := filepath.EvalSymlinks(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			root := layout.Root(dir)
			for _, d := range []string{"/opt/tool/data", "/opt/tool/conf", "/opt/tool/bin", "/opt/tool-data", "/var/lib/tool", "/etc/tool", "/usr/bin/ctl", "/srv", "/var/backups"} {
				if err := os.MkdirAll(root.Path(d), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(root.Path("opt/tool/data/tool.db"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
			for link, target := range tt.links {
				if err := os.Symlink(root.Path(target), root.Path(link)); err != nil {
					t.Fatal(err)
				}
			}
			s := &Stack{Options: Options{Root: root}}
			tree := root.Path("opt/tool")
			in := &inventory.Installed{Component: &component.Component{Name: "tool"}, Binaries: map[string]string{"tool": tree}}
			in.Component.Data.Path, in.Component.Data.Backup.File = tt.data, tt.database
			if tt.config != "" {
				in.Component.Config.Paths = []string{tt.config}
			}
			for n, p := range tt.binaries {
				in.Binaries[n] = root.Path(p)
			}
			other := tt.other
			other.Component = &component.Component{Name: "other"}
			for n, p := range other.Binaries {
				other.Binaries[n] = root.Path(p)
			}
			for i, p := range other.Status.DropIns {
				other.Status.DropIns[i] = root.Path(p)
			}
			s.neighbours = []*inventory.Installed{in, &other}
			err = s.ownTree(in, tree)
			if (err != nil) != (tt.want != "") || err != nil && !strings.Contains(err.Error(), "found "+tt.want+dir) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}
