package config

import (
	"fmt"
	"maps"
	"net"
	"net/mail"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/yamlfile"
)

var (
	channelName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)
	headerName  = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$") // RFC 9110, section 5.1
	serviceURL  = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]*://`)
	// templatePlace is where package text/template puts its finger: NAME:LINE: or
	// NAME:LINE:BYTE:, and what it says of it.
	templatePlace = regexp.MustCompile(`(?s)^template: [^:]*:(\d+)(?::(\d+))?: (.*)$`)
)

func (c *Notifications) validate(n *yamlfile.Node) yamlfile.Errors {
	v := validator{node: n, file: c.File}
	lines := map[string]int{}
	for i, ch := range c.Channels {
		v.channelName(i, ch, lines)
		for j, e := range ch.Events {
			v.oneOf([]any{"channels", i, "events", j}, e, Events()...)
		}
		if !ch.Enabled {
			continue
		}
		if len(ch.Events) == 0 {
			v.fail([]any{"channels", i}, "is enabled for no events; list some of %s", strings.Join(Events(), ", "))
		}
		at := func(keys ...any) []any { return append([]any{"channels", i, "config"}, keys...) }
		switch {
		case ch.Email != nil:
			v.email(at, ch.Email)
		case ch.Slack != nil:
			v.address(at("webhook_url"), ch.Slack.WebhookURL)
			v.timeout(at("timeout"), ch.Slack.Timeout)
		case ch.Webhook != nil:
			v.webhook(at, ch.Webhook)
		case ch.Shoutrrr != nil:
			if !serviceURL.MatchString(string(ch.Shoutrrr.URL)) {
				v.fail(at("url"), "is not given as SERVICE://…, such as ntfy://ntfy.sh/topic")
			}
			v.timeout(at("timeout"), ch.Shoutrrr.Timeout)
		}
	}
	for _, event := range slices.Sorted(maps.Keys(c.Templates)) {
		if !slices.Contains(Events(), event) {
			hint := "known are " + strings.Join(Events(), ", ")
			if near := yamlfile.Nearest(event, Events()); near != "" {
				hint = fmt.Sprintf("did you mean %q?", near)
			}
			v.errs = append(v.errs, n.KeyErrorf([]any{"templates", event}, "unknown event; %s", hint))
		}
		t := c.Templates[event]
		for _, part := range [][2]string{{"subject", t.Subject}, {"body", t.Body}} {
			if _, err := template.New(part[0]).Parse(part[1]); err != nil {
				v.errs = append(v.errs, TemplateError(n, event, part[0], err))
			}
		}
	}
	return v.errs
}

// channelName wants names that are safe to print and to type, each once.
func (v *validator) channelName(i int, ch Channel, lines map[string]int) {
	if ch.Name == "" { // it could not be read, and that was told
		return
	}
	at := []any{"channels", i, "name"}
	if !channelName.MatchString(ch.Name) {
		v.fail(at, "%q: want letters, digits, _, . and -, beginning with a letter or digit", ch.Name)
	}
	if first, twice := lines[ch.Name]; twice {
		v.fail(at, "%q is the name of the channel on line %d already; give this one another, and type: %s", ch.Name, first, ch.Type)
		return
	}
	if n := v.node.At(at...); n != nil {
		lines[ch.Name] = n.Line
	}
}

// TemplateError says what is wrong with a template, at the place in the file that
// the error of package text/template speaks of.
func TemplateError(n *yamlfile.Node, event, part string, err error) yamlfile.Error {
	path := []any{"templates", event, part}
	m := templatePlace.FindStringSubmatch(err.Error())
	if m == nil {
		return n.Errorf(path, "%s", strings.TrimPrefix(err.Error(), "template: "))
	}
	line, _ := strconv.Atoi(m[1]) // the expression has digits only
	column := 0
	if m[2] != "" {
		column, _ = strconv.Atoi(m[2])
		column++ // it counts from 0
	}
	where := fmt.Sprintf("line %d of the text: ", line)
	if at := n.At(path...); at != nil && (at.Block > 0 || !strings.Contains(at.Text, "\n")) {
		where = "" // the place in the file says it
	}
	return n.TextErrorf(path, line, column, "%s%s", where, m[3])
}

func (v *validator) email(at func(...any) []any, e *Email) {
	if len(e.To) == 0 {
		v.fail(at("to"), "not given: a list of addresses")
	}
	for i, to := range append(slices.Clone(e.To), e.From) {
		path := at("to", i)
		if i == len(e.To) {
			path = at("from")
		}
		if _, err := mail.ParseAddress(to); err != nil {
			v.fail(path, "%s is not an e-mail address", v.quote(path, to))
		}
	}
	switch host := at("smtp_host"); {
	case e.SMTPHost == "":
		v.fail(host, "not given")
	case net.ParseIP(e.SMTPHost) == nil && strings.ContainsAny(e.SMTPHost, ":/@ "):
		v.fail(host, "%s: want the name or the IP address of a host, nothing else; the port goes into smtp_port", v.quote(host, e.SMTPHost))
	}
	if port, err := strconv.Atoi(e.SMTPPort); err != nil || port < 1 || port > 65535 {
		v.fail(at("smtp_port"), "%s: want a port, 1 to 65535", v.quote(at("smtp_port"), e.SMTPPort))
	}
	switch {
	case e.Password != "" && e.Username == "":
		v.fail(at("password"), "there is no username it could belong to")
	case e.Password == "" && e.Username != "":
		v.fail(at("username"), "there is no password for it")
	}
	if e.TLS != "" {
		v.oneOf(at("tls"), e.TLS, StartTLS, ImplicitTLS, Opportunistic, NoTLS)
	}
	if e.Password != "" && (e.TLS == NoTLS || e.TLS == Opportunistic) {
		v.fail(at("tls"), "%q could send the password in the clear; want starttls or implicit", e.TLS)
	}
	v.caFile(at("ca_file"), e.CAFile)
	if e.CAFile != "" && e.TLSSkipVerify {
		v.fail(at("tls_skip_verify"), "takes any certificate, so ca_file would mean nothing; leave one of them out")
	}
	v.timeout(at("timeout"), e.Timeout)
}

func (v *validator) webhook(at func(...any) []any, w *Webhook) {
	v.address(at("url"), w.URL)
	if w.Method != "" {
		v.oneOf(at("method"), w.Method, "POST", "PUT", "PATCH", "GET")
	}
	if w.Method == "GET" && w.HMACSecret != "" {
		v.fail(at("hmac_secret"), "a GET has no body that could be signed")
	}
	for _, name := range slices.Sorted(maps.Keys(w.Headers)) {
		path := at("headers", name)
		if !headerName.MatchString(name) {
			v.errs = append(v.errs, v.node.KeyErrorf(path, "%q is no name of a header", name))
		}
		if strings.ContainsAny(string(w.Headers[name]), "\r\n\x00") {
			v.fail(path, "the value has more than one line")
		}
	}
	v.caFile(at("ca_file"), w.CAFile)
	v.timeout(at("timeout"), w.Timeout)
}

func (v *validator) caFile(path []any, file string) {
	if file != "" && !filepath.IsAbs(file) {
		v.fail(path, "%s: want the absolute path of a PEM file", v.quote(path, file))
	}
}

func (v *validator) timeout(path []any, d component.Duration) {
	if d.Std() < 0 || d.Std() > maxTimeout || d.Std() > 0 && d.Std() < time.Second {
		v.fail(path, "%s: want 1s to %s", d.Std(), maxTimeout)
	}
}

// address checks a URL that may hold a secret, so it is not shown.
func (v *validator) address(path []any, s Secret) {
	u, err := url.Parse(string(s))
	switch {
	case s == "":
		v.fail(path, "not given")
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		v.fail(path, "is not an http or https address")
	}
}
