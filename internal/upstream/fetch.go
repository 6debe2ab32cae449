package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/observability-upgrade/observability-upgrade/internal/redirect"
)

const (
	maxBody      = 32 << 20        // bytes of one answer
	maxTries     = 3               // requests for one answer
	maxWait      = 2 * time.Second // longest wait for a rate limit before it is reported instead
	maxRedirects = 5
	defaultPause = time.Minute    // when a rate limit does not say how long it lasts
	maxListing   = 6              // timeouts of one request that all pages of a list may take together
	maxPause     = 24 * time.Hour // longest that a host is not asked for what it once answered
)

// request is one question to an upstream.
type request struct {
	component string
	url       string
	accept    string
	headers   map[string]string
	pinned    bool // redirects must stay on the host
	// decode reads the body; what it refuses is neither used nor kept.
	decode func(body []byte) error
}

// answer is what came back, after decode accepted it.
type answer struct {
	link      string // Link header
	nextPage  string // GitLab's X-Next-Page
	fromCache bool
	checkedAt time.Time
}

// errMissing is an answer 404 or 410.
var errMissing = errors.New("404 Not Found")

// get asks once per call, with as many tries as an outage deserves.
func (c *Client) get(ctx context.Context, r request) (answer, error) {
	u, err := url.Parse(r.url)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return answer{}, fmt.Errorf("address %q is not an http or https URL; correct the source or upstream.*.api_url", r.url)
	}
	shown := safeURL(u)
	key := cacheKey{URL: shown, Accept: r.accept, Authenticated: c.authenticates(u)}
	kept, fresh := c.kept(r, key, shown)
	if fresh {
		return kept.answer(true), nil
	}
	unknown := func(status int, retryAt time.Time, err error) error {
		return &UnknownError{URL: shown, Status: status, RetryAt: retryAt, Err: err}
	}
	b := backoff.NewExponentialBackOff()
	b.InitialInterval = c.retry
	got, err := backoff.Retry(ctx, func() (entry, error) {
		e, err := c.once(ctx, r, u, kept, unknown)
		if err != nil && ctx.Err() != nil {
			return entry{}, backoff.Permanent(unknown(0, time.Time{}, context.Cause(ctx)))
		}
		return e, err
	}, backoff.WithBackOff(b), backoff.WithMaxTries(maxTries), backoff.WithNotify(func(err error, d time.Duration) {
		c.log.Info("asking upstream again", "component", r.component, "url", shown, "after", d, "err", err)
	}))
	var (
		permanent *backoff.PermanentError
		pause     *pauseError
		u2        *UnknownError
	)
	switch {
	case errors.As(err, &permanent): // the last try's error comes wrapped
		err = permanent.Unwrap()
	case errors.As(err, &pause):
		err = pause.err
	case err != nil && ctx.Err() != nil && !errors.As(err, &u2):
		err = unknown(0, time.Time{}, err)
	}
	if err != nil {
		return answer{}, err
	}
	switch {
	case kept.Body == nil || !got.same(kept):
		c.cache.store(key, got)
	case c.opts.TTL > 0: // else nobody asks how old it is
		c.cache.confirm(key, got.CheckedAt)
	}
	return got.answer(false), nil
}

// kept is the answer that was kept, decoded where it may be used, and whether it need
// not be asked for; the zero entry where there is none.
//
// One is read at a time: reading all of them takes a while, in which connections are
// being made, and these must not wait for a processor.
func (c *Client) kept(r request, key cacheKey, shown string) (kept entry, fresh bool) {
	c.reading.Lock()
	defer c.reading.Unlock()
	kept, ok := c.cache.load(key)
	if !ok {
		return entry{}, false
	}
	age := c.opts.Now().Sub(kept.CheckedAt)
	fresh = !c.opts.Refresh && age >= 0 && age < c.opts.TTL
	if fresh || kept.ETag != "" || kept.LastModified != "" {
		if err := r.decode(kept.Body); err != nil {
			c.log.Warn("kept upstream answer is unusable and will be replaced", "url", shown, "err", err)
			return entry{}, false
		}
	}
	return kept, fresh
}

// pauseError asks for another try after the wait that upstream named.
type pauseError struct {
	*backoff.RetryAfterError
	err error
}

func (e *pauseError) Error() string { return e.err.Error() }

// Unwrap lets backoff find the wait.
func (e *pauseError) Unwrap() error { return e.RetryAfterError }

// once makes one try. The entry it returns is confirmed by upstream as of now
// and accepted by the request's decode.
func (c *Client) once(ctx context.Context, r request, u *url.URL, kept entry, unknown func(int, time.Time, error) error) (entry, error) {
	if f := c.refused(u); f != nil {
		return entry{}, backoff.Permanent(unknown(f.status, f.until, errors.New(f.message)))
	}
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, pinnedKey{}, r.pinned), c.opts.Timeout)
	defer cancel()
	ctx, met := c.meet(ctx, u)
	defer met()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return entry{}, backoff.Permanent(fmt.Errorf("build request for %s: %w", safeURL(u), err))
	}
	req.Header.Set("User-Agent", c.opts.UserAgent)
	req.Header.Set("Accept", r.accept)
	for k, v := range r.headers {
		req.Header.Set(k, v)
	}
	if kept.ETag != "" {
		req.Header.Set("If-None-Match", kept.ETag)
	} else if kept.LastModified != "" {
		req.Header.Set("If-Modified-Since", kept.LastModified)
	}
	c.Authorize(req)
	resp, err := c.http.Do(req)
	if err != nil {
		var policy *redirectError
		if err = withoutURL(err); errors.As(err, &policy) {
			return entry{}, backoff.Permanent(unknown(0, time.Time{}, err))
		}
		return entry{}, unknown(0, time.Time{}, c.inTime(err))
	}
	defer func() { _ = resp.Body.Close() }() // read to the end or given up
	if resp.Request.URL.String() != u.String() {
		c.log.Warn("upstream redirected: the repository may have moved; update the definition's source",
			"component", r.component, "from", safeURL(u), "to", safeURL(resp.Request.URL))
	}
	switch {
	case resp.StatusCode == http.StatusOK:
		return c.accept(r, resp, unknown)
	case resp.StatusCode == http.StatusNotModified && kept.Body != nil:
		kept.CheckedAt = c.opts.Now()
		return kept, nil
	case resp.StatusCode == http.StatusNotFound, resp.StatusCode == http.StatusGone:
		return entry{}, backoff.Permanent(errMissing)
	case resp.StatusCode == http.StatusForbidden, resp.StatusCode == http.StatusTooManyRequests,
		resp.StatusCode == http.StatusServiceUnavailable:
		return entry{}, c.refuse(resp, u, unknown)
	case resp.StatusCode >= 500, resp.StatusCode == http.StatusRequestTimeout:
		return entry{}, unknown(resp.StatusCode, time.Time{}, statusError(resp))
	default:
		return entry{}, backoff.Permanent(unknown(resp.StatusCode, time.Time{}, statusError(resp)))
	}
}

func (c *Client) accept(r request, resp *http.Response, unknown func(int, time.Time, error) error) (entry, error) {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err != nil {
		return entry{}, unknown(0, time.Time{}, fmt.Errorf("read answer: %w", c.inTime(err)))
	}
	if len(body) > maxBody {
		return entry{}, backoff.Permanent(unknown(resp.StatusCode, time.Time{}, fmt.Errorf("answer is longer than %d MiB", maxBody>>20)))
	}
	if err := r.decode(body); err != nil {
		return entry{}, backoff.Permanent(unknown(resp.StatusCode, time.Time{}, fmt.Errorf("answer makes no sense: %w; it begins %q", err, head(body))))
	}
	return entry{
		ETag: resp.Header.Get("ETag"), LastModified: resp.Header.Get("Last-Modified"),
		Link: resp.Header.Get("Link"), NextPage: resp.Header.Get("X-Next-Page"),
		CheckedAt: c.opts.Now(), Body: body,
	}, nil
}

// refuse handles 403, 429 and 503: the wait that upstream names is kept to. A
// short one is waited for, a longer one is reported, and until it has passed no
// request is made to that host.
func (c *Client) refuse(resp *http.Response, u *url.URL, unknown func(int, time.Time, error) error) error {
	now := c.opts.Now()
	until, limited := retryAt(resp.Header, now)
	status := statusError(resp)
	switch {
	case !limited && resp.StatusCode == http.StatusServiceUnavailable:
		return unknown(resp.StatusCode, time.Time{}, status)
	case !limited && resp.StatusCode == http.StatusForbidden:
		return backoff.Permanent(unknown(resp.StatusCode, time.Time{}, status))
	case !limited: // 429 without a word: GitHub asks for at least a minute then
		until = now.Add(defaultPause)
	}
	if resp.StatusCode != http.StatusServiceUnavailable {
		status = fmt.Errorf("rate limit reached: %w", status)
	}
	err := unknown(resp.StatusCode, until, status)
	if wait := until.Sub(now); wait <= maxWait {
		return &pauseError{RetryAfterError: &backoff.RetryAfterError{Duration: max(wait, 0)}, err: err}
	}
	if until.Sub(now) > maxPause { // until a wrong clock's year 2500, nobody would ask again
		until = now.Add(maxPause)
	}
	c.mu.Lock()
	c.blocked[origin(u)] = &refusal{status: resp.StatusCode, until: until, message: status.Error()}
	c.mu.Unlock()
	return backoff.Permanent(err)
}

// refused returns the rate limit in force for the URL's host, if any.
func (c *Client) refused(u *url.URL) *refusal {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.blocked[origin(u)]
	if f != nil && !c.opts.Now().Before(f.until) {
		delete(c.blocked, origin(u))
		return nil
	}
	return f
}

func origin(u *url.URL) string {
	return strings.ToLower(u.Scheme + "://" + u.Hostname() + ":" + port(u))
}

// retryAt reads when requests are accepted again: Retry-After (RFC 9110, 10.2.3:
// seconds or a date), else the reset of an exhausted limit in epoch seconds
// (GitHub's x-ratelimit-*, GitLab's RateLimit-*).
func retryAt(h http.Header, now time.Time) (time.Time, bool) {
	if v := strings.TrimSpace(h.Get("Retry-After")); v != "" {
		if n, err := strconv.ParseUint(v, 10, 31); err == nil {
			return now.Add(time.Duration(n) * time.Second), true
		}
		if t, err := http.ParseTime(v); err == nil {
			return t, true
		}
	}
	for _, prefix := range []string{"X-Ratelimit-", "Ratelimit-"} {
		if strings.TrimSpace(h.Get(prefix+"Remaining")) != "0" {
			continue
		}
		if n, err := strconv.ParseInt(h.Get(prefix+"Reset"), 10, 64); err == nil && n > 0 {
			return time.Unix(n, 0), true
		}
		return now.Add(defaultPause), true
	}
	return time.Time{}, false
}

func statusError(resp *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, 512))
	if text := head(body); err == nil && text != "" {
		return fmt.Errorf("upstream answered %s: %q", resp.Status, text)
	}
	return fmt.Errorf("upstream answered %s", resp.Status)
}

// head is the start of a body for a message, on one line.
func head(body []byte) string {
	const most = 120
	s := strings.Join(strings.Fields(strings.ToValidUTF8(string(body[:min(len(body), most)]), "")), " ")
	if len(body) > most {
		s += "…"
	}
	return s
}

// withoutURL takes the address out of an error of net/http: it is named once,
// without credentials, by UnknownError.
func withoutURL(err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		return ue.Err
	}
	return err
}

// inTime names the limit that a request ran into.
func (c *Client) inTime(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("no complete answer within %s: %w", c.opts.Timeout, err)
	}
	return err
}

// safeURL is the address without credentials.
func safeURL(u *url.URL) string {
	c := *u
	c.User = nil
	c.Fragment = ""
	return c.String()
}

func (c *Client) authenticates(u *url.URL) bool {
	c.mu.Lock()
	known := c.users[origin(u)] != nil
	c.mu.Unlock()
	return known || c.opts.GitHubToken != "" && sameHost(u, c.opts.GitHubURL) ||
		c.opts.GitLabToken != "" && sameHost(u, c.opts.GitLabURL)
}

type pinnedKey struct{}

// redirectError is a redirect that is not followed.
type redirectError struct{ reason string }

func (e *redirectError) Error() string { return e.reason }

// checkRedirect follows a few redirects, by the rules of package redirect, and
// takes the tokens off at the first one that leaves the host. net/http does that for
// Authorization alone, and not for subdomains.
func checkRedirect(req *http.Request, via []*http.Request) error {
	from := via[len(via)-1].URL
	to := origin(req.URL)
	if len(via) > maxRedirects {
		return &redirectError{fmt.Sprintf("more than %d redirects, the last to %s", maxRedirects, to)}
	}
	if err := redirect.Check(req.Context(), from, req.URL); err != nil {
		return &redirectError{err.Error()}
	}
	if pinned, ok := req.Context().Value(pinnedKey{}).(bool); ok && pinned && !strings.EqualFold(req.URL.Hostname(), from.Hostname()) {
		return &redirectError{"redirect to another host, " + to + ", refused: a mirror is only followed on its own host"}
	}
	for _, v := range via {
		if !sameOrigin(req.URL, v.URL) {
			req.Header.Del("Authorization")
			req.Header.Del(gitLabTokenHeader)
		}
	}
	return nil
}
