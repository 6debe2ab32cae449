package preflight

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/inventory"
)

func TestUnit(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*testing.T, *Input, *inventory.Installed)
		status component.CheckStatus
		words  []string
	}{
		"well": {status: component.CheckOK},
		"no unit": {
			change: func(_ *testing.T, _ *Input, i *inventory.Installed) { i.Status.Exists = false },
			status: component.CheckSkipped,
		},
		"masked": {
			change: func(_ *testing.T, _ *Input, i *inventory.Installed) { i.Status.Masked = true },
			status: component.CheckFail, words: []string{"systemctl unmask prometheus.service"},
		},
		"transient": {
			change: func(_ *testing.T, _ *Input, i *inventory.Installed) {
				i.Status.FragmentPath = "/run/systemd/transient/prometheus.service"
			},
			status: component.CheckFail, words: []string{"transient"},
		},
		"generated": {
			change: func(_ *testing.T, _ *Input, i *inventory.Installed) {
				i.Status.FragmentPath = "/run/systemd/generator.late/prometheus.service"
			},
			status: component.CheckFail, words: []string{"generated"},
		},
		"changed on disk": {
			change: func(_ *testing.T, _ *Input, i *inventory.Installed) { i.Status.NeedDaemonReload = true },
			status: component.CheckWarn, words: []string{"systemctl daemon-reload"},
		},
		"restarts": {
			change: func(_ *testing.T, _ *Input, i *inventory.Installed) { i.Status.Restart = "always" },
			status: component.CheckOK, words: []string{"Restart=always", "start limit"},
		},
		"restarts for ever": {
			change: func(_ *testing.T, _ *Input, i *inventory.Installed) {
				i.Status.Restart, i.Status.NoStartLimit = "always", true
			},
			status: component.CheckWarn, words: []string{"no start limit"},
		},
		"never restarts": {
			change: func(_ *testing.T, _ *Input, i *inventory.Installed) { i.Status.Restart = "no" },
			status: component.CheckOK, words: []string{"stays down"},
		},
		"starts a link": {
			change: func(t *testing.T, in *Input, i *inventory.Installed) {
				link := in.Root.Path("usr/bin/prometheus")
				if err := errors.Join(os.MkdirAll(in.Root.Path("usr/bin"), 0o755), os.Symlink(i.Path, link)); err != nil {
					t.Fatal(err)
				}
				i.RunsPath, i.Status.ExecStart = false, []string{link}
			},
			status: component.CheckOK,
		},
		"starts a file of the tree": {
			change: func(t *testing.T, in *Input, i *inventory.Installed) {
				write(t, in.Root.Path("opt/grafana/bin/grafana"), "", 0o755)
				i.RunsPath, i.Path, i.Status.ExecStart = false, in.Root.Path("opt/grafana"), []string{in.Root.Path("opt/grafana/bin/grafana")}
			},
			status: component.CheckOK,
		},
		"starts another": {
			change: func(t *testing.T, in *Input, i *inventory.Installed) {
				write(t, in.Root.Path("opt/prometheus"), "", 0o755)
				i.RunsPath, i.Status.ExecStart = false, []string{in.Root.Path("opt/prometheus")}
			},
			status: component.CheckFail, words: []string{"not run", "systemctl cat"},
		},
		"starts nothing": {
			change: func(_ *testing.T, in *Input, i *inventory.Installed) {
				i.RunsPath, i.Status.ExecStart = false, []string{in.Root.Path("gone")}
			},
			status: component.CheckFail, words: []string{"no such file"},
		},
		"starts it through env": {
			change: func(_ *testing.T, _ *Input, i *inventory.Installed) {
				i.RunsPath, i.Status.ExecStart = false, []string{"/usr/bin/env", "A=1", i.Path}
			},
			status: component.CheckOK,
		},
		"starts it through env, wherever that is": {
			change: func(_ *testing.T, _ *Input, i *inventory.Installed) {
				i.RunsPath, i.Status.ExecStart = false, []string{"env", "A=1", i.Path}
			},
			status: component.CheckOK,
		},
		"starts what is nowhere": {
			change: func(_ *testing.T, _ *Input, i *inventory.Installed) {
				i.RunsPath, i.Status.ExecStart = false, []string{"no-such-program", i.Path}
			},
			status: component.CheckFail, words: []string{"no-such-program", "not found"},
		},
		"starts who knows what": {
			change: func(t *testing.T, in *Input, i *inventory.Installed) {
				write(t, in.Root.Path("opt/start.sh"), "#!/bin/sh\n", 0o755)
				i.RunsPath, i.Status.ExecStart = false, []string{in.Root.Path("opt/start.sh")}
			},
			status: component.CheckWarn, words: []string{"cannot be seen"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			in := host(t, "prometheus")
			if tt.change != nil {
				tt.change(t, &in, in.Installed["prometheus"])
			}
			expect(t, Run(t.Context(), in), UnitFile, tt.status, tt.words...)
		})
	}
}

func TestImmutableBinary(t *testing.T) {
	in := host(t, "prometheus")
	path := in.Installed["prometheus"].Path
	set := func(flags int) error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		return unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags)
	}
	for letter, flag := range map[string]int{"i": flagImmutable, "a": flagAppendOnly} {
		if err := set(flag); err != nil {
			t.Skipf("chattr +%s is not possible here: %v", letter, err)
		}
		r := Run(t.Context(), in)
		if err := set(0); err != nil {
			t.Fatal(err)
		}
		expect(t, r, BinaryWritable, component.CheckFail, "chattr -"+letter+" "+path)
	}
	expect(t, Run(t.Context(), in), BinaryWritable, component.CheckOK)
}

func TestUnwritableDirectory(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root can write everywhere")
	}
	in := host(t, "prometheus")
	dir := in.Root.Path("usr/local/bin")
	if err := os.Chmod(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(dir, 0o755) })
	expect(t, Run(t.Context(), in), BinaryWritable, component.CheckFail, dir, "sudo")
}
