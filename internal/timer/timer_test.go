package timer

import (
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/window"
	"github.com/observability-upgrade/observability-upgrade/internal/yamlfile"
)

var update = flag.Bool("update", false, "write the golden files anew")

var options = Options{Program: "/usr/local/bin/observability-upgrade", Policy: "minor", Schedule: []string{"Sat *-*-* 02:00:00 UTC", "Sun *-*-* 02:00:00 UTC"}, Delay: 15 * time.Minute, Windows: "saturday 02:00-06:00 UTC, sunday 02:00-06:00 UTC"}

func TestFiles(t *testing.T) {
	for name, text := range Files(options) {
		path := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), text); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// The unit that packages install is closed as the one written here.
func TestPackagedUnitIsHardened(t *testing.T) {
	unit, err := os.ReadFile("../../packaging/systemd/" + Recovery)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(unit), "\n"+hardening) {
		t.Errorf("packaging/systemd/%s does not have the settings of auto-enable", Recovery)
	}
}

// Who tells of a run, or of new releases, has the variables of the channels, from
// whichever unit it was started.
func TestUnitsHaveTheEnvironment(t *testing.T) {
	units := Files(options)
	for _, name := range []string{Recovery, "observability-upgrade-check.service"} {
		data, err := os.ReadFile("../../packaging/systemd/" + name)
		if err != nil {
			t.Fatal(err)
		}
		units["packaged "+name] = string(data)
	}
	delete(units, Timer)
	for name, text := range units {
		if !strings.Contains(text, "\n# What ${VARIABLE} in the configuration stands for, where an administrator says it.\nEnvironmentFile=-/etc/observability/environment\n") {
			t.Errorf("%s does not read /etc/observability/environment", name)
		}
	}
}

// exposure is the most that systemd may say of each service, in tenths, of how much
// it could do were it not ours. Those that need no root stay at 20 or below. It
// grows only with a reason that is written down beside the settings.
var exposure = map[string]string{
	Service:                               "44",
	Recovery:                              "44",
	"observability-upgrade-serve.service": "20",
	"observability-upgrade-check.service": "25", // root's, for the secrets of upstreams and to ask programs as nobody
}

// All services that packages install and that auto-enable writes are judged.
func TestExposure(t *testing.T) {
	help, err := exec.Command("systemd-analyze", "--help").CombinedOutput()
	if err != nil || !strings.Contains(string(help), "--threshold") {
		t.Skip("there is no systemd-analyze that judges files; as root: apt-get install systemd")
	}
	dir := t.TempDir()
	if _, err := Write(&hostfs.Host{}, dir, options); err != nil {
		t.Fatal(err)
	}
	units, err := filepath.Glob("../../packaging/systemd/*.service")
	if err != nil || len(units) < 3 {
		t.Fatalf("%v %v", units, err)
	}
	for _, unit := range append(units, filepath.Join(dir, Service), filepath.Join(dir, Recovery)) {
		most, ok := exposure[filepath.Base(unit)]
		if !ok {
			t.Errorf("%s: nobody has said how much it may be exposed", unit)
			continue
		}
		out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--threshold="+most, "--no-pager", unit).CombinedOutput()
		if err != nil {
			t.Errorf("%s is exposed more than %s: %v\n%s", unit, most, err, out)
		}
	}
}

// A program whose file has capabilities, as blackbox_exporter for its pings, cannot be
// started where they are out of reach: execve(2) says EPERM. The units that ask
// installed programs their version leave those that exporters have.
func TestProgramsWithCapabilitiesCanBeAsked(t *testing.T) {
	check, err := os.ReadFile("../../packaging/systemd/observability-upgrade-check.service")
	if err != nil {
		t.Fatal(err)
	}
	units := Files(options)
	for name, text := range map[string]string{Service: units[Service], Recovery: units[Recovery], "check": string(check)} {
		for _, want := range []string{"CAP_NET_BIND_SERVICE", "CAP_NET_RAW"} {
			if set := strings.Join(regexp.MustCompile(`(?m)^CapabilityBoundingSet=.*$`).FindAllString(text, -1), " "); !strings.Contains(set, want) {
				t.Errorf("%s has no %s: %s", name, want, set)
			}
		}
	}
}

// systemd reads the units without complaint.
func TestUnitsAreValid(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("systemd-analyze is not installed")
	}
	dir := t.TempDir()
	o := options
	o.Program = "/bin/true"
	if _, err := Write(&hostfs.Host{}, dir, o); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{Timer, Service, Recovery} {
		out, err := exec.Command("systemd-analyze", "verify", "--man=no", filepath.Join(dir, name)).CombinedOutput()
		for _, line := range strings.Split(string(out), "\n") {
			if strings.Contains(line, filepath.Join(dir, name)) {
				t.Errorf("%s: %s (%v)", name, line, err)
			}
		}
	}
}

func TestWriteAndRemove(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "system")
	h := &hostfs.Host{}
	if _, ok, err := Read(dir); ok || err != nil {
		t.Fatalf("%v, %v", ok, err)
	}
	changed, err := Write(h, dir, options)
	if err != nil || len(changed) != 3 {
		t.Fatalf("%v, %v", changed, err)
	}
	drop := filepath.Join(dir, Timer+".d", "mine.conf")
	if err := errors.Join(os.MkdirAll(filepath.Dir(drop), 0o755), os.WriteFile(drop, []byte("[Timer]\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if changed, err := Write(h, dir, options); err != nil || len(changed) != 0 {
		t.Errorf("the second time: %v, %v", changed, err)
	}
	got, ok, err := Read(dir)
	if err != nil || !ok || got.Policy != "minor" || got.Delay != options.Delay || got.Windows != options.Windows || !slices.Equal(got.Schedule, options.Schedule) {
		t.Errorf("%+v, %v, %v", got, ok, err)
	}
	o := options
	o.Policy = "patch_only"
	if changed, err := Write(h, dir, o); err != nil || !slices.Equal(changed, []string{Service, Timer}) {
		t.Errorf("another policy: %v, %v", changed, err)
	}
	if removed, err := Remove(h, dir); err != nil || len(removed) != 2 {
		t.Errorf("%v, %v", removed, err)
	}
	if removed, err := Remove(h, dir); err != nil || len(removed) != 0 {
		t.Errorf("removed twice: %v, %v", removed, err)
	}
	for _, path := range []string{drop, filepath.Join(dir, Recovery)} {
		if _, err := os.Stat(path); err != nil {
			t.Errorf("%s is gone: %v", path, err)
		}
	}
}

// Where a package has the recovery unit, none is put before it, and that one is
// enabled; one that was written here before the package came is still ours to keep up.
func TestPackagedUnitIsTaken(t *testing.T) {
	root := t.TempDir()
	dir, packaged := filepath.Join(root, "etc/systemd/system"), filepath.Join(root, "usr/lib/systemd/system")
	if err := errors.Join(os.MkdirAll(packaged, 0o755), os.WriteFile(filepath.Join(packaged, Recovery), []byte("[Service]\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	o := options
	o.Installed = []string{filepath.Join(root, "usr/local/lib/systemd/system"), packaged}
	h := &hostfs.Host{}
	if changed, err := Write(h, dir, o); err != nil || !slices.Equal(changed, []string{Service, Timer}) {
		t.Errorf("%v, %v", changed, err)
	}
	if links, err := Enable(h, dir, o); err != nil || len(links) != 2 {
		t.Errorf("%v, %v", links, err)
	}
	link := filepath.Join(dir, "multi-user.target.wants", Recovery)
	if to, err := filepath.EvalSymlinks(link); err != nil || to != filepath.Join(packaged, Recovery) {
		t.Errorf("%s leads to %s, %v", link, to, err)
	}
	if links, err := Enable(h, dir, o); err != nil || len(links) != 0 {
		t.Errorf("enabled twice: %v, %v", links, err)
	}
	if _, err := Write(h, dir, options); err != nil {
		t.Fatal(err)
	}
	o.Program = "/usr/bin/observability-upgrade"
	if changed, err := Write(h, dir, o); err != nil || !slices.Equal(changed, []string{Service, Recovery}) {
		t.Errorf("a unit of an earlier time: %v, %v", changed, err)
	}
}

func TestForeignUnitsAreLeftAlone(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{Service, Recovery} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("[Service]\nExecStart=/bin/mine\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var foreign *ForeignError
	if changed, err := Write(&hostfs.Host{}, dir, options); !errors.As(err, &foreign) || len(changed) != 0 {
		t.Errorf("%v, %v", changed, err)
	}
	if _, err := Remove(&hostfs.Host{}, dir); !errors.As(err, &foreign) {
		t.Errorf("%v", err)
	}
	// The recovery unit that installation put there is no hindrance.
	if err := os.Remove(filepath.Join(dir, Service)); err != nil {
		t.Fatal(err)
	}
	if changed, err := Write(&hostfs.Host{}, dir, options); err != nil || !slices.Equal(changed, []string{Service, Timer}) {
		t.Errorf("%v, %v", changed, err)
	}
}

// A timer is told to miss its windows only where systemd says so.
func TestMisses(t *testing.T) {
	if err := exec.Command("systemd-analyze", "calendar", "--iterations=2", "daily").Run(); err != nil {
		t.Skip("there is no systemd-analyze that tells the next moments; as root: apt-get install systemd")
	}
	must := func(day, start, end string) window.Set {
		w, err := window.New(day, start, end, "Europe/Berlin")
		if err != nil {
			t.Fatal(err)
		}
		return window.Set{w}
	}
	saturday := must("sat", "02:00", "06:00")
	narrow := must("", "02:00", "02:10")
	for name, c := range map[string]struct {
		schedule []string
		delay    time.Duration
		windows  window.Set
		want     bool
	}{
		"never in it":               {[]string{"*-*-* 13:00 UTC"}, 0, saturday, true},
		"another day":               {[]string{"Sun *-*-* 03:00 Europe/Berlin"}, 0, saturday, true},
		"no firing at all":          {[]string{"2020-01-01 03:00:00 UTC"}, 0, saturday, true},
		"at its start":              {saturday.Calendar(), 15 * time.Minute, saturday, false},
		"late in it":                {[]string{"Sat *-*-* 05:00 Europe/Berlin"}, 15 * time.Minute, saturday, false},
		"one of two":                {[]string{"*-*-* 13:00 UTC", "Sat *-*-* 02:00 Europe/Berlin"}, 0, saturday, false},
		"every hour":                {[]string{"*:00:00 UTC"}, 0, saturday, false},
		"every minute":              {[]string{"*:*"}, 0, saturday, false},
		"delayed beyond its end":    {narrow.Calendar(), 15 * time.Minute, narrow, true},
		"as long as it is let":      {narrow.Calendar(), Cap(15*time.Minute, narrow), narrow, false},
		"no windows":                {[]string{"*-*-* 13:00 UTC"}, 0, nil, false},
		"what systemd does not say": {[]string{"nonsense"}, 0, saturday, false},
	} {
		if got := Misses(t.Context(), t.TempDir(), Options{Schedule: c.schedule, Delay: c.delay}, c.windows, time.Now()); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	dir := t.TempDir()
	drop := filepath.Join(dir, Timer+".d", "mine.conf")
	if err := errors.Join(os.MkdirAll(filepath.Dir(drop), 0o755), os.WriteFile(drop, []byte("[Timer]\nOnCalendar=Sat 03:00\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if Misses(t.Context(), dir, Options{Schedule: []string{"*-*-* 13:00 UTC"}}, saturday, time.Now()) {
		t.Error("a drop-in has another schedule")
	}
}

// Hosts print moments in their own zone and then in UTC; releases of systemd count
// the moments in other words.
func TestParseCalendar(t *testing.T) {
	at := time.Date(2026, 11, 28, 18, 0, 0, 0, time.UTC)
	for text, want := range map[string][]time.Time{
		"Normalized form: Sat *-*-* 13:00:00\n    Next elapse: Sat 2026-11-28 13:00:00 EST\n       (in UTC): Sat 2026-11-28 18:00:00 UTC\n       From now: 1 day 18h left\n" +
			"   Iteration #2: Sat 2026-12-05 13:00:00 EST\n       (in UTC): Sat 2026-12-05 18:00:00 UTC\n": {at, at.AddDate(0, 0, 7)},
		"    Next elapse: Sat 2026-11-28 18:00:00 UTC\n       From now: 1 day 18h left\n       Iter. #2: Sat 2026-12-05 18:00:00 UTC\n": {at, at.AddDate(0, 0, 7)},
		"    Next elapse: never\n": nil,
	} {
		got, ok := parseCalendar(text)
		if !ok || !slices.EqualFunc(got, want, time.Time.Equal) {
			t.Errorf("%s%v %v", text, got, ok)
		}
	}
	if got, ok := parseCalendar("something else\n"); ok {
		t.Errorf("%v", got)
	}
}

// What the service has is what its unit reads and what drop-ins add.
func TestVariables(t *testing.T) {
	root := layout.Root(t.TempDir())
	dir := root.Path("etc/systemd/system")
	write := func(path, text string, mode os.FileMode) {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), mode), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := Variables(root, dir); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
	write(root.Environment(), "# a comment\n; C=1\nSMTP_HOST=mail.example.com\n SMTP_PORT = \"25\"\nEMPTY=\nQUOTED=''\nexport NOT=1\nLONG=a\\\nB=c\n", 0o600)
	if got, err := Variables(root, dir); err != nil || len(got) != 0 {
		t.Errorf("no unit reads it: %v, %v", got, err)
	}
	if _, err := Write(&hostfs.Host{}, dir, options); err != nil {
		t.Fatal(err)
	}
	write(filepath.Join(dir, Service+".d", "mine.conf"), "[Service]\nEnvironment=ONE=1 \"TWO=a b\"\nPassEnvironment=THREE\nEnvironmentFile=-/etc/other.env\n", 0o644)
	write(root.Path("etc/other.env"), "FOUR=4\n", 0o600)
	got, err := Variables(root, dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		"SMTP_HOST": true, "SMTP_PORT": true, "LONG": true, "ONE": true, "TWO": true, "THREE": true, "FOUR": true,
		"EMPTY": false, "QUOTED": false, "NOT": false, "B": false, "C": false,
	} {
		if got[name] != want {
			t.Errorf("%s: %v", name, got[name])
		}
	}
	write(root.Environment(), "A=1\n", 0o622)
	var insecure *yamlfile.InsecureError
	if _, err := Variables(root, dir); !errors.As(err, &insecure) {
		t.Errorf("others can write it: %v", err)
	}
}
