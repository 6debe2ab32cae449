package e2e

import (
	"context"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/doctest"
	"github.com/observability-upgrade/observability-upgrade/internal/notify/notifytest"
	"github.com/observability-upgrade/observability-upgrade/internal/trace/tracetest"
	"github.com/observability-upgrade/observability-upgrade/test/e2e/rig"
)

// checkout is where a reader has this repository.
const checkout = "/root/observability-upgrade"

// step is what is special about one command of a page.
type step struct {
	code  int    // with which it ends
	why   string // it does not end with 0
	types string // what the reader answers to its question, at a terminal
	until string // address that answers before the reader ends it with Ctrl+C
	says  string // regular expression that its output matches
	first func(*reader)
	after func(*reader)
}

// document is a page and what it supposes.
type document struct {
	name  string
	setup func(*reader)
	steps map[string]step // by the command as the page has it
	end   func(*reader)
	files map[string]string               // block that holds a text, which is no comment: the file that it is
	words map[string]func(*reader) string // what stands for something else on the reader's host
}

// upstream is the only thing that is different on a reader's host: where releases
// come from, in the environment.
const upstream = "OBSERVABILITY_UPGRADE_GITHUB_API_URL=http://127.0.0.1:8081"

// reader follows pages of the documentation on a host, word for word.
type reader struct {
	*host
	page   document
	notes  map[string]string // what setups and steps remember
	told   string            // what the last command said
	mails  func() []notifytest.Mail
	spans  func() []tracetest.Span
	setEnv string // assignments of the block
}

// follow does all that a page says, in order.
func (r *reader) follow(d document) {
	r.t.Helper()
	begun := time.Now()
	r.page = d
	r.MustRun(r.ctx, "sh", "-c", "rm -rf /etc/observability && mkdir -p "+checkout)
	if d.setup != nil {
		d.setup(r)
	}
	for _, b := range documentBlocks(r.t, d.name) {
		r.setEnv = ""
		for text, file := range d.files {
			if strings.Contains(b.Text, text) {
				b.File = file
			}
		}
		switch {
		case b.Language == "cron":
			r.command(b, strings.Join(strings.Fields(b.Text)[5:], " "))
		case b.Language == "sh" && b.File == "":
			for _, c := range b.Commands() {
				if _, ok := elsewhere[d.name][c]; !ok {
					r.command(b, c)
				}
			}
		case b.File != "":
			r.configure(b)
		}
		if r.t.Failed() {
			return // what follows builds on it
		}
	}
	if d.end != nil {
		d.end(r)
	}
	r.t.Logf("%s: %.1f s", d.name, time.Since(begun).Seconds())
}

// fill puts what is true on this host in the place of what stands for it. What it put
// there is left as it is: the hour of a run may be a word too.
func (r *reader) fill(text string) string {
	var pairs []string
	for _, word := range slices.SortedFunc(maps.Keys(r.page.words), func(a, b string) int { return len(b) - len(a) }) {
		if strings.Contains(text, word) {
			pairs = append(pairs, word, r.page.words[word](r))
		}
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

var assignment = regexp.MustCompile(`^[A-Z_]+=\S+$`)

// upgrade runs the program as the reader would, and insists on its exit code.
func (r *reader) upgrade(code int, args ...string) rig.Result {
	r.t.Helper()
	res, err := r.Run(r.ctx, append([]string{"env", upstream, program}, args...)...)
	r.check(err)
	if res.ExitCode != code {
		r.t.Fatalf("%v: exit code %d, want %d\n%s", args, res.ExitCode, code, res)
	}
	return res
}

// command types a command and looks at how it ends.
func (r *reader) command(b doctest.Block, line string) {
	r.t.Helper()
	s, filled := r.page.steps[line], r.fill(line)
	if s.first != nil {
		s.first(r)
		filled = r.fill(line)
	}
	if assignment.MatchString(filled) {
		r.setEnv += filled + "; "
		return
	}
	filled = r.setEnv + filled
	args := []string{
		"env", "-C", checkout, "SHELL=/bin/bash", upstream,
		"bash", "-o", "pipefail", "-c", filled,
	}
	begun := time.Now()
	var res rig.Result
	switch {
	case s.until != "":
		res = r.interrupted(s.until, args)
	case s.types != "":
		args = append(args[:5:5], "script", "--quiet", "--flush", "--return", "--command", filled, "/dev/null")
		cmd := r.Command(r.ctx, args...)
		cmd.Stdin = strings.NewReader(s.types)
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil {
			r.t.Fatalf("%s: %s: %v", b.Where(), line, err)
		}
		res = rig.Result{Stdout: string(out), ExitCode: cmd.ProcessState.ExitCode()}
	default:
		var err error
		res, err = r.Run(r.ctx, args...)
		r.check(err)
	}
	r.t.Logf("%s: %s (%.1f s)", b.Where(), filled, time.Since(begun).Seconds())
	r.told = res.Stdout + res.Stderr
	if res.ExitCode != s.code {
		r.t.Fatalf("%s: %s\nends with %d, want %d\n%s", b.Where(), filled, res.ExitCode, s.code, r.told)
	}
	if s.says != "" && !regexp.MustCompile(s.says).MatchString(r.told) {
		r.t.Fatalf("%s: %s\ndoes not say %q\n%s", b.Where(), filled, s.says, r.told)
	}
	if s.after != nil {
		s.after(r)
	}
}

// interrupted runs a command until an address answers, and then ends it as a person
// does.
func (r *reader) interrupted(address string, args []string) rig.Result {
	r.t.Helper()
	var out strings.Builder
	cmd := r.Command(r.ctx, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	r.check(cmd.Start())
	ctx, cancel := context.WithTimeout(r.ctx, 30*time.Second)
	defer cancel()
	ready := r.WaitHTTP(ctx, address, func(int, []byte) bool { return true })
	r.check(r.Kill(cmd, syscall.SIGINT))
	err := cmd.Wait()
	if ready != nil {
		r.t.Fatalf("%v: %v, %v\n%s", args, ready, err, &out)
	}
	return rig.Result{Stdout: out.String(), ExitCode: cmd.ProcessState.ExitCode()}
}

// configure writes a file that a page shows, and has it read by what it is for.
func (r *reader) configure(b doctest.Block) {
	r.t.Helper()
	r.check(r.MkdirAll(path.Dir(b.File)))
	r.check(r.WriteFile(b.File, []byte(r.fill(b.Text)), 0o644))
	var try []string
	switch unit, _, dropIn := strings.Cut(strings.TrimPrefix(b.File, "/etc/systemd/system/"), ".d/"); {
	case b.File == webConfig || r.page.files != nil && !strings.Contains(b.Text, b.File):
		return // read by the commands that follow
	case b.Language == "sh":
		r.MustRun(r.ctx, "chmod", "0755", b.File)
		try = []string{"bash", "-n", b.File}
	case strings.HasPrefix(b.File, "/etc/observability/"):
		try = []string{program, "config", "validate"}
	case strings.HasPrefix(b.File, "/etc/prometheus/"):
		try = []string{"promtool", "check", "config", "/etc/prometheus/prometheus.yml"}
	case dropIn && strings.HasPrefix(b.File, "/etc/systemd/system/"):
		r.MustRun(r.ctx, "systemctl", "daemon-reload")
		try = []string{"systemd-analyze", "verify", "--recursive-errors=no", unit}
	default:
		r.t.Fatalf("%s: nothing is known that reads %s", b.Where(), b.File)
	}
	res, err := r.Run(r.ctx, try...)
	r.check(err)
	r.t.Logf("%s: %s", b.Where(), b.File)
	if res.ExitCode != 0 || strings.Contains(res.Stderr, b.File) {
		r.t.Fatalf("%s: %s is not taken by %v\n%s", b.Where(), b.File, try, res)
	}
}

// lastRun is the id of the newest run.
func (r *reader) lastRun() string {
	r.t.Helper()
	var st status
	r.document(&st, 0, "status")
	if st.LastRun == nil {
		r.t.Fatal("there was no run")
	}
	return st.LastRun.ID
}

// point is the newest backup point whose listing `rollback --list` has a word of;
// "" is any.
func (r *reader) point(word string) string {
	r.t.Helper()
	for l := range strings.Lines(r.upgrade(0, "rollback", "--list").Stdout) {
		if f := strings.Fields(l); len(f) > 0 && stamp.MatchString(f[0]) && strings.Contains(l, word) {
			return f[0]
		}
	}
	r.t.Fatalf("there is no backup point with %q", word)
	return ""
}

var stamp = regexp.MustCompile(`^\d{8}_\d{6}(_\d+)?$`)

// secret puts a secret where a page says that it is.
func (r *reader) secret(name, value string) {
	r.t.Helper()
	r.check(r.MkdirAll("/etc/observability/secrets"))
	r.check(r.WriteFile("/etc/observability/secrets/"+name, []byte(value+"\n"), 0o600))
}

// answer is a step at which the reader says yes.
func answer(says string) step { return step{types: "y\n", says: says} }

// is a fixed word, noted one that a step remembered.
func is(text string) func(*reader) string { return func(*reader) string { return text } }

func noted(name string) func(*reader) string { return func(r *reader) string { return r.notes[name] } }

// documentBlocks are those of a document.
func documentBlocks(t testing.TB, name string) []doctest.Block {
	t.Helper()
	out, err := doctest.Blocks(repository, name)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func command(args ...any) string {
	return "observability-upgrade " + strings.TrimSpace(fmt.Sprintln(args...))
}
