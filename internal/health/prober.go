package health

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
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
}

// Target is what to probe on one component.
type Target struct {
	Component  string
	Service    service.Service
	Executable string         // path the running process must have been started from; "" = any
	URL        string         // readiness; "" = none
	Body       *regexp.Regexp // what the readiness answer must match; nil = anything
	MetricsURL string
	Metric     string
	Version    component.Version // the version it must report; zero = any
	Settle     time.Duration     // how long it must stay healthy with one process
	Timeout    time.Duration     // how long it may take to become ready

	// Excused names checks that failed before the upgrade as well: where they
	// still do, that is a warning, as the new version is not to blame.
	Excused []string
}

// NewTarget builds the target of a component from its definition. vars expand
// the placeholders; timeout holds where the definition sets none.
func NewTarget(c *component.Component, svc service.Service, vars component.Vars, timeout time.Duration) (Target, error) {
	t := Target{
		Component: c.Name, Service: svc,
		URL: vars.Expand(c.Health.URL), MetricsURL: vars.Expand(c.Health.MetricsURL), Metric: c.Health.ExpectedMetric,
		Settle: c.Health.Settle.Std(), Timeout: timeout,
	}
	if c.Health.Timeout > 0 {
		t.Timeout = c.Health.Timeout.Std()
	}
	if c.Health.Body != "" {
		re, err := regexp.Compile(c.Health.Body)
		if err != nil {
			return t, fmt.Errorf("%s: health.body: %w", c.Name, err)
		}
		t.Body = re
	}
	return t, nil
}

// Prober runs probes. It keeps no state and may be used concurrently.
type Prober struct {
	HTTP     *http.Client // nil: a client of its own with a 5 s limit per request
	Services Services
	Logger   *slog.Logger
}

const (
	requestTimeout = 5 * time.Second
	maxBody        = 16 << 20
	pollMin        = 20 * time.Millisecond
	pollMax        = 250 * time.Millisecond
)

// Once looks at the component as it is now.
func (p *Prober) Once(ctx context.Context, t Target) Report {
	r := Report{Name: t.Component}
	running := p.checkService(ctx, t, &r)
	if running {
		p.checkReady(ctx, t, &r)
		p.checkMetrics(ctx, t, &r)
		p.checkLogs(ctx, t, &r)
	}
	r.excuse(t.Excused)
	r.conclude()
	return r
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
		r.add("executable", Fail, "runs %s, expected %s", st.ExecPath, t.Executable)
	} else if t.Executable != "" && st.ExecDeleted {
		r.add("executable", Fail, "still runs the file that was replaced at %s", t.Executable)
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

func (p *Prober) checkReady(ctx context.Context, t Target, r *Report) {
	if t.URL == "" {
		return
	}
	status, body, err := p.get(ctx, t.URL)
	r.Body = fmt.Sprintf("%d %s", status, bytes.TrimSpace(body[:min(len(body), 400)]))
	switch {
	case err != nil:
		r.add("ready", Fail, "%s: %v", t.URL, plainHTTPError(err))
	case status < 200 || status > 299:
		r.add("ready", Fail, "%s answered %d %q, expected 200", t.URL, status, firstLine(body))
	case t.Body != nil && !t.Body.Match(body):
		r.add("ready", Fail, "%s answered %q, expected a match of %q", t.URL, firstLine(body), t.Body)
	default:
		r.add("ready", OK, "%s answered %d", t.URL, status)
	}
}

func (p *Prober) checkMetrics(ctx context.Context, t Target, r *Report) {
	if t.MetricsURL == "" || t.Metric == "" {
		return
	}
	status, body, err := p.get(ctx, t.MetricsURL)
	if err != nil || status != http.StatusOK {
		if err == nil {
			err = fmt.Errorf("answered %d, expected 200", status)
		}
		r.add("metric", Fail, "%s: %v", t.MetricsURL, plainHTTPError(err))
		return
	}
	line, ok := findMetric(body, t.Metric)
	if !ok {
		r.add("metric", Fail, "%s has no %s", t.MetricsURL, t.Metric)
		return
	}
	r.add("metric", OK, "%s present", t.Metric)
	if r.Version = versionLabel(line); r.Version == "" || t.Version.IsZero() {
		return
	}
	got, err := component.ParseVersion(r.Version)
	if err != nil || !got.SameRelease(t.Version) {
		r.add("version", Fail, "the running process reports %s, expected %s", r.Version, t.Version)
		return
	}
	r.add("version", OK, "reports %s", r.Version)
}

// Log lines that say so are counted, never judged alone: an error in the log of
// a ready component is for a person to read.
var badWords = regexp.MustCompile(`(?i)\b(panic|fatal)\b|level=error|level=ERROR|lvl=eror`)

func (p *Prober) checkLogs(ctx context.Context, t Target, r *Report) {
	if p.Services == nil {
		return
	}
	lines, err := p.Services.Logs(ctx, t.Service, time.Time{}, 100)
	if err != nil {
		r.add("logs", Skipped, "%v", err)
		return
	}
	var bad []string
	for _, l := range lines {
		if l.Priority >= 0 && l.Priority <= 3 || badWords.MatchString(l.Message) {
			bad = append(bad, l.Message)
		}
	}
	if len(bad) == 0 {
		r.add("logs", OK, "no errors in the last %d lines of this start", len(lines))
		return
	}
	r.add("logs", Warn, "%d error lines since the start, the last: %.200s", len(bad), bad[len(bad)-1])
}

func (p *Prober) get(ctx context.Context, url string) (status int, body []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("User-Agent", "observability-upgrade")
	client := p.HTTP
	if client == nil {
		client = directClient
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxBody))
	return resp.StatusCode, body, err
}

// directClient keeps no connections: a probe must meet the process that listens
// now, not one it talked to before. Proxies are not for local services.
var directClient = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, Proxy: nil}}

func plainHTTPError(err error) error {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return errors.New("connection refused: nothing listens there")
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("no answer within %s", requestTimeout)
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return op
	}
	return err
}

func firstLine(b []byte) string {
	line, _, _ := bytes.Cut(bytes.TrimSpace(b), []byte("\n"))
	return string(line[:min(len(line), 120)])
}

// findMetric returns the first sample line of a metric in the text exposition
// format.
func findMetric(body []byte, name string) (string, bool) {
	sc := bufio.NewScanner(bytes.NewReader(body))
	sc.Buffer(make([]byte, 0, 64<<10), maxBody)
	for sc.Scan() {
		line := sc.Text()
		if rest, ok := strings.CutPrefix(line, name); ok && rest != "" && (rest[0] == '{' || rest[0] == ' ' || rest[0] == '\t') {
			return line, true
		}
	}
	return "", false
}

var versionLabelRE = regexp.MustCompile(`[{,]\s*(?:version|short_version)="([^"]+)"`)

func versionLabel(line string) string {
	if m := versionLabelRE.FindStringSubmatch(line); m != nil {
		return strings.TrimPrefix(m[1], "v")
	}
	return ""
}
