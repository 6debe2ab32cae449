// Package e2e runs the real program against real Prometheus, Alertmanager and
// node_exporter under real systemd, in containers of the rig. As a plain user
// everything here is skipped, with the reason.
package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/releaseserver"
	"github.com/observability-upgrade/observability-upgrade/test/e2e/rig"
)

const program = "/usr/local/bin/observability-upgrade"

// releaseAddress is where the release server listens in the container.
const releaseAddress = "127.0.0.1:8081"

// built holds what all tests share: the kit and the program, built once.
var built struct {
	once sync.Once
	kit  *rig.Kit
	bin  string
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.bin != "" {
		_ = os.RemoveAll(filepath.Dir(built.bin))
	}
	os.Exit(code)
}

func shared(t testing.TB) (*rig.Kit, string) {
	t.Helper()
	if reason := rig.Available(); reason != "" {
		t.Skip("the rig cannot run here: " + reason)
	}
	built.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
		defer cancel()
		if built.kit, built.err = rig.Prepare(ctx, slog.New(slog.DiscardHandler)); built.err != nil {
			return
		}
		dir, err := os.MkdirTemp("", "obsup-e2e-")
		if err != nil {
			built.err = err
			return
		}
		built.bin = filepath.Join(dir, "observability-upgrade")
		cmd := exec.CommandContext(ctx, "go", "build", "-tags", "faultinject", "-o", built.bin, "../../cmd/observability-upgrade")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("build: %w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.kit, built.bin
}

// host is a container with the program, a stack and a release server.
type host struct {
	*rig.Container
	t        testing.TB
	ctx      context.Context
	kit      *rig.Kit
	bin      string // the program, where it is not at the constant's path
	releases string // directory that the server serves
	server   *releaseserver.Server
}

var old = map[string]string{"prometheus": "2.42", "alertmanager": "0.25", "node_exporter": "1.5"}

// newHost boots a container, installs old versions, and offers the lines given.
func newHost(t testing.TB, install map[string]string, offer map[string][]string) *host {
	t.Helper()
	return newHostWith(t, rig.Options{}, install, offer)
}

func newHostWith(t testing.TB, o rig.Options, install map[string]string, offer map[string][]string) *host {
	t.Helper()
	kit, bin := shared(t)
	available(t, kit, offer)
	limit := 30 * time.Minute
	if campaign() {
		limit = 2 * time.Hour
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	h := &host{t: t, ctx: ctx, kit: kit, releases: t.TempDir()}
	h.Container = kit.Start(ctx, t, o)
	h.check(h.InstallStack(ctx, install))
	h.check(h.CopyIn(bin, program, 0o755))
	h.offer(offer)
	h.file("/etc/observability/upgrade-policy.yaml", "upstream: {github: {api_url: \"http://127.0.0.1:8081\"}, cache_ttl: 0s}\n"+
		"timeouts: {stop: 30s, start: 30s, health: 30s}\nretention: {backups: 50}\n")
	for name := range install {
		h.settle(name, "1s")
	}
	return h
}

// optional are lines that only a moving suite of the distribution has.
var optional = []string{"3.5"}

// available skips a test that needs what the distribution's mirrors do not hold at
// present.
func available(t testing.TB, kit *rig.Kit, lines map[string][]string) {
	t.Helper()
	for name, of := range lines {
		for _, l := range of {
			if _, err := kit.Release(name, l); err != nil && slices.Contains(optional, l) {
				t.Skip(err)
			}
		}
	}
}

// offer serves releases of the lines given at releaseAddress.
func (h *host) offer(lines map[string][]string) {
	h.t.Helper()
	h.check(h.kit.ReleaseDir(h.releases, lines))
	h.server = releaseserver.New(releaseserver.Options{Dir: h.releases})
	l, err := h.Listen(h.ctx, "tcp", releaseAddress)
	h.check(err)
	srv := &http.Server{Handler: h.server, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	h.t.Cleanup(func() { _ = srv.Close(); <-done })
}

func (h *host) settle(component, d string) {
	h.file("/etc/observability/components.d/"+component+".yaml", "health: {settle: "+d+"}\n")
}

func (h *host) check(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) file(path, content string) {
	h.t.Helper()
	h.check(h.MkdirAll(filepath.Dir(path)))
	h.check(h.WriteFile(path, []byte(content), 0o644))
}

// upgrade runs the program and insists on its exit code.
func (h *host) upgrade(code int, args ...string) rig.Result {
	h.t.Helper()
	bin := program
	if h.bin != "" {
		bin = h.bin
	}
	res, err := h.Run(h.ctx, append([]string{bin}, args...)...)
	h.check(err)
	if res.ExitCode != code {
		h.t.Fatalf("%v: exit code %d, want %d\n%s", args, res.ExitCode, code, res)
	}
	return res
}

// document runs a command with JSON output and decodes it.
func (h *host) document(out any, code int, args ...string) {
	h.t.Helper()
	res := h.upgrade(code, append(args, "--output=json")...)
	if err := json.Unmarshal([]byte(res.Stdout), out); err != nil {
		h.t.Fatalf("%v: %v\n%s", args, err, res)
	}
}

type result struct {
	ID         string `json:"id"`
	Status     string `json:"status"`
	Error      struct{ Message, Hint string }
	BackupPath string `json:"backup_path"`
	Components []struct {
		Name, Instance, From, To, Status, Error, Evidence string
		Downtime                                          float64 `json:"downtime_seconds"`
	} `json:"components"`
	Warnings []string `json:"warnings"`
}

type componentStatus struct {
	Name, Current, Previous, Detail string
	Active, Healthy                 bool
	Instances                       []struct {
		Name, Current   string
		Active, Healthy bool
	}
}

type status struct {
	Components  []componentStatus `json:"components"`
	Interrupted *struct {
		ID string `json:"id"`
	} `json:"interrupted_run"`
	LastRun *struct{ ID, Status string } `json:"last_run"`
}

type stateFile struct {
	Components map[string]struct {
		Current  string `json:"current_version"`
		Previous string `json:"previous_version"`
		Checksum string `json:"checksum"`
		Path     string `json:"binary_path"`

		Instances map[string]string                  `json:"instances"`
		Failed    []struct{ Version, Reason string } `json:"failed_versions"`
	} `json:"components"`
}

func (h *host) state() stateFile {
	h.t.Helper()
	data, err := h.ReadFile("/var/lib/observability/versions.state")
	h.check(err)
	var s stateFile
	h.check(json.Unmarshal(data, &s))
	return s
}

type historyDoc struct {
	Upgrades []struct {
		Component    string `json:"component"`
		Old          string `json:"old_version"`
		New          string `json:"new_version"`
		Status       string `json:"status"`
		ErrorMessage string `json:"error_message"`
	} `json:"upgrades"`
}

var build = map[string]string{
	"prometheus": "http://127.0.0.1:9090/metrics", "alertmanager": "http://127.0.0.1:9093/metrics", "node_exporter": "http://127.0.0.1:9100/metrics",
}

// running is the version that a component's own metrics report, without a
// distribution's "+ds".
func (h *host) running(component string) string {
	h.t.Helper()
	_, body, err := h.Get(h.ctx, build[component])
	h.check(err)
	for line := range strings.Lines(string(body)) {
		if strings.HasPrefix(line, component+"_build_info{") {
			_, rest, _ := strings.Cut(line, `,version="`)
			v, _, _ := strings.Cut(rest, `"`)
			v, _, _ = strings.Cut(v, "+")
			return v
		}
	}
	h.t.Fatalf("%s reports no version", component)
	return ""
}

// installed is the version that the binary on disk tells.
func (h *host) installed(component string) string {
	h.t.Helper()
	res, err := h.Run(h.ctx, "/usr/local/bin/"+component, "--version")
	h.check(err)
	_, rest, ok := strings.Cut(res.Stdout+res.Stderr, ", version ")
	if !ok {
		h.t.Fatalf("%s --version: %s", component, res)
	}
	v, _, _ := strings.Cut(rest, " ")
	v, _, _ = strings.Cut(v, "+")
	return v
}

// agrees asserts that binary, running process, state file and status say the
// same version, and returns it.
func (h *host) agrees(component string) string {
	h.t.Helper()
	disk, live := h.installed(component), h.running(component)
	recorded, _, _ := strings.Cut(h.state().Components[component].Current, "+")
	// Where nothing was scraped before an upgrade, that is not held against it, and
	// Prometheus may yet have to come to its first scrape.
	deadline := time.Now().Add(20 * time.Second)
	for {
		var st status
		h.document(&st, 0, "status")
		if st.Interrupted != nil {
			h.t.Fatalf("still interrupted: %+v", st.Interrupted)
		}
		at := slices.IndexFunc(st.Components, func(c componentStatus) bool { return c.Name == component })
		if at < 0 {
			break
		}
		c := st.Components[at]
		shown, _, _ := strings.Cut(c.Current, "+")
		if c.Healthy && c.Active && shown == disk {
			break
		}
		if c.Healthy || time.Now().After(deadline) {
			h.t.Fatalf("status of %s: %+v, binary %s", component, c, disk)
		}
	}
	if disk != live || recorded != "" && recorded != disk {
		h.t.Fatalf("%s: binary %s, running %s, state file %q", component, disk, live, recorded)
	}
	left := h.MustRun(h.ctx, "find", "/usr/local/bin", "/etc", "-name", ".*obsup*")
	if strings.TrimSpace(left) != "" {
		h.t.Fatalf("left behind: %s", left)
	}
	return disk
}

// query asks Prometheus for one number.
func (h *host) query(expr string, at time.Time) string {
	h.t.Helper()
	_, body, err := h.Get(h.ctx, "http://127.0.0.1:9090/api/v1/query?query="+url.QueryEscape(expr)+"&time="+fmt.Sprint(at.Unix()))
	h.check(err)
	var doc struct {
		Data struct {
			Result []struct{ Value []any } `json:"result"`
		} `json:"data"`
	}
	h.check(json.Unmarshal(body, &doc))
	if len(doc.Data.Result) != 1 || len(doc.Data.Result[0].Value) != 2 {
		return ""
	}
	return fmt.Sprint(doc.Data.Result[0].Value[1])
}

// waitSamples waits until Prometheus has scraped all its targets for so long
// that there are samples of a moment two seconds ago, and a few before it.
func (h *host) waitSamples() {
	h.t.Helper()
	h.check(h.WaitHTTP(h.ctx, "http://127.0.0.1:9090/api/v1/query?query="+url.QueryEscape("min(count_over_time(up[1m])) >= 6"), func(status int, body []byte) bool {
		return status == http.StatusOK && strings.Contains(string(body), `"value"`)
	}))
}

func (h *host) release(component, line string) rig.Release {
	h.t.Helper()
	r, err := h.kit.Release(component, line)
	h.check(err)
	return r
}

// publish puts a release into the server's directory whose main program is the
// given script.
func (h *host) publish(component, repo, version string, files map[string]string) {
	h.t.Helper()
	top := component + "-" + version + ".linux-amd64"
	in := map[string]releaseserver.File{}
	for name, body := range files {
		in[name] = releaseserver.File{Body: []byte(body), Mode: 0o755}
	}
	data, err := releaseserver.Archive("tar.gz", top, in)
	h.check(err)
	dir := filepath.Join(h.releases, "github", repo, "v"+version)
	h.check(os.MkdirAll(dir, 0o755))
	path := filepath.Join(dir, top+".tar.gz")
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) { // it may be a link to the rig's own
		h.t.Fatal(err)
	}
	h.check(os.WriteFile(path, data, 0o644))
}
