package health

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/itchyny/gojq"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// defaultTestTimeout bounds a test whose definition says nothing.
const defaultTestTimeout = 10 * time.Second

// notNow are answers that put one off. 500 is another: what cannot be read may be lost.
var notNow = []int{http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout}

// Outcome is what one test found.
type Outcome struct {
	Status Status
	Detail string
	Value  string // what was read, for fingerprints; "" when the test reads none
	Unsure bool   // it could not be decided: the status says nothing about the component

	secret bool // for want of a secret
	silent bool // there was no answer: nothing listened, it took too long, or it said "not now"
}

func passed(value, format string, args ...any) Outcome {
	return Outcome{Status: OK, Value: value, Detail: fmt.Sprintf(format, args...)}
}

// spare is the outcome of a test whose secret cannot be had.
func spare(what string, err error) Outcome {
	return Outcome{Status: Warn, Unsure: true, secret: true, Detail: fmt.Sprintf("%s could not be asked: %v", what, err)}
}

func failed(format string, args ...any) Outcome {
	return Outcome{Status: Fail, Detail: fmt.Sprintf(format, args...)}
}

// unanswered is a failure in which nothing was said.
func unanswered(format string, args ...any) Outcome {
	o := failed(format, args...)
	o.silent = true
	return o
}

// Test makes one test, with the credentials of client. at is the moment that
// PromQL queries are evaluated at, before their own offset; zero means now.
func (p *Prober) Test(ctx context.Context, client component.Client, t component.Test, at time.Time) Outcome {
	return p.TestAs(ctx, Clients{Own: client}, t, at)
}

// Clients are the credentials of a test. An address that comes out of an answer
// may lie anywhere: it gets those of its own place, or none.
type Clients struct {
	Own component.Client // for addresses that the test itself names
	// Of tells the client of another scheme, host and port. Where it is nil or gives
	// the zero Client, no credentials are shown; who may have signed the certificate
	// is no secret, and stays.
	Of func(origin string) component.Client
}

// at is the client for an address that an answer of from gave.
func (c Clients) at(address, from string) component.Client {
	to := originOf(address)
	if to == originOf(from) {
		return c.Own
	}
	if c.Of != nil {
		if other := c.Of(to); other != (component.Client{}) {
			return other
		}
	}
	return component.Client{CA: c.Own.CA}
}

// originOf is the scheme, host and port of an address, its port spelled out.
func originOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + net.JoinHostPort(strings.ToLower(u.Hostname()), component.PortOf(address))
}

// TestAs is Test with the credentials of several places.
func (p *Prober) TestAs(ctx context.Context, clients Clients, t component.Test, at time.Time) Outcome {
	client := clients.Own
	limit := t.Timeout.Std()
	if limit <= 0 {
		limit = defaultTestTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if at.IsZero() {
		at = time.Now()
	}
	var o Outcome
	switch {
	case t.HTTP != nil:
		h := *t.HTTP
		h.URL, h.Body, h.JSON = component.AtMoment(h.URL, at), component.AtMoment(h.Body, at), component.AtMoment(h.JSON, at)
		o = p.testHTTP(ctx, clients, h)
	case t.PromQL != nil:
		o = p.testPromQL(ctx, client, *t.PromQL, at)
	case t.TCP != nil:
		o = testTCP(ctx, *t.TCP)
	case t.Exec != nil:
		o = p.testExec(ctx, *t.Exec, limit)
	default:
		o = failed("the test says neither http, promql, tcp nor exec")
	}
	switch {
	case o.Status != Fail:
	case t.Dependency:
		o.Status, o.Unsure = Warn, true
		o.Detail += "; that may be due to what it depends on"
	case t.Severity == "warn":
		o.Status = Warn
	}
	return o
}

func (p *Prober) testHTTP(ctx context.Context, clients Clients, t component.HTTPTest) Outcome {
	client := clients.Own
	if t.ForEach == nil {
		return p.askOnce(ctx, client, t)
	}
	what := t.ForEach.What
	if what == "" {
		what = "values"
	}
	a, o := p.fetch(ctx, client, request{url: t.ForEach.URL}, nil)
	if o != nil {
		return *o
	}
	values, err := query(ctx, t.ForEach.JSON, a.body)
	if err != nil {
		return failed("%s: %v", t.ForEach.URL, err)
	}
	if len(values) == 0 {
		return failed("%s lists no %s", t.ForEach.URL, what)
	}
	var texts []string
	for _, v := range values {
		one := t
		one.ForEach = nil
		one.URL = strings.ReplaceAll(t.URL, "{value}", v)
		one.Body = strings.ReplaceAll(t.Body, "{value}", v)
		o := p.askOnce(ctx, clients.at(one.URL, t.ForEach.URL), one)
		if o.Status != OK {
			o.Detail = v + ": " + o.Detail
			return o
		}
		texts = append(texts, v)
	}
	return passed(strings.Join(texts, ","), "%s: %s", what, strings.Join(texts, ", "))
}

// fetch asks and tells answers that are no use apart from those that fail.
func (p *Prober) fetch(ctx context.Context, client component.Client, q request, accept []int) (answer, *Outcome) {
	a, err := p.ask(ctx, client, q)
	var o Outcome
	switch {
	case p.spared(err):
		o = spare(q.url, err)
	case err != nil:
		o = failed("%s: %v", q.url, plainHTTPError(err))
		var silent *silentError
		o.silent = errors.As(err, &silent)
	case slices.Contains(accept, a.status), len(accept) == 0 && a.ok():
		return a, nil
	case a.status == http.StatusTooManyRequests:
		o = Outcome{Status: Warn, Unsure: true, silent: true, Detail: fmt.Sprintf("%s answered 429: asked too often", q.url)}
	case a.refused() && !client.HasCredentials():
		o = Outcome{Status: Skipped, Detail: fmt.Sprintf("%s answered %d: set client.username and client.password (or bearer) in its definition", q.url, a.status)}
	case len(accept) > 0:
		o = failed("%s answered %d %q, expected %v", q.url, a.status, firstLine(a.body), accept)
	default:
		o = failed("%s answered %d %q, expected 200", q.url, a.status, firstLine(a.body))
	}
	o.silent = o.silent || err == nil && slices.Contains(notNow, a.status)
	return a, &o
}

func (p *Prober) askOnce(ctx context.Context, client component.Client, t component.HTTPTest) Outcome {
	a, bad := p.fetch(ctx, client, request{method: t.Method, url: t.URL, headers: t.Headers, body: t.Body}, t.Status)
	if bad != nil {
		return *bad
	}
	value := strings.TrimSpace(string(a.body))
	what := t.URL
	if t.JSON != "" {
		values, err := query(ctx, t.JSON, a.body)
		switch {
		case err != nil:
			return failed("%s: %v", t.URL, err)
		case len(values) != 1:
			return failed("%s: %s gives %d values, expected one", t.URL, t.JSON, len(values))
		}
		value, what = values[0], t.URL+" "+t.JSON
	}
	if t.Match != "" {
		re, err := regexp.Compile(t.Match)
		if err != nil {
			return failed("match: %v", err)
		}
		m := re.FindStringSubmatch(value)
		if m == nil {
			return failed("%s answered %q, expected a match of %q", what, firstLine([]byte(value)), t.Match)
		}
		value = m[min(1, len(m)-1)]
	}
	if why := bounds(value, t.AtLeast, t.AtMost); why != "" {
		return failed("%s: %s", what, why)
	}
	if t.JSON == "" && t.Match == "" {
		return passed(value, "%s answered %d", t.URL, a.status)
	}
	return passed(value, "%.80s", value)
}

// bounds says how a value breaks its limits; "" when it keeps them.
func bounds(value string, least, most *float64) string {
	if least == nil && most == nil {
		return ""
	}
	f, err := strconv.ParseFloat(value, 64)
	switch {
	case err != nil:
		return fmt.Sprintf("%.80q is no number", value)
	case least != nil && !(f >= *least):
		return fmt.Sprintf("%s, expected at least %v", value, *least)
	case most != nil && !(f <= *most):
		return fmt.Sprintf("%s, expected at most %v", value, *most)
	}
	return ""
}

// query runs a jq expression on a JSON text and returns what it yields as texts.
func query(ctx context.Context, expression string, body []byte) ([]string, error) {
	q, err := gojq.Parse(expression)
	if err != nil {
		return nil, fmt.Errorf("jq expression %q: %w", expression, err)
	}
	code, err := gojq.Compile(q)
	if err != nil {
		return nil, fmt.Errorf("jq expression %q: %w", expression, err)
	}
	var doc any
	if err := json.Unmarshal(body, &doc); err != nil {
		return nil, fmt.Errorf("the answer %q is not JSON: %w", firstLine(body), err)
	}
	var out []string
	for it := code.RunWithContext(ctx, doc); ; {
		v, more := it.Next()
		if !more {
			return out, nil
		}
		if err, isErr := v.(error); isErr {
			return nil, fmt.Errorf("%s does not fit the answer %q: %w", expression, firstLine(body), err)
		}
		if len(out) == 10_000 {
			return nil, fmt.Errorf("%s yields more than %d values", expression, len(out))
		}
		out = append(out, text(v))
	}
}

func text(v any) string {
	switch x := v.(type) {
	case string:
		return x
	case float64:
		return strconv.FormatFloat(x, 'g', -1, 64)
	}
	b, err := gojq.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(b)
}

// testPromQL asks the query API of Prometheus' HTTP API, v1. NaN and infinities
// count as values; the sum of the samples is compared.
func (p *Prober) testPromQL(ctx context.Context, client component.Client, t component.PromQLTest, at time.Time) Outcome {
	at = at.Add(-t.Ago.Std())
	form := url.Values{"query": {t.Query}, "time": {strconv.FormatFloat(float64(at.UnixMilli())/1000, 'f', 3, 64)}}
	a, bad := p.fetch(ctx, client, request{url: strings.TrimSuffix(t.URL, "/") + "/api/v1/query?" + form.Encode()}, nil)
	if bad != nil {
		bad.Detail = fmt.Sprintf("query %q: %s", t.Query, bad.Detail)
		return *bad
	}
	sum, n, err := sumSamples(a.body)
	switch {
	case err != nil:
		return failed("query %q: %v", t.Query, err)
	case n == 0 && t.Empty == "skip":
		return Outcome{Status: Skipped, Detail: fmt.Sprintf("query %q has no samples", t.Query)}
	case n == 0 && t.Empty != "zero":
		return failed("query %q has no samples", t.Query)
	}
	value := strconv.FormatFloat(sum, 'g', -1, 64)
	if why := bounds(value, t.AtLeast, t.AtMost); why != "" {
		return failed("query %q: %s", t.Query, why)
	}
	return passed(value, "%s", value)
}

// sumSamples reads the answer of an instant query.
func sumSamples(body []byte) (sum float64, n int, err error) {
	var doc struct {
		Status string `json:"status"`
		Error  string `json:"error"`
		Data   struct {
			ResultType string          `json:"resultType"`
			Result     json.RawMessage `json:"result"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return 0, 0, fmt.Errorf("the answer %q is not that of a query API: %w", firstLine(body), err)
	}
	if doc.Status != "success" {
		return 0, 0, fmt.Errorf("status %q: %s", doc.Status, doc.Error)
	}
	var points [][2]any
	switch doc.Data.ResultType {
	case "scalar":
		var pt [2]any
		if err := json.Unmarshal(doc.Data.Result, &pt); err != nil {
			return 0, 0, fmt.Errorf("result: %w", err)
		}
		points = append(points, pt)
	case "vector":
		var vec []struct {
			Value *[2]any `json:"value"`
		}
		if err := json.Unmarshal(doc.Data.Result, &vec); err != nil {
			return 0, 0, fmt.Errorf("result: %w", err)
		}
		for _, s := range vec {
			if s.Value != nil { // a native histogram has none
				points = append(points, *s.Value)
			}
		}
	default:
		return 0, 0, fmt.Errorf("result type %q, expected a vector or a scalar", doc.Data.ResultType)
	}
	for _, pt := range points {
		s, ok := pt[1].(string)
		if !ok {
			return 0, 0, fmt.Errorf("a sample is %v, expected a text", pt[1])
		}
		f, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("a sample is %q: %w", s, err)
		}
		sum += f
		n++
	}
	return sum, n, nil
}

func testTCP(ctx context.Context, t component.TCPTest) Outcome {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", t.Address)
	if err != nil {
		return unanswered("%s: %v", t.Address, plainHTTPError(err))
	}
	_ = conn.Close()
	return passed("", "%s accepts connections", t.Address)
}

func (p *Prober) testExec(ctx context.Context, t component.ExecTest, limit time.Duration) Outcome {
	if p.Exec == nil {
		return Outcome{Status: Skipped, Detail: "commands are not run here"}
	}
	if len(t.Command) == 0 {
		return failed("the command is empty")
	}
	words := make([]string, len(t.Command))
	for i, w := range t.Command {
		var err error
		if words[i], err = p.expand(w); p.spared(err) {
			return spare("`"+t.Command[0]+"`", err)
		} else if err != nil {
			return failed("%v", err)
		}
	}
	out, err := p.Exec(ctx, words, limit)
	out = strings.TrimSpace(out)
	if err != nil {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return unanswered("`%s` did not end within %s", t.Command[0], limit)
		}
		return failed("`%s`: %v: %q", t.Command[0], err, firstLine([]byte(out)))
	}
	value := out
	if t.Match != "" {
		re, err := regexp.Compile(t.Match)
		if err != nil {
			return failed("match: %v", err)
		}
		m := re.FindStringSubmatch(out)
		if m == nil {
			return failed("`%s` printed %q, expected a match of %q", t.Command[0], firstLine([]byte(out)), t.Match)
		}
		value = m[min(1, len(m)-1)]
	}
	return passed(value, "`%s` ended with 0", t.Command[0])
}
