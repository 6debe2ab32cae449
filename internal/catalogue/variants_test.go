package catalogue

import (
	"testing"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// Variants say how some releases differ from the definition. When an
// administrator replaces what they differ from, they no longer apply.
func TestOverrideDropsVariants(t *testing.T) {
	const variants = "variants: [{versions: \"<3.0.0\", checksums: old.txt}]\n"
	c, err := load(t, map[string]string{
		"mine.yaml":  "family: promu\nrole: exporter\nsource: {type: github, repo: a/b}\n" + variants,
		"karma.yaml": variants,
	})
	if err != nil {
		t.Fatal(err)
	}
	old := component.MustParseVersion("2.9.9")
	for _, name := range []string{"mine", "karma"} {
		if d, _ := c.Get(name); d.For(old).Checksums != "old.txt" || d.For(component.MustParseVersion("3.0.0")).Checksums == "old.txt" {
			t.Errorf("%s: %+v", name, d.Variants)
		}
	}
	f, _ := builtIn(t).Get("fail2ban_exporter")
	if len(f.Variants) == 0 {
		t.Fatal("fail2ban_exporter no longer has variants; take another component")
	}
	c, err = load(t, map[string]string{"fail2ban_exporter.yaml": "asset: mine_{version}.tar.gz\n"})
	if err != nil {
		t.Fatal(err)
	}
	f, _ = c.Get("fail2ban_exporter")
	if got := f.Vars("", "linux", "amd64", component.Release{Version: component.MustParseVersion("0.4.0")}).Asset; got != "mine_0.4.0.tar.gz" {
		t.Errorf("got %q", got)
	}
}
