package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/google/go-cmp/cmp"

	"github.com/observability-upgrade/observability-upgrade/test/e2e/rig"
)

// clone puts what a checkout has after `make build` where the reader is.
func clone(r *reader) {
	r.MustRun(r.ctx, "mkdir", "-p", checkout+"/bin", checkout+"/packaging/systemd")
	bin, err := filepath.EvalSymlinks(built.bin)
	r.check(err)
	r.check(r.CopyIn(bin, checkout+"/bin/observability-upgrade", 0o755))
	units, err := filepath.Glob(unitFiles + "/*")
	r.check(err)
	for _, u := range units {
		r.check(r.CopyIn(u, checkout+"/packaging/systemd/"+filepath.Base(u), 0o644))
	}
}

// forget takes away what earlier pages left of this program's own.
func forget(r *reader) {
	r.MustRun(r.ctx, "rm", "-rf", "/var/lib/observability", "/var/backups/observability", "/var/cache/observability")
}

// at asserts that components are at these lines of versions, and healthy.
func (r *reader) at(lines map[string]string) {
	r.t.Helper()
	for name, want := range lines {
		if got := r.agrees(name); line(got) != want {
			r.t.Errorf("%s is at %s, want %s", name, got, want)
		}
	}
}

var upgraded = map[string]string{"prometheus": "2.53", "alertmanager": "0.28", "node_exporter": "1.9"}

// From a checkout to a rollback, as the first page has it.
var readme = document{
	name: "README.md",
	setup: func(r *reader) {
		clone(r)
		r.MustRun(r.ctx, "rm", program)
	},
	steps: map[string]step{
		"systemctl enable observability-upgrade-recover.service": {after: func(r *reader) {
			r.MustRun(r.ctx, "systemctl", "is-enabled", "observability-upgrade-recover.service")
		}},
		command("adopt"): answer("(?s)prometheus +2.42.*Write this into the state file"),
		command("check"): {says: "prometheus.*2.42.*2.53"},
		command("plan"):  {says: "Sufficient disk space"},
		command("apply"): {types: "y\n", says: "Proceed with the upgrade", after: func(r *reader) { r.at(map[string]string{"prometheus": "2.53"}) }},
		command("rollback", "--previous"): {types: "y\n", says: "Proceed with the rollback", after: func(r *reader) {
			r.at(map[string]string{"prometheus": "2.42"})
			r.MustRun(r.ctx, "observability-rollback", "--list")
		}},
		command("history"): {says: "rolled_back"},
	},
}

var firstUpgrade = document{
	name:  "docs/first-upgrade.md",
	setup: forget,

	steps: map[string]step{
		command("adopt", "--dry-run"): {says: "prometheus +2.42.* adopt", after: func(r *reader) {
			// The table of the page is what is printed.
			if d := cmp.Diff(table(blockOf(r, "", "Component      Version")), table(r.told)); d != "" {
				r.t.Errorf("-page +printed\n%s", d)
			}
			r.MustRun(r.ctx, "test", "!", "-e", "/var/lib/observability/versions.state")
		}},
		command("adopt"): answer("Write this into the state file"),
		command("check"): {says: "prometheus.*2.42.*2.53"},
		command("plan"):  {says: "Sufficient disk space"},
		command("plan", "--component=prometheus"): {says: "2.42.* 2.53"},
		command("plan", "--target=patch"):         {says: "Nothing to upgrade"},
		command("apply"): {types: "y\n", says: "Proceed with the upgrade", after: func(r *reader) {
			r.at(upgraded)
			r.notes["apply"] = r.lastRun()
		}},
		command("history"): {says: "success"},
		command("verify"):  {says: "healthy", first: (*reader).waitSampled},
		command("rollback", "--list"): {after: func(r *reader) {
			if !strings.Contains(r.told, r.notes["apply"]) {
				r.t.Errorf("no %s in %s", r.notes["apply"], r.told)
			}
		}},
		command("rollback", "--previous"): {types: "y\n", says: "Proceed with the rollback", after: func(r *reader) { r.at(old) }},
	},
}

// A run that keeps data, and its way back.
var dataCopies = document{
	name:  "docs/data.md",
	setup: forget,
	words: map[string]func(*reader) string{"STAMP": noted("apply")},
	steps: map[string]step{
		command("apply", "--backup-data"): {types: "y\n", says: "Proceed with the upgrade", first: (*reader).waitSampled, after: func(r *reader) {
			r.at(upgraded)
			r.notes["apply"] = r.lastRun()
		}},
		command("rollback", "--previous", "--restore-data"):                                                           {types: "y\n", says: "(?i)collected since", after: func(r *reader) { r.at(old) }},
		"cd /var/backups/observability/STAMP && sha256sum -c SHA256SUMS && cd data && sha256sum -c prometheus.sha256": {says: `(?s)bin/prometheus: OK.*wal.*: OK`},
	},
}

func (r *reader) waitSampled() { r.waitSamples() }

// What the history tells of an upgrade that failed.
var history = document{
	name: "docs/history.md",
	setup: func(r *reader) {
		forget(r)
		r.jq()
		r.wrapped("echo 'I will not' >&2; exit 1")
		r.upgrade(5, "apply", "--yes", "--component=prometheus")
		r.notes["failed"] = r.lastRun()
		r.offer(newer)
	},
	words: map[string]func(*reader) string{
		"20261125_130000": noted("failed"),
		"17": func(r *reader) string {
			var doc struct {
				Upgrades []struct {
					ID     int64
					Status string
					Run    string `json:"run_id"`
				}
			}
			r.document(&doc, 0, "history", "--run="+r.notes["failed"])
			return fmt.Sprint(doc.Upgrades[0].ID)
		},
	},
	steps: map[string]step{
		command("history", "show", "last"): {says: "(?s)prometheus.*rolled_back.*Evidence.*I will not.*Steps"},
		command("history", "show", "17", "-o", "json") + " | jq -r '.evidence[].logs[].message'": {says: "I will not"},
		command("history"): {says: "rolled_back"},
		command("history", "--status=rolled_back", "--since=30d"):            {says: "prometheus"},
		command("history", "--run=20261125_130000"):                          {says: "(?s)prometheus.*rolled_back"},
		command("history", "stats"):                                          {says: "prometheus"},
		command("history", "--limit=0", "--output=csv", ">", "upgrades.csv"): {after: has("upgrades.csv", "prometheus")},
		command("history", "stats", "--output=csv", ">", "stats.csv"):        {after: has("stats.csv", "(total)")},
	},
}

// has looks into a file that a command wrote where the reader is.
func has(name, text string) func(*reader) {
	return func(r *reader) {
		r.t.Helper()
		if got, err := r.ReadFile(checkout + "/" + name); err != nil || !strings.Contains(string(got), text) {
			r.t.Errorf("%s does not hold %q: %v\n%s", name, text, err, got)
		}
	}
}

// A run that died half-way, a rollback that was a mistake, and the way back without
// this program.
var recovery = document{
	name: "docs/recovery.md",
	setup: func(r *reader) {
		forget(r)
		if res, err := r.Run(r.ctx, "env", upstream, "OBSUP_FAULT=kill-after:8", program, "apply", "--yes", "--component=prometheus"); err != nil || res.Signal == 0 && res.ExitCode != 137 {
			r.t.Fatalf("the run was not killed: %v %s", err, res)
		}
	},
	words: map[string]func(*reader) string{
		"TIMESTAMP": noted("point"),
	},
	steps: map[string]step{
		command("status"):                  {says: "(?i)interrupted"},
		command("history", "show", "last"): {says: "observability-upgrade recover"},
		command("recover"):                 {after: func(r *reader) { r.at(map[string]string{"prometheus": "2.42"}) }},
		command("rollback", "--list"): {
			first: func(r *reader) {
				r.upgrade(0, "apply", "--yes", "--component=prometheus")
				r.notes["apply"] = r.lastRun()
				r.upgrade(0, "rollback", "--previous", "--yes")
				r.notes["point"] = r.point("before rollback")
			},
			says: "before rollback",
		},
		command("rollback", "--to=TIMESTAMP"): {types: "y\n", says: "Proceed with the rollback", after: func(r *reader) {
			r.at(map[string]string{"prometheus": "2.53"})
			r.notes["point"] = r.notes["apply"]
		}},
		"cd $B && sha256sum -c SHA256SUMS": {says: "bin/prometheus: OK"},
		"cat $B/manifest.json":             {says: `"stored": *"bin/prometheus"`},
		command("adopt", "--yes"):          {after: func(r *reader) { r.at(map[string]string{"prometheus": "2.42"}) }},
	},
}

// blockOf is the block of the page that holds a text.
func blockOf(r *reader, language, text string) string {
	r.t.Helper()
	for _, b := range documentBlocks(r.t, r.page.name) {
		if b.Language == language && strings.Contains(b.Text, text) {
			return b.Text
		}
	}
	r.t.Fatalf("%s has no block with %q", r.page.name, text)
	return ""
}

// table has the cells of the table that begins a text, without a distribution's
// "+ds" and without the rule below its head.
func table(text string) [][]string {
	var out [][]string
	head, _, _ := strings.Cut(text, "\n\n")
	for l := range strings.Lines(strings.ReplaceAll(head, "+ds", "")) {
		if !strings.HasPrefix(l, "---") {
			out = append(out, strings.Fields(l))
		}
	}
	return out
}

// jq puts the distribution's jq on the host.
func (r *reader) jq() { r.packages("bookworm", "jq", "libjq1", "libonig5") }

// packages unpacks packages of a Debian suite on the host, as they are.
func (r *reader) packages(suite string, names ...string) {
	r.t.Helper()
	dirs, missing, err := rig.DebianPackages(r.ctx, suite, names, nil)
	r.check(err)
	for name, err := range missing {
		r.t.Skipf("%s of Debian %s is not to be had: %v", name, suite, err)
	}
	for _, name := range names {
		pack := exec.CommandContext(r.ctx, "tar", "-C", dirs[name], "-c", ".")
		unpack := r.Command(r.ctx, "tar", "-C", "/", "--keep-directory-symlink", "-x", "-p")
		var said strings.Builder
		unpack.Stderr = &said
		unpack.Stdin, err = pack.StdoutPipe()
		r.check(err)
		r.check(pack.Start())
		err = unpack.Run()
		r.check(errors.Join(err, pack.Wait()))
		if said.Len() > 0 {
			r.t.Logf("%s: %s", name, &said)
		}
	}
	r.MustRun(r.ctx, "ldconfig")
}

// offer lets upstream have these releases, and no others.
func (r *reader) offer(lines map[string][]string) {
	r.t.Helper()
	r.check(os.RemoveAll(filepath.Join(r.releases, "github")))
	r.check(r.kit.ReleaseDir(r.releases, lines))
}
