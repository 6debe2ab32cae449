package preflight

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// Download is where the files of one step come from.
type Download struct {
	Component string
	URL       string                  // http, https or file
	Cached    bool                    // nothing of it has to be asked for
	Authorize func(req *http.Request) // adds the credentials of that host; may be nil
}

const (
	askTimeout  = 3 * time.Second        // one request; the download has longer
	askAttempts = 4                      // as many as the download makes
	askPause    = 150 * time.Millisecond // doubled each time
)

// checkNetwork asks each host that the plan downloads from, once. Any answer
// will do that shows that the host is there and works; whether the file is, the
// download tells.
func (c *checker) checkNetwork(ctx context.Context) finding {
	hosts := c.hosts()
	if len(hosts) == 0 {
		return found(skipped(Network, "", "nothing has to be downloaded"), c.checkClock(nil))
	}
	answers := make([]answer, len(hosts))
	done := make(chan int, len(hosts))
	for i, d := range hosts {
		go func() {
			answers[i] = c.ask(ctx, d)
			done <- i
		}()
	}
	for range hosts {
		<-done
	}
	var f finding
	for _, a := range answers {
		f.checks = append(f.checks, a.check)
	}
	f.checks = append(f.checks, c.checkClock(answers))
	return f
}

// hosts picks one download for each server that is needed.
func (c *checker) hosts() []Download {
	var out []Download
	seen := map[string]bool{}
	for _, d := range c.Downloads {
		u, err := url.Parse(d.URL)
		if d.Cached || err != nil || u.Scheme != "http" && u.Scheme != "https" || seen[u.Scheme+u.Host] {
			continue
		}
		seen[u.Scheme+u.Host] = true
		out = append(out, d)
	}
	return out
}

// answer is what became of asking a host.
type answer struct {
	check component.Check
	host  string
	date  time.Time // by its Date header; zero without
	at    time.Time // by our clock, when that arrived
}

// ask sends HEAD for the file itself, and follows no redirect: where that leads
// may be signed for GET alone. What passes by itself is tried again, as the
// download does.
func (c *checker) ask(ctx context.Context, d Download) answer {
	client := *c.HTTP
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	a := answer{host: hostOf(d.URL)}
	pause := askPause
	for n := 1; ; n++ {
		status, header, err := head(ctx, &client, d)
		a.at = c.Now()
		again := err != nil && passes(err) || status >= 500 && status != http.StatusNotImplemented
		if again && n < askAttempts && wait(ctx, pause) == nil {
			pause *= 2
			continue
		}
		a.date = dateOf(header)
		a.check = judge(a.host, status, err)
		return a
	}
}

func head(ctx context.Context, client *http.Client, d Download) (int, http.Header, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, d.URL, nil)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("User-Agent", "observability-upgrade")
	if d.Authorize != nil {
		d.Authorize(req)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	return resp.StatusCode, resp.Header, resp.Body.Close()
}

func judge(host string, status int, err error) component.Check {
	next := "curl -I " + host
	switch {
	case err != nil:
		return fail(Network, "", next, "%s: expected an answer, found: %v", host, plainError(err))
	case status == http.StatusProxyAuthRequired:
		return fail(Network, "", "env | grep -i proxy", "%s: expected an answer, found that the proxy asks for a password (407)", host)
	case status >= 500 && status != http.StatusNotImplemented: // 501: it knows no HEAD
		return fail(Network, "", next, "%s: expected an answer below 500, found %d in %d attempts", host, status, askAttempts)
	case status == http.StatusUnauthorized || status == http.StatusForbidden || status == http.StatusTooManyRequests:
		return warn(Network, "", "observability-upgrade check --refresh", "%s answers, but with %d: its limit of requests, or the token in the policy", host, status)
	}
	return ok(Network, "", "%s answers", host)
}

// passes tells errors that a second attempt may not meet.
func passes(err error) bool {
	var dns *net.DNSError
	return !errors.As(err, &dns) && !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, context.Canceled) &&
		(errors.Is(err, context.DeadlineExceeded) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET))
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// plainError drops the method and address that net/http puts before an error,
// and gives silence and refusal plain words.
func plainError(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return errors.New("connection refused: nothing listens there")
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("no answer within %s", askTimeout)
	}
	return err
}

// hostOf is scheme and host of an address, without what may be a password.
func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "…"
	}
	return u.Scheme + "://" + u.Host
}

// dateOf is the time of an answer, RFC 9110 section 6.6.1, plus the age that a
// cache gives it; zero when it does not say.
func dateOf(h http.Header) time.Time {
	date, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return time.Time{}
	}
	if age, err := strconv.Atoi(h.Get("Age")); err == nil && age > 0 {
		date = date.Add(time.Duration(age) * time.Second)
	}
	return date
}

// The clock is taken for wrong before this program's first year and after a
// century, and with more than maxSkew between it and upstream's.
const (
	firstYear = 2025
	lastYear  = 2125
	maxSkew   = 5 * time.Minute
)

// checkClock looks at our clock, on which certificates, release ages, holds and
// the names of backups depend, and compares it with those of the answers.
func (c *checker) checkClock(answers []answer) component.Check {
	now := c.Now()
	if y := now.UTC().Year(); y < firstYear || y > lastYear {
		return fail(Clock, "", "timedatectl", "expected a year from %d to %d, found %d", firstYear, lastYear, y)
	}
	answers = slices.DeleteFunc(slices.Clone(answers), func(a answer) bool { return a.date.IsZero() })
	for _, a := range answers {
		if skew := a.at.Sub(a.date).Round(time.Second); skew.Abs() > maxSkew {
			word := "ahead of"
			if skew < 0 {
				word = "behind"
			}
			return warn(Clock, "", "timedatectl", "it is %s %s that of %s: certificates and release ages depend on it", skew.Abs(), word, a.host)
		}
	}
	if len(answers) == 0 {
		return ok(Clock, "", "%s; nobody was there to compare with", now.UTC().Format(time.RFC3339))
	}
	return ok(Clock, "", "agrees with that of %s", answers[0].host)
}
