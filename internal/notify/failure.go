package notify

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/config"
)

// failure is an attempt that did not succeed.
type failure struct {
	err        error
	permanent  bool          // trying again would not help
	retryAfter time.Duration // the server asks for this pause; 0 where it does not
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// permanent marks an error as one that stays.
func permanent(err error) error { return &failure{err: err, permanent: true} }

// classify takes apart what an attempt returned. What is not known to be permanent
// is tried again.
func classify(err error) failure {
	var f *failure
	if errors.As(err, &f) {
		return failure{err: err, permanent: f.permanent, retryAfter: f.retryAfter}
	}
	return failure{err: err}
}

// fromStatus is the failure that an HTTP status other than 2xx means: a client
// error stays, but for 408, 425 and 429 (RFC 9110, section 15.5; RFC 8470; RFC
// 6585), and so does a redirect, which is not followed since it could carry a
// secret elsewhere.
func fromStatus(resp *http.Response, said string, now time.Time) error {
	code := resp.StatusCode
	f := &failure{err: fmt.Errorf("answered %s (%s), expected 2xx", resp.Status, said), permanent: permanentStatus(code)}
	if code/100 == 3 {
		f.err = fmt.Errorf("answered %s, a redirect, which is not followed; give the address that it leads to", resp.Status)
		f.permanent = true
	}
	if code == http.StatusTooManyRequests || code == http.StatusServiceUnavailable {
		f.retryAfter = retryAfter(resp.Header.Get("Retry-After"), now)
	}
	return f
}

func permanentStatus(code int) bool {
	return code/100 == 4 && code != http.StatusRequestTimeout && code != http.StatusTooEarly && code != http.StatusTooManyRequests
}

// maxRetryAfter bounds what a server can ask for.
const maxRetryAfter = time.Hour

// retryAfter reads the header: seconds or a date (RFC 9110, section 10.2.3).
func retryAfter(h string, now time.Time) time.Duration {
	var d time.Duration
	if s, err := strconv.ParseUint(strings.TrimSpace(h), 10, 31); err == nil {
		d = time.Duration(s) * time.Second
	} else if t, err := http.ParseTime(h); err == nil {
		d = t.Sub(now)
	}
	return min(max(d, 0), maxRetryAfter)
}

// fromSMTP is the failure that a reply of an SMTP server means: 5yz stays (RFC
// 5321, section 4.2.1).
func fromSMTP(doing string, err error) error {
	var reply *textproto.Error
	if !errors.As(err, &reply) {
		return fmt.Errorf("%s: %w", doing, err)
	}
	err = fmt.Errorf("%s: the server answered %d %s", doing, reply.Code, excerpt([]byte(reply.Msg)))
	return &failure{err: err, permanent: reply.Code/100 == 5}
}

// cause puts the reason of a context's end in place of what followed from it.
func cause(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// withoutURL takes the address out of an error of package net/http: it may hold a
// token.
func withoutURL(err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		return ue.Err
	}
	return err
}

// excerpt is an answer as it is told in an error, whole: it is shortened only once
// secrets are blotted out (scrub), as half a secret would not be found any more.
func excerpt(data []byte) string {
	s := strings.TrimSpace(strings.ToValidUTF8(string(data), "?"))
	if s == "" {
		return "empty answer"
	}
	return strconv.Quote(s)
}

// scrubber blots secrets out of texts.
type scrubber struct{ r *strings.Replacer }

// shortest is how long a text must be to be blotted out where it may be an
// everyday word, as parts of an address can be; a secret as such is from
// shortestSecret on.
const (
	shortest       = 6
	shortestSecret = 3
)

// wholeScrubber knows secrets as a whole, in all forms in which a text may show
// them: as they are, quoted, escaped for an address, and as SMTP sends them.
func wholeScrubber(secrets ...config.Secret) *scrubber {
	var all []string
	for _, secret := range secrets {
		all = append(all, forms(string(secret))...)
	}
	return newScrubber(all)
}

// scrubberOf knows the parts of secrets too, such as the path of an address. It is
// for errors of a delivery, which may tell a part; in other texts it would take
// everyday words for secrets.
func scrubberOf(secrets ...config.Secret) *scrubber {
	var all []string
	for _, secret := range secrets {
		all = append(append(all, forms(string(secret))...), parts(string(secret))...)
	}
	return newScrubber(all)
}

func newScrubber(all []string) *scrubber {
	slices.SortFunc(all, func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) })
	var pairs []string
	for _, s := range slices.Compact(all) {
		pairs = append(pairs, s, "[redacted]")
	}
	return &scrubber{strings.NewReplacer(pairs...)}
}

func forms(s string) []string {
	if len(s) < shortestSecret {
		return nil
	}
	quoted := strconv.Quote(s)
	return []string{s, quoted[1 : len(quoted)-1], url.QueryEscape(s), url.PathEscape(s), base64.StdEncoding.EncodeToString([]byte(s))}
}

func parts(s string) []string {
	var out []string
	add := func(part string, least int) {
		if len(part) >= least {
			out = append(out, part)
		}
	}
	for _, word := range strings.Fields(s) { // "Bearer TOKEN"
		add(word, shortest)
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme == "" {
		return out
	}
	if pass, ok := u.User.Password(); ok {
		add(pass, shortestSecret)
	}
	add(u.User.Username(), shortest)
	add(u.RawQuery, shortest)
	add(u.Fragment, shortest)
	for _, part := range strings.Split(u.Path+"/"+u.EscapedPath(), "/") {
		add(part, shortest)
	}
	for _, values := range u.Query() {
		for _, v := range values {
			add(v, shortest)
		}
	}
	if u.Scheme != "http" && u.Scheme != "https" && !strings.Contains(u.Host, ".") && u.Hostname() != "localhost" {
		add(u.Host, shortest) // some services have a key in its place
	}
	return out
}

// text is s without secrets.
func (s *scrubber) text(t string) string { return s.r.Replace(t) }

// secretsOf are all secrets that a channel works with.
func secretsOf(ch config.Channel) []config.Secret {
	var out []config.Secret
	switch {
	case ch.Email != nil:
		p := ch.Email.Password
		out = append(out, p)
		if p != "" { // AUTH PLAIN, RFC 4616
			out = append(out, config.Secret("\x00"+ch.Email.Username+"\x00"+string(p)))
		}
	case ch.Slack != nil:
		out = append(out, ch.Slack.WebhookURL)
	case ch.Webhook != nil:
		out = append(out, ch.Webhook.URL, ch.Webhook.HMACSecret)
		for _, v := range ch.Webhook.Headers {
			out = append(out, v)
		}
	case ch.Shoutrrr != nil:
		out = append(out, ch.Shoutrrr.URL)
	}
	return out
}
