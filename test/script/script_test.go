// Package script tests the command line as a person or a script uses it: the
// scripts in testdata run the real program on a sandbox with two components and
// a release server. Every JSON document is checked against schemas/.
package script

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"aead.dev/minisign"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/observability-upgrade/observability-upgrade/internal/cli"
	"github.com/observability-upgrade/observability-upgrade/internal/demo"
	"github.com/observability-upgrade/observability-upgrade/internal/freeport"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/lock"
	"github.com/observability-upgrade/observability-upgrade/internal/sandbox"
	"github.com/observability-upgrade/observability-upgrade/internal/service"
	"github.com/observability-upgrade/observability-upgrade/internal/service/process"
	"github.com/observability-upgrade/observability-upgrade/internal/trace/tracetest"
)

const program = "observability-upgrade"

func TestMain(m *testing.M) {
	run := func() { os.Exit(cli.Main(os.Args, cli.System())) }
	testscript.Main(m, map[string]func(){program: run, "observability-rollback": run, "upgrade-rollback": run})
}

func TestScripts(t *testing.T) {
	schemas := loadSchemas(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "root":
				return os.Geteuid() == 0, nil
			case "sandboxed": // this host gives every layer of the sandbox; where not, a warning says so
				out, err := sandbox.Run(t.Context(), sandbox.Spec{Path: "/bin/true", Timeout: time.Minute})
				return len(out.Missing) == 0, err
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Setup: func(env *testscript.Env) error {
			env.Values[sandboxKey{}] = new(demo.Sandbox)
			env.Values[receiversKey{}] = new(receivers)
			env.Values[collectorKey{}] = new(tracetest.Collector)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"sandbox":  makeSandbox,
			"pair":     pair,
			"die":      die,
			"publish":  publish,
			"sign":     sign,
			"upgrade":  upgrade,
			"code":     code,
			"cut":      cut,
			"nobody":   asNobody,
			"field":    field,
			"helps":    helps,
			"lock":     holdLock,
			"tree":     tree,
			"flipbyte": flipByte,

			"receive":       receive,
			"notifications": notifications,
			"answer":        answer,
			"received":      received,
			"told":          told,
			"forget": func(ts *testscript.TestScript, neg bool, args []string) {
				need(ts, neg, len(args) == 0, "forget")
				ts.Value(receiversKey{}).(*receivers).hook.Forget()
			},
			"queue":   queue,
			"nowhere": nowhere,
			"collect": collect,
			"spans":   spans,
			"records": func(ts *testscript.TestScript, neg bool, args []string) {
				records(ts, neg, args, schemas)
			},
			"validate": func(ts *testscript.TestScript, neg bool, args []string) {
				need(ts, neg, len(args) == 2, "validate SCHEMA FILE")
				ts.Check(schemas.validate(args[0], []byte(ts.ReadFile(args[1]))))
			},
		},
	})
}

func need(ts *testscript.TestScript, neg, ok bool, usage string) {
	if neg || !ok {
		ts.Fatalf("usage: %s", usage)
	}
}

type sandboxKey struct{}

// makeSandbox is `sandbox [running]`: a new sandbox in $DIR with its root in
// $ROOT; running, its components run and are adopted.
func makeSandbox(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) == 0 || len(args) == 1 && args[0] == "running", "sandbox [running]")
	path, err := exec.LookPath(program)
	ts.Check(err)
	box, err := demo.New(context.Background(), path)
	ts.Check(err)
	ts.Defer(func() { ts.Check(box.Remove(context.Background())) })
	*ts.Value(sandboxKey{}).(*demo.Sandbox) = *box
	ts.Setenv("DIR", box.Dir)
	ts.Setenv("ROOT", string(box.Root))
	if len(args) == 1 {
		upgrade(ts, false, []string{"0", "restart", "--component=pulse,beacon", "--quiet"})
		upgrade(ts, false, []string{"0", "adopt", "--yes", "--quiet"})
	}
}

// pair is `pair here|there`: pulse gets two instances, a and b, behind a balancer
// that is a few files in $DIR (lb-a, lb-b, lb-log). Here, both run below $ROOT;
// there, b is on another host, which is another root.
func pair(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) == 1 && (args[0] == "here" || args[0] == "there"), "pair here|there")
	dir, root := ts.Getenv("DIR"), ts.Getenv("ROOT")
	port, claim, err := freeport.Claim()
	ts.Check(err)
	ts.Defer(func() { claim.Close() })
	listen := fmt.Sprintf("127.0.0.1:%d", port)
	file := filepath.Join(root, "etc/observability/components.d/pulse.yaml")
	own, err := os.ReadFile(file)
	ts.Check(err)
	there := fmt.Sprintf("health: {url: \"http://%s/-/ready\"}", listen)
	b := fmt.Sprintf("%s, process: {env: [\"LISTEN=%s\"]}", there, listen)
	if args[0] == "there" {
		path, err := exec.LookPath(program)
		ts.Check(err)
		other := filepath.Join(dir, "other")
		ts.Check(os.MkdirAll(filepath.Join(other, "usr/local/bin"), 0o755))
		ts.Check(os.CopyFS(filepath.Join(other, "etc"), os.DirFS(filepath.Join(root, "etc"))))
		binary, err := os.ReadFile(filepath.Join(root, "usr/local/bin/pulse"))
		ts.Check(err)
		ts.Check(os.WriteFile(filepath.Join(other, "usr/local/bin/pulse"), binary, 0o755))
		theirs := regexp.MustCompile(`http://127\.0\.0\.1:\d+`).ReplaceAllString(string(own), "http://"+listen)
		theirs = strings.Replace(theirs, "/bin/pulse\"]}", "/bin/pulse\"], env: [\"LISTEN="+listen+"\"]}", 1)
		ts.Check(os.WriteFile(filepath.Join(other, "etc/observability/components.d/pulse.yaml"), []byte(theirs), 0o644))
		b = there + fmt.Sprintf(", exec: [%q, %q]", path, "--root="+other)
		ts.Setenv("OTHER", other)
		ts.Defer(func() { stopProcess(ts, other, "pulse") })
		code(ts, false, []string{"0", program, "--root=" + other, "restart", "--component=pulse", "--quiet"})
	}
	lb := func(do string) string { return fmt.Sprintf("[sh, -c, '%s', sh, \"{server}\"]", do) }
	for _, name := range []string{"a", "b"} {
		ts.Check(os.WriteFile(filepath.Join(dir, "lb-"+name), []byte("admitted 0 1\n"), 0o644))
	}
	text := string(own) + fmt.Sprintf("balancer: {type: exec, stabilize: 100ms, status: %s, drain: %s, admit: %s}\n",
		lb("cat "+dir+"/lb-$1"), lb("echo drained 0 1 >"+dir+"/lb-$1; echo drain $1 >>"+dir+"/lb-log"), lb("echo admitted 0 1 >"+dir+"/lb-$1; echo admit $1 >>"+dir+"/lb-log")) +
		"instances:\n  - {name: a}\n  - {name: b, " + b + "}\n"
	ts.Check(os.WriteFile(file, []byte(text), 0o644))
	ts.Defer(func() { stopProcess(ts, root, "pulse@a"); stopProcess(ts, root, "pulse@b") })
	upgrade(ts, false, []string{"0", "restart", "--component=pulse", "--quiet"})
	ts.Check(os.RemoveAll(filepath.Join(dir, "lb-log")))
}

func stopProcess(ts *testscript.TestScript, root, name string) {
	r := layout.Root(root)
	_, err := process.New(process.Options{Dir: r.ProcessDir(), LogDir: r.LogDir()}).Stop(context.Background(), service.Service{Name: name}, 5*time.Second)
	ts.Check(err)
}

// die is `die NAME…`: the processes of components or instances end as by kill -9.
func die(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) > 0, "die NAME…")
	r := layout.Root(ts.Getenv("ROOT"))
	m := process.New(process.Options{Dir: r.ProcessDir(), LogDir: r.LogDir()})
	for _, name := range args {
		st, err := m.Status(context.Background(), service.Service{Name: name})
		ts.Check(err)
		need(ts, false, st.MainPID > 0, "die NAME of something that runs")
		ts.Check(syscall.Kill(st.MainPID, syscall.SIGKILL))
		for st.MainPID > 0 {
			st, err = m.Status(context.Background(), service.Service{Name: name})
			ts.Check(err)
		}
	}
}

// publish is `publish NAME VERSION [faulty]`.
func publish(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) == 2 || len(args) == 3 && args[2] == "faulty", "publish NAME VERSION [faulty]")
	ts.Check(ts.Value(sandboxKey{}).(*demo.Sandbox).Publish(args[0], args[1], len(args) == 3))
}

// sign is `sign NAME VERSION`: writes the release's checksum file and a minisign
// signature of it beside, and the public key to keys/demo.pub in the sandbox's
// configuration. The key is the same in a whole script.
func sign(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) == 2, "sign NAME VERSION")
	public, private, err := minisign.GenerateKey(bytes.NewReader(bytes.Repeat([]byte{7}, 64)))
	ts.Check(err)
	text, err := public.MarshalText()
	ts.Check(err)
	keys := filepath.Join(ts.Getenv("ROOT"), "etc/observability/keys")
	ts.Check(os.MkdirAll(keys, 0o755))
	ts.Check(os.WriteFile(filepath.Join(keys, "demo.pub"), append(text, '\n'), 0o644))
	dir := filepath.Join(ts.Getenv("DIR"), "releases/github/demo", args[0], "v"+args[1])
	archives, err := filepath.Glob(filepath.Join(dir, "*.tar.gz"))
	ts.Check(err)
	var sums []byte
	for _, a := range archives {
		data, err := os.ReadFile(a)
		ts.Check(err)
		sums = fmt.Appendf(sums, "%x  %s\n", sha256.Sum256(data), filepath.Base(a))
	}
	ts.Check(os.WriteFile(filepath.Join(dir, "sha256sums.txt"), sums, 0o644))
	ts.Check(os.WriteFile(filepath.Join(dir, "sha256sums.txt.minisig"), minisign.Sign(private, sums), 0o644))
}

// upgrade is `upgrade CODE ARG...`: the program on the sandbox, which must end
// with that exit code.
func upgrade(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) >= 2, "upgrade CODE ARG...")
	code(ts, false, append([]string{args[0], program, "--root=" + ts.Getenv("ROOT")}, args[1:]...))
}

// code is `code CODE PROGRAM ARG...`: a program that must end with that exit
// code.
func code(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) >= 2, "code CODE PROGRAM ARG...")
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *exec.ExitError
	switch err := ts.Exec(args[1], args[2:]...); {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// writeProgram writes what is executed at once: a child that another test forks
// meanwhile would have it open for writing until its own exec, and it would be busy.
func writeProgram(path string, data []byte) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(path, data, 0o755)
}

// asNobody is `nobody CODE ARG...`: the program on the sandbox as another user, who
// can read what everybody can; only root can try. What it printed is in
// nobody-stdout and nobody-stderr.
func asNobody(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) >= 2, "nobody CODE ARG...")
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	dir := ts.Getenv("DIR")
	path := filepath.Join(dir, program)
	if _, err := os.Stat(path); err != nil {
		self, err := os.ReadFile("/proc/self/exe") // which plays the program when it is called so
		ts.Check(err)
		ts.Check(writeProgram(path, self))
		ts.Check(os.Chmod(dir, 0o755))
	}
	cmd := exec.Command(path, append([]string{"--root=" + ts.Getenv("ROOT")}, args[1:]...)...)
	cmd.Env, cmd.Dir = []string{"PATH=/usr/bin:/bin", "HOME=/nonexistent"}, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534, Groups: []uint32{}}}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); cmd.ProcessState == nil {
		ts.Fatalf("%v", err)
	}
	ts.Check(os.WriteFile(ts.MkAbs("nobody-stdout"), stdout.Bytes(), 0o644))
	ts.Check(os.WriteFile(ts.MkAbs("nobody-stderr"), stderr.Bytes(), 0o644))
	if got := cmd.ProcessState.ExitCode(); got != want {
		ts.Fatalf("exit code %d, want %d:\n%s%s", got, want, stdout.String(), stderr.String())
	}
}

// cut is `cut CODE SIGNAL TEXT ARG...`: the program on the sandbox, which gets the
// signal (INT, QUIT, TERM or KILL) as soon as TEXT comes on its standard error,
// and must end with that exit code; -1 where the signal ends it. What it printed
// is in cut-stdout and cut-stderr.
func cut(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) >= 4, "cut CODE SIGNAL TEXT ARG...")
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	sig, ok := map[string]os.Signal{"INT": syscall.SIGINT, "QUIT": syscall.SIGQUIT, "TERM": syscall.SIGTERM, "KILL": syscall.SIGKILL}[args[1]]
	need(ts, false, ok, "cut CODE INT|QUIT|TERM|KILL TEXT ARG...")
	path, err := exec.LookPath(program)
	ts.Check(err)
	settling(ts, "1s", "5s") // so that the signal finds them settling, on a slow machine too
	defer settling(ts, "5s", "1s")
	cmd := exec.Command(path, append([]string{"--root=" + ts.Getenv("ROOT")}, args[3:]...)...)
	stdout, err := os.Create(ts.MkAbs("cut-stdout"))
	ts.Check(err)
	defer stdout.Close()
	cmd.Stdout = stdout
	stderr, err := cmd.StderrPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	var said strings.Builder
	sent := false
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		said.WriteString(lines.Text() + "\n")
		if !sent && strings.Contains(lines.Text(), args[2]) {
			sent = true
			ts.Check(cmd.Process.Signal(sig))
		}
	}
	_ = cmd.Wait() // its exit code is looked at
	ts.Check(os.WriteFile(ts.MkAbs("cut-stderr"), []byte(said.String()), 0o644))
	if got := cmd.ProcessState.ExitCode(); !sent || got != want {
		ts.Fatalf("exit code %d, want %d; signalled %v:\n%s", got, want, sent, said.String())
	}
}

// settling gives the sandbox's components another time to settle.
func settling(ts *testscript.TestScript, from, to string) {
	files, err := filepath.Glob(filepath.Join(ts.Getenv("ROOT"), "etc/observability/components.d/*.yaml"))
	ts.Check(err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		ts.Check(err)
		ts.Check(os.WriteFile(file, []byte(strings.Replace(string(text), "settle: "+from, "settle: "+to, 1)), 0o644))
	}
}

// field is `field FILE PATH REGEXP`: the value at PATH (keys and indexes joined
// by dots; a last "len" is the length) of a JSON document matches as a whole.
func field(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, false, len(args) == 3, "[!] field FILE PATH REGEXP")
	var doc any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &doc))
	got := lookUp(ts, doc, args[1])
	re, err := regexp.Compile(`(?s)\A(?:` + args[2] + `)\z`)
	ts.Check(err)
	if re.MatchString(got) == neg {
		ts.Fatalf("%s is %q, %s was the expression", args[1], got, args[2])
	}
}

func lookUp(ts *testscript.TestScript, doc any, path string) string {
	for _, key := range strings.Split(path, ".") {
		switch node := doc.(type) {
		case map[string]any:
			v, ok := node[key]
			if !ok {
				ts.Fatalf("%s: there is no key %q", path, key)
			}
			doc = v
		case []any:
			if key == "len" {
				doc = len(node)
				continue
			}
			i, err := strconv.Atoi(key)
			ts.Check(err)
			if i >= len(node) {
				ts.Fatalf("%s: there are only %d", path, len(node))
			}
			doc = node[i]
		default:
			ts.Fatalf("%s: nothing below %v", path, doc)
		}
	}
	if s, ok := doc.(string); ok {
		return s
	}
	data, err := json.Marshal(doc)
	ts.Check(err)
	return string(data)
}

// holdLock is `lock`: this process, as another run would, holds the sandbox's
// lock until the script ends.
func holdLock(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) == 0, "lock")
	l, err := lock.Acquire(ts.Value(sandboxKey{}).(*demo.Sandbox).Root.Lock(), "another run")
	ts.Check(err)
	ts.Defer(func() { ts.Check(l.Release()) })
}

// tree is `tree FILE DIR`: writes into FILE what is below DIR: names, modes,
// sizes, times of change and link targets, so that two can be compared.
func tree(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) == 2, "tree FILE DIR")
	var b strings.Builder
	top := ts.MkAbs(args[1])
	ts.Check(filepath.WalkDir(top, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(top, path)
		b.WriteString(rel + " " + st.Mode().String())
		if st.Mode().IsRegular() {
			b.WriteString(" " + strconv.FormatInt(st.Size(), 10) + " " + st.ModTime().String())
		}
		if to, err := os.Readlink(path); err == nil {
			b.WriteString(" " + to)
		}
		b.WriteByte('\n')
		return nil
	}))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(b.String()), 0o644))
}

// flipByte is `flipbyte PATTERN`: one bit of the one file that matches.
func flipByte(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) == 1, "flipbyte PATTERN")
	found, err := filepath.Glob(ts.MkAbs(args[0]))
	ts.Check(err)
	if len(found) != 1 {
		ts.Fatalf("%s matches %v, want one file", args[0], found)
	}
	data, err := os.ReadFile(found[0])
	ts.Check(err)
	data[len(data)/2] ^= 1
	st, err := os.Stat(found[0])
	ts.Check(err)
	ts.Check(os.WriteFile(found[0], data, st.Mode()))
}

var listed = regexp.MustCompile(`(?m)^  ([a-z][a-z-]*) {2,}\S`)

// helps is `helps`: --help of every command there is ends with 0, and shows an
// example where the command is the project's own.
func helps(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) == 0, "helps")
	queue := [][]string{nil}
	for len(queue) > 0 {
		path := queue[0]
		queue = queue[1:]
		code(ts, false, append(append([]string{"0", program}, path...), "--help"))
		text := ts.ReadFile("stdout")
		if _, examples, _ := strings.Cut(text, "\nExamples:\n  "); !strings.Contains(examples, program) {
			ts.Fatalf("%s --help shows no example", strings.Join(append([]string{program}, path...), " "))
		}
		_, list, _ := strings.Cut(text, "Available Commands:\n")
		list, _, _ = strings.Cut(list, "\n\n")
		for _, m := range listed.FindAllStringSubmatch(list, -1) {
			queue = append(queue, append(append([]string{}, path...), m[1]))
		}
	}
}
