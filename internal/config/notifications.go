package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/mail"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/yamlfile"
)

// Notifications is etc/observability/notifications.yaml, docs/specification.md,
// section 6.
type Notifications struct {
	Channels  []Channel           `yaml:"channels"`
	Templates map[string]Template `yaml:"templates"` // by event
	File      string              `yaml:"-"`
}

// Events lists the events that can be notified of.
func Events() []string {
	return []string{"upgrade_available", "upgrade_started", "upgrade_completed", "upgrade_failed", "rollback_required", "rollback_completed"}
}

// Channel is one way to notify. Exactly the part that its name tells is set.
type Channel struct {
	Name    string // email | slack | webhook
	Enabled bool
	Events  []string
	Email   *Email
	Slack   *Slack
	Webhook *Webhook
}

// Email sends by SMTP. In a channel that is not enabled, values are as written,
// ${…} included; so in the other kinds.
type Email struct {
	To       []string `yaml:"to"`
	SMTPHost string   `yaml:"smtp_host"`
	SMTPPort string   `yaml:"smtp_port"` // 1 to 65535
	From     string   `yaml:"from"`
	Username string   `yaml:"username"`
	Password Secret   `yaml:"password"`
}

// Slack posts to an incoming webhook.
type Slack struct {
	WebhookURL       Secret `yaml:"webhook_url"`
	Channel          string `yaml:"channel"`
	MentionOnFailure string `yaml:"mention_on_failure"`
}

// Webhook sends JSON to an address.
type Webhook struct {
	URL     Secret            `yaml:"url"`
	Method  string            `yaml:"method"` // POST when empty
	Headers map[string]Secret `yaml:"headers"`
}

// Template is the text of a message, in the form of package text/template.
type Template struct {
	Subject string `yaml:"subject"`
	Body    string `yaml:"body"`
}

type channelCommon struct {
	Name    string   `yaml:"name"`
	Enabled *bool    `yaml:"enabled"`
	Events  []string `yaml:"events"`
}

// UnmarshalYAML reads a channel; what may be given in config goes by its name.
func (c *Channel) UnmarshalYAML(decode func(any) error) error {
	var probe any
	if err := decode(&probe); err != nil {
		return err
	}
	m, ok := probe.(map[string]any)
	if !ok {
		return errors.New("want a map {name, enabled, config, events}")
	}
	var common channelCommon
	var err error
	switch m["name"] {
	case "email":
		common, c.Email, err = readChannel[Email](decode)
	case "slack":
		common, c.Slack, err = readChannel[Slack](decode)
	case "webhook":
		common, c.Webhook, err = readChannel[Webhook](decode)
	case nil:
		return errors.New("name is not given; want email, slack or webhook")
	default:
		return fmt.Errorf("unknown name %q; want email, slack or webhook", m["name"])
	}
	if err != nil {
		return err
	}
	if common.Enabled == nil {
		return errors.New("enabled is not given; want true or false")
	}
	c.Name, c.Enabled, c.Events = common.Name, *common.Enabled, common.Events
	return nil
}

func readChannel[T any](decode func(any) error) (channelCommon, *T, error) {
	var ch struct {
		Common channelCommon `yaml:",inline"`
		Config T             `yaml:"config"`
	}
	err := decode(&ch)
	return ch.Common, &ch.Config, err
}

// LoadNotifications reads the notifications below root; without a file there are
// none. ${SECRET:NAME} and ${VARIABLE} are filled in for channels that are
// enabled, and only there must they exist. Errors are as those of LoadPolicy.
func LoadNotifications(root layout.Root, env func(string) string) (*Notifications, error) {
	out := &Notifications{File: root.Notifications()}
	n, wrong, err := load(out.File)
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	n, errs := expandChannels(n, &expander{root: root, env: env})
	errs = wrong.Beside(append(errs, decode(n, out)...))
	if err := errs.Beside(out.validate(n)).Err(); err != nil {
		return nil, err
	}
	return out, nil
}

func expandChannels(n *yamlfile.Node, x *expander) (*yamlfile.Node, yamlfile.Errors) {
	list := n.Get("channels")
	if list == nil {
		return n, nil
	}
	var all yamlfile.Errors
	filled := *list
	filled.Items = slices.Clone(list.Items)
	for i, ch := range list.Items {
		on, conf := ch.Get("enabled"), ch.Get("config")
		if on == nil || conf == nil || on.Kind != yamlfile.Bool || !strings.EqualFold(on.Text, "true") {
			continue
		}
		conf, errs := conf.MapStrings(x.expand)
		for _, e := range errs {
			e.Key = strings.TrimSuffix(fmt.Sprintf("channels[%d].config.%s", i, e.Key), ".")
			all = append(all, e)
		}
		filled.Items[i] = ch.With("config", conf)
	}
	return n.With("channels", &filled), all
}

func (c *Notifications) validate(n *yamlfile.Node) yamlfile.Errors {
	v := validator{node: n, file: c.File}
	for i, ch := range c.Channels {
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
		case ch.Webhook != nil:
			v.address(at("url"), ch.Webhook.URL)
			if ch.Webhook.Method != "" {
				v.oneOf(at("method"), ch.Webhook.Method, "POST", "PUT", "PATCH", "GET")
			}
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
				v.fail([]any{"templates", event, part[0]}, "%s", strings.TrimPrefix(err.Error(), "template: "))
			}
		}
	}
	return v.errs
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
	if e.SMTPHost == "" {
		v.fail(at("smtp_host"), "not given")
	}
	if port, err := strconv.Atoi(e.SMTPPort); err != nil || port < 1 || port > 65535 {
		v.fail(at("smtp_port"), "%s: want a port, 1 to 65535", v.quote(at("smtp_port"), e.SMTPPort))
	}
	if e.Password != "" && e.Username == "" {
		v.fail(at("password"), "there is no username it could belong to")
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
