package health

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/service"
)

// Services is what a probe asks of the service manager. A nil Services leaves
// the checks on the unit out.
type Services interface {
	// Status tells the state of a unit; a missing one is not an error.
	Status(ctx context.Context, s service.Service) (service.Status, error)
	// Logs returns the newest lines of the unit's current start.
	Logs(ctx context.Context, s service.Service, since time.Time, max int) ([]service.LogLine, error)
	// Usage tells what all processes of the unit use together.
	Usage(ctx context.Context, s service.Service) (service.Usage, error)
}

// Prober runs probes. It keeps no state and may be used concurrently.
type Prober struct {
	HTTP     *http.Client // nil: one of its own per component, as its definition's client says
	Services Services
	Logger   *slog.Logger
	// Expand replaces ${SECRET:NAME} and ${VARIABLE}; nil leaves texts as they are.
	Expand func(text string) (string, error)
	// SpareSecrets leaves a check undecided whose secret cannot be had, in place of
	// failing it: for recovery, which must not take a lost secret for a broken
	// component.
	SpareSecrets bool
	// Exec runs a command of a test and returns what it printed; nil skips such
	// tests.
	Exec func(ctx context.Context, args []string, limit time.Duration) (string, error)
	// Patience is how long a test of a component that is ready may need to pass: a
	// first scrape takes one scrape interval. 0 is 90 s.
	Patience time.Duration
}

// Once looks at the component as it is now.
func (p *Prober) Once(ctx context.Context, t Target) Report {
	r := Report{Name: t.Component, Instance: t.Instance}
	switch {
	case !t.hasService():
		// A program that people call: what it can do, its tests may say.
		r.add("service", Skipped, "it has no service")
		p.checkReady(ctx, t, &r)
		p.checkMetrics(ctx, t, &r)
		p.checkFunctional(ctx, t, &r)
	case p.checkService(ctx, t, &r):
		before := p.usage(ctx, t)
		began := time.Now()
		p.checkReady(ctx, t, &r)
		p.checkMetrics(ctx, t, &r)
		p.checkFunctional(ctx, t, &r)
		p.checkLogs(ctx, t, &r)
		if t.Measure > 0 {
			wait(ctx, t.Measure-time.Since(began))
			p.checkUsage(ctx, t, before, &r)
		}
	}
	r.excuse(t.Excused)
	r.conclude()
	return r
}

// wait waits for d, or for the end of ctx.
func wait(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// checkService reports whether probing further makes sense.
func (p *Prober) checkService(ctx context.Context, t Target, r *Report) bool {
	if p.Services == nil {
		return true
	}
	st, err := p.Services.Status(ctx, t.Service)
	switch {
	case err != nil:
		r.add("service", Fail, "%v", err)
		return false
	case st.Unknown != "":
		r.doubt("service", "not known whether it runs: %s", st.Unknown)
		return true
	case !st.Exists:
		r.add("service", Fail, "%s does not exist", t.Service.Label())
		return false
	case st.Masked:
		r.add("service", Fail, "%s is masked", t.Service.Label())
		return false
	case !st.Active:
		r.add("service", Fail, "%s is %s, expected running", t.Service.Label(), stateText(st))
		return false
	}
	r.PID = st.MainPID
	r.add("service", OK, "running, pid %d", st.MainPID)
	if st.Restarts > 0 {
		r.add("restarts", Warn, "restarted by itself %d times", st.Restarts)
	}
	if t.Executable != "" && st.ExecPath != "" && !samePath(st.ExecPath, t.Executable) {
		r.add("executable", Fail, "runs %s, expected %s%s", st.ExecPath, t.Executable, t.mend())
	} else if t.Executable != "" && st.ExecDeleted {
		r.add("executable", Fail, "still runs the file that was replaced at %s%s", t.Executable, t.mend())
	}
	return true
}

func stateText(st service.Status) string {
	switch {
	case st.Failed && st.Result != "" && st.Result != "success":
		return "failed (" + st.Result + ")"
	case st.Failed:
		return "failed"
	case st.Activating:
		return "still starting"
	case st.SubState != "":
		return st.SubState
	}
	return "not running"
}

func samePath(a, b string) bool {
	if a == b {
		return true
	}
	ra, errA := filepath.EvalSymlinks(a)
	rb, errB := filepath.EvalSymlinks(b)
	return errA == nil && errB == nil && ra == rb
}

// checkReady asks the readiness address. An answer proves nothing where any path
// gets one like it, as the page for people of several exporters; that is told, where
// no metric proves more.
func (p *Prober) checkReady(ctx context.Context, t Target, r *Report) {
	address := t.Spec.Health.URL
	if address == "" {
		return
	}
	a, err := p.ask(ctx, t.Spec.Client, request{url: address})
	r.Body = fmt.Sprintf("%d %s", a.status, bytes.TrimSpace(a.body[:min(len(a.body), 400)]))
	want, reErr := regexp.Compile(t.Spec.Health.Body)
	switch {
	case p.spared(err):
		r.doubt("ready", "%s could not be asked: %v", address, err)
	case err != nil:
		r.add("ready", Fail, "%s: %v", address, plainHTTPError(err))
	case reErr != nil:
		r.add("ready", Fail, "health.body: %v", reErr)
	case a.status == http.StatusTooManyRequests:
		r.doubt("ready", "%s answered 429: asked too often", address)
	case !a.ok():
		r.add("ready", Fail, "%s answered %d %q, expected 200", address, a.status, firstLine(a.body))
	case t.Spec.Health.Body != "" && !want.Match(a.body):
		r.add("ready", Fail, "%s answered %q, expected a match of %q", address, firstLine(a.body), t.Spec.Health.Body)
	case t.Spec.Health.Body == "" && p.answersAnything(ctx, t, a):
		r.add("ready", Warn, "%s answered %q, as it does for any path, which proves nothing; give health.body or another health.url in its definition", address, firstLine(a.body))
	default:
		r.add("ready", OK, "%s answered %d", address, a.status)
	}
}

// answersAnything asks for paths that surely do not exist and reports whether the
// answer is one that they get too: the same, a page for people as well, or one that
// differs every time. Metrics that are the expected ones are a proof on any path.
func (p *Prober) answersAnything(ctx context.Context, t Target, a answer) bool {
	u, err := url.Parse(t.Spec.Health.URL)
	if err != nil || strings.Trim(u.Path, "/") == "" {
		return false // the root is a page by right
	}
	if t.Spec.Health.MetricsURL != "" && t.Spec.Health.ExpectedMetric != "" {
		return false // see checkMetrics
	}
	if _, ok := findMetric(a.body, t.Spec.Health.ExpectedMetric); ok {
		return false
	}
	first, ok := p.control(ctx, t, *u)
	switch {
	case !ok:
		return false
	case bytes.Equal(first.body, a.body):
		return true
	case a.isPage() || first.isPage():
		return a.isPage() && first.isPage()
	}
	second, ok := p.control(ctx, t, *u)
	return ok && !bytes.Equal(first.body, second.body)
}

// control asks for a random path and reports whether it is answered as if it were
// there.
func (p *Prober) control(ctx context.Context, t Target, u url.URL) (answer, bool) {
	u.Path, u.RawPath, u.RawQuery = "/"+strings.ToLower(rand.Text()), "", ""
	a, err := p.ask(ctx, t.Spec.Client, request{url: u.String()})
	return a, err == nil && a.ok()
}

func (p *Prober) checkMetrics(ctx context.Context, t Target, r *Report) {
	address, metric := t.Spec.Health.MetricsURL, t.Spec.Health.ExpectedMetric
	if address == "" || metric == "" {
		return
	}
	a, err := p.ask(ctx, t.Spec.Client, request{url: address})
	switch {
	case p.spared(err):
		r.doubt("metric", "%s could not be asked: %v", address, err)
		return
	case err != nil:
		r.add("metric", Fail, "%s: %v", address, plainHTTPError(err))
		return
	case a.status == http.StatusTooManyRequests:
		r.doubt("metric", "%s answered 429: asked too often", address)
		return
	case a.status != http.StatusOK:
		r.add("metric", Fail, "%s: answered %d, expected 200", address, a.status)
		return
	}
	line, ok := findMetric(a.body, metric)
	if !ok {
		r.add("metric", Fail, "%s has no %s", address, metric)
		return
	}
	metric = line[:strings.IndexAny(line, "{ \t")] // of several, the one that is there
	r.add("metric", OK, "%s present", metric)
	said := versionLabel(metric, line)
	if said == "" {
		return
	}
	got, err := component.ParseVersion(said)
	if err == nil {
		r.Version = said
	}
	switch {
	case t.Version.IsZero():
	case err != nil:
		r.add("version", Warn, "%s says %q, which is no version", metric, said)
	case got.SameRelease(t.Version), upstreams(said).SameRelease(t.Version):
		r.add("version", OK, "reports %s", said)
	case t.Mend != "":
		r.add("version", Fail, "runs %s, installed is %s%s", said, t.Version, t.mend())
	default:
		r.add("version", Fail, "the running process reports %s, expected %s", said, t.Version)
	}
}

// checkFunctional makes the definition's own tests, each once.
func (p *Prober) checkFunctional(ctx context.Context, t Target, r *Report) {
	for _, test := range t.Spec.Functional {
		if test.Severity == component.SeverityVerify && t.inRun() {
			test.Dependency = true
		}
		p.report(r, test.Name, p.Test(ctx, t.Spec.Client, test, time.Time{}))
	}
}

func (p *Prober) report(r *Report, name string, o Outcome) {
	if o.Unsure {
		r.doubt(name, "%s", o.Detail)
		return
	}
	r.add(name, o.Status, "%s", o.Detail)
}

// revision is what Debian's builds of some exporters append: "0.11.0-1+b4".
var revision = regexp.MustCompile(`-\d+(\+b\d+)?$`)

// upstreams is a version without a distribution's revision, which the program
// itself does not tell; zero where that is none.
func upstreams(text string) component.Version {
	v, err := component.ParseVersion(revision.ReplaceAllString(text, ""))
	if err != nil {
		return component.Version{}
	}
	return v
}

// findMetric returns the first sample line of a metric in the text exposition
// format; name may be several, parted by "|".
func findMetric(body []byte, name string) (string, bool) {
	names := strings.Split(name, "|")
	sc := bufio.NewScanner(bytes.NewReader(body))
	sc.Buffer(make([]byte, 0, 64<<10), maxBody)
	for name != "" && sc.Scan() {
		line := sc.Text()
		for _, one := range names {
			if rest, ok := strings.CutPrefix(line, one); ok && rest != "" && (rest[0] == '{' || rest[0] == ' ' || rest[0] == '\t') {
				return line, true
			}
		}
	}
	return "", false
}

var (
	// Of VictoriaMetrics' programs, short_version is what others call version.
	versionLabels = []*regexp.Regexp{regexp.MustCompile(`[{,]\s*short_version="([^"]+)"`), regexp.MustCompile(`[{,]\s*version="([^"]+)"`)}
	// The metrics that tell of the program itself. Any other's version label, such as
	// go_info's, is that of something else.
	ownInfo = regexp.MustCompile(`^(.+_)?build_info$|^vm_app_version$`)
)

// versionLabel is the version in the sample of a metric that tells the program's
// own; "" where it tells none.
func versionLabel(metric, line string) string {
	if !ownInfo.MatchString(metric) || metric == "go_build_info" {
		return ""
	}
	for _, label := range versionLabels {
		if m := label.FindStringSubmatch(line); m != nil {
			return strings.TrimPrefix(m[1], "v")
		}
	}
	return ""
}
