package layout

import "testing"

func TestTyped(t *testing.T) {
	for _, tt := range []struct {
		root Root
		text string
		want string
	}{
		{"/", "observability-upgrade status; mend it, then: observability-upgrade recover", "observability-upgrade status; mend it, then: observability-upgrade recover"},
		{"/srv/x", "observability-upgrade status; mend it, then: observability-upgrade recover", "observability-upgrade --root=/srv/x status; mend it, then: observability-upgrade --root=/srv/x recover"},
		{"/srv/x y", "`observability-upgrade adopt`, then plan", "`observability-upgrade --root='/srv/x y' adopt`, then plan"},
		{"/srv/x", "observability-upgrade --root=/srv/x apply --yes", "observability-upgrade --root=/srv/x apply --yes"},
		{"/srv/x", "observability-upgrade check --help", "observability-upgrade check --help"},
		{"/srv/x", "rm -r /srv/x/tmp/observability-upgrade, and look", "rm -r /srv/x/tmp/observability-upgrade, and look"},
		{"/srv/x", "install -m 0755 ./observability-upgrade /usr/local/bin/observability-upgrade", "install -m 0755 ./observability-upgrade /usr/local/bin/observability-upgrade"},
	} {
		if got := tt.root.Typed(tt.text); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.root, got, tt.want)
		}
	}
}
