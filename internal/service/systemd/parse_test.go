package systemd

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/observability-upgrade/observability-upgrade/internal/service"
)

func TestParseJournal(t *testing.T) {
	at := `"__REALTIME_TIMESTAMP":"1700000000000001"`
	for _, c := range []struct {
		in   string
		want service.LogLine
		mgr  bool
		err  string
	}{
		{in: `{` + at + `,"MESSAGE":"hello","PRIORITY":"6","_PID":"77"}`, want: service.LogLine{Priority: 6, Message: "hello"}},
		{in: `{` + at + `,"MESSAGE":"Started.","PRIORITY":"6","_PID":"1"}`, want: service.LogLine{Priority: 6, Message: "Started."}, mgr: true},
		{in: `{` + at + `,"MESSAGE":"x","SYSLOG_IDENTIFIER":"systemd"}`, want: service.LogLine{Priority: -1, Message: "x"}, mgr: true},
		{in: `{` + at + `,"MESSAGE":[104,105,255]}`, want: service.LogLine{Priority: -1, Message: "hi\uFFFD"}},
		{in: `{` + at + `,"MESSAGE":["first","second"],"PRIORITY":["3","4"]}`, want: service.LogLine{Priority: 3, Message: "first"}},
		{in: `{` + at + `,"MESSAGE":[[104,105],"second"]}`, want: service.LogLine{Priority: -1, Message: "hi"}},
		{in: `{` + at + `,"MESSAGE":null,"PRIORITY":"11"}`, want: service.LogLine{Priority: -1}},
		{in: `{` + at + `,"MESSAGE":[]}`, want: service.LogLine{Priority: -1}},
		{in: `{` + at + `}`, want: service.LogLine{Priority: -1}},
		{in: `{` + at + `,"MESSAGE":[104,999]}`, err: "MESSAGE"},
		{in: `{` + at + `,"MESSAGE":{"a":1}}`, err: "MESSAGE"},
		{in: `{` + at + `,"MESSAGE":[[["a"]]]}`, err: "MESSAGE"},
		{in: `{"MESSAGE":"no time"}`, err: "__REALTIME_TIMESTAMP"},
		{in: `not JSON`, err: "journal entry 1"},
	} {
		got, err := parseJournal([]byte(c.in + "\n\n"))
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v, expected %q", c.in, err, c.err)
			}
			continue
		}
		c.want.Time = time.UnixMicro(1700000000000001)
		if err != nil || len(got) != 1 || got[0].LogLine != c.want || got[0].manager != c.mgr {
			t.Errorf("%s: %+v, %v, expected %+v", c.in, got, err, c.want)
		}
	}
}

func FuzzJournal(f *testing.F) {
	f.Add([]byte(`{"__REALTIME_TIMESTAMP":"1","MESSAGE":"a","PRIORITY":"3"}`))
	f.Add([]byte(`{"__REALTIME_TIMESTAMP":"1","MESSAGE":[1,2,3]}` + "\n" + `{"__REALTIME_TIMESTAMP":"1","MESSAGE":[["a"],null]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := parseJournal(data)
		if err != nil && entries != nil {
			t.Errorf("entries with an error: %v, %v", entries, err)
		}
		for _, e := range entries {
			if e.Priority < -1 || e.Priority > 7 {
				t.Errorf("priority %d", e.Priority)
			}
		}
	})
}

func TestOwn(t *testing.T) {
	line := func(s string) service.LogLine { return service.LogLine{Message: s} }
	entries := []entry{{line("Started"), true, ""}, {line("bad flag"), false, ""}, {line("Failed"), true, ""}}
	if got := own(entries); !slices.Equal(got, []service.LogLine{line("bad flag")}) {
		t.Errorf("%v", got)
	}
	if got := service.Tail(own([]entry{entries[0], entries[2]}), 1); got != "Failed" {
		t.Errorf("%q", got)
	}
}

func TestOfStart(t *testing.T) {
	began := time.Unix(1700000000, 0)
	for name, c := range map[string]struct {
		in         string // a letter an entry: a, b of a start; - of none; _ of none, systemd's
		invocation string
		began      int // index of the first entry since then; -1 when not known
		want       string
	}{
		"nothing":                          {"", "b", 0, ""},
		"one start":                        {"aabb", "b", 2, "bb"},
		"an older start":                   {"aabb", "a", -1, "aa"},
		"said before systemd said started": {"aa-bb", "b", 2, "-bb"},
		"said too late":                    {"aabb-", "b", 2, "bb-"},
		"of the start before":              {"aa-bb-", "b", 3, "bb-"},
		"all of no start":                  {"--", "b", 0, "--"},
		"all older":                        {"aa-", "b", -1, ""},
		"systemd, of no start":             {"b_b_", "b", 0, "bb"},
		"unloaded":                         {"aab-b-", "", -1, "b-b-"},
		"unloaded, of no start":            {"--", "", -1, "--"},
		"unloaded, first of no start":      {"-a", "", -1, "a"},
		"late words of the start before":   {"aabab-", "b", 2, "bb-"},
	} {
		t.Run(name, func(t *testing.T) {
			var entries []entry
			for i, r := range c.in {
				e := entry{invocation: string(r), manager: r == '_'}
				if r == '-' || r == '_' {
					e.invocation = ""
				}
				e.Time = began.Add(time.Duration(i-c.began) * time.Second)
				e.Message = string(r)
				entries = append(entries, e)
			}
			since := began
			if c.began < 0 {
				since = time.Time{}
			}
			got := ""
			for _, e := range ofStart(entries, c.invocation, since) {
				got += e.Message
			}
			if got != c.want {
				t.Errorf("%q, expected %q", got, c.want)
			}
		})
	}
}

func TestQuery(t *testing.T) {
	got := strings.Join(query{unit: "a.service", since: time.UnixMicro(1700000000000012), limit: 5}.args(), " ")
	if want := "-o json -a --no-pager -q -n 5 --since=@1700000000.000012 -u a.service"; got != want {
		t.Errorf("%s, expected %s", got, want)
	}
}

func FuzzProcs(f *testing.F) {
	f.Add([]byte("1\n0\n23\n"))
	f.Add([]byte("-4"))
	f.Fuzz(func(t *testing.T, data []byte) {
		pids, err := parseProcs(data)
		if err == nil && slices.ContainsFunc(pids, func(pid int) bool { return pid < 1 }) {
			t.Errorf("%q: %v", data, pids)
		}
	})
}

func TestProcesses(t *testing.T) {
	root := t.TempDir()
	m := &Manager{groupRoots: []string{root, filepath.Join(root, "absent")}}
	group := filepath.Join(root, "system.slice/a.service")
	if err := os.MkdirAll(filepath.Join(group, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{"cgroup.procs": "12\n0\n9\n", "sub/cgroup.procs": "9\n30\n", "sub/cgroup.threads": "99\n"} {
		if err := os.WriteFile(filepath.Join(group, path), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if pids, err := m.processes("/system.slice/a.service"); err != nil || !slices.Equal(pids, []int{9, 12, 30}) {
		t.Errorf("%v, %v", pids, err)
	}
	for _, none := range []string{"", "/", "/system.slice/gone.service"} {
		if pids, err := m.processes(none); err != nil || pids != nil {
			t.Errorf("%q: %v, %v, expected none", none, pids, err)
		}
	}
	if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte("x\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := m.processes("/system.slice/a.service"); err == nil {
		t.Error("nonsense in cgroup.procs was taken for an empty group")
	}
}

func TestUnitProperties(t *testing.T) {
	m := &Manager{}
	u := unit{name: "a.service", props: map[string]any{
		"LoadState": "loaded", "ActiveState": "active", "SubState": "running", "Result": "success", "Type": "simple",
		"MainPID": uint32(0), "NRestarts": uint32(3), "ExecMainStatus": int32(-1), "User": "prometheus",
		"ExecStart":    [][]any{{"/bin/a", []string{"a", "-x", "y z"}, false}},
		"DropInPaths":  []string{"/etc/systemd/system/a.service.d/1.conf"},
		"InvocationID": []byte{0xab, 0x01}, "ExecMainStartTimestamp": uint64(1700000000000001), "NeedDaemonReload": true,
		"Restart": "always", "StartLimitIntervalUSec": uint64(0), "StartLimitBurst": uint32(5),
		"Job": []any{uint32(42), dbus.ObjectPath("/org/freedesktop/systemd1/job/42")},
	}}
	st := m.status(u)
	if !st.Exists || !st.Active || st.Failed || st.Restarts != 3 || st.InvocationID != "ab01" || !st.NeedDaemonReload || st.User != "prometheus" ||
		!slices.Equal(st.ExecStart, []string{"/bin/a", "-x", "y z"}) || len(st.DropIns) != 1 || !st.StartedAt.Equal(time.UnixMicro(1700000000000001)) {
		t.Errorf("%+v", st)
	}
	if st.Restart != "always" || !st.NoStartLimit || (unit{props: map[string]any{"StartLimitIntervalUSec": uint64(10_000_000), "StartLimitBurst": uint32(5)}}).noStartLimit() || (unit{}).noStartLimit() {
		t.Errorf("restart %q, no start limit %v", st.Restart, st.NoStartLimit)
	}
	if u.job() != 42 || u.num("ExecMainStatus") != -1 {
		t.Errorf("job %d, status %d", u.job(), u.num("ExecMainStatus"))
	}
	for _, c := range []struct {
		load, active, sub, kind string
		want                    service.Status
	}{
		{"loaded", "active", "exited", "oneshot", service.Status{Exists: true, Active: true}},
		{"loaded", "active", "exited", "simple", service.Status{Exists: true}},
		{"loaded", "reloading", "reload", "notify", service.Status{Exists: true, Active: true}},
		{"loaded", "activating", "auto-restart", "simple", service.Status{Exists: true, Activating: true}},
		{"loaded", "failed", "failed", "simple", service.Status{Exists: true, Failed: true}},
		{"masked", "inactive", "dead", "", service.Status{Exists: true, Masked: true}},
		{"not-found", "inactive", "dead", "", service.Status{}},
		{"not-found", "active", "running", "simple", service.Status{Active: true}},
		{"", "", "", "", service.Status{}},
	} {
		u := unit{props: map[string]any{"LoadState": c.load, "ActiveState": c.active, "SubState": c.sub, "Type": c.kind}}
		got := m.status(u)
		if got.Exists != c.want.Exists || got.Active != c.want.Active || got.Failed != c.want.Failed || got.Masked != c.want.Masked || got.Activating != c.want.Activating {
			t.Errorf("%+v: %+v, expected %+v", c, got, c.want)
		}
	}
	broken := unit{name: "a.service", props: map[string]any{"LoadState": "bad-setting", "LoadError": []any{"org.freedesktop.systemd1.BadUnitSetting", "Unit a.service has a bad unit file setting."}}}
	var load *service.LoadError
	if err := broken.usable(); !errors.As(err, &load) || !strings.Contains(err.Error(), "bad unit file setting") {
		t.Errorf("%v, expected a LoadError", err)
	}
}

func TestRefused(t *testing.T) {
	for name, want := range map[string]error{
		"org.freedesktop.systemd1.NoSuchUnit":           &service.NotFoundError{Unit: "a.service"},
		"org.freedesktop.systemd1.UnitMasked":           &service.MaskedError{Unit: "a.service"},
		"org.freedesktop.systemd1.JobTypeNotApplicable": service.ErrNoReload,
	} {
		err := refused("a.service", "start", dbus.Error{Name: name, Body: []any{"Unit a.service: text"}})
		if !strings.Contains(err.Error(), want.Error()) {
			t.Errorf("%s: %v, expected %v", name, err, want)
		}
	}
	var start *service.StartError
	if err := refused("a.service", "start", dbus.Error{Name: "org.freedesktop.systemd1.NoSuchUnit", Body: []any{"Unit b.service not found."}}); !errors.As(err, &start) || !strings.Contains(err.Error(), "b.service not found") {
		t.Errorf("%v, expected a StartError that names the other unit", err)
	}
	if err := refused("a.service", "start", dbus.Error{Name: "org.freedesktop.DBus.Error.AccessDenied", Body: []any{"no"}}); !strings.Contains(err.Error(), "run as root") {
		t.Error(err)
	}
}
