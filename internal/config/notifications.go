package config

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/yamlfile"
)

// Notifications is etc/observability/notifications.yaml, docs/specification.md,
// section 6.
type Notifications struct {
	Channels  []Channel           `yaml:"channels"`
	Templates map[string]Template `yaml:"templates"` // by event
	File      string              `yaml:"-"`
	Root      *yamlfile.Node      `yaml:"-"` // the file as written, with the values that ${…} stands for; nil without a file
	Secrets   []Secret            `yaml:"-"` // what ${SECRET:…} stood for, so that it can be kept out of errors
}

// Events lists the events that can be notified of.
func Events() []string {
	return []string{"upgrade_available", "upgrade_started", "upgrade_completed", "upgrade_failed", "rollback_required", "rollback_completed"}
}

// The types of channel.
const (
	EmailChannel    = "email"
	SlackChannel    = "slack"
	WebhookChannel  = "webhook"
	ShoutrrrChannel = "shoutrrr"
)

// ChannelTypes lists the types of channel.
func ChannelTypes() []string {
	return []string{EmailChannel, SlackChannel, WebhookChannel, ShoutrrrChannel}
}

// Channel is one way to notify. Exactly the part that its type tells is set.
type Channel struct {
	Name     string // unique; anything, where the type is given
	Type     string // email | slack | webhook | shoutrrr; the name where it is not given
	Enabled  bool
	Events   []string
	Email    *Email
	Slack    *Slack
	Webhook  *Webhook
	Shoutrrr *Shoutrrr
	// Unresolved is why nothing can be sent by it now: what ${…} stands for does not
	// exist. nil where all does.
	Unresolved error
}

// Email sends by SMTP. In a channel that is not enabled, values are as written,
// ${…} included, and defaults are not filled in; so in the other types.
type Email struct {
	To            []string           `yaml:"to"`
	SMTPHost      string             `yaml:"smtp_host"`
	SMTPPort      string             `yaml:"smtp_port"` // 1 to 65535
	From          string             `yaml:"from"`      // an address, also as "Name <address>"
	Username      string             `yaml:"username"`
	Password      Secret             `yaml:"password"`
	TLS           string             `yaml:"tls"`             // starttls | implicit | opportunistic | none; left out: implicit on port 465, else starttls with a password, else opportunistic
	CAFile        string             `yaml:"ca_file"`         // PEM file of who signed the server's certificate, instead of those the system trusts
	TLSSkipVerify bool               `yaml:"tls_skip_verify"` // take any certificate
	Timeout       component.Duration `yaml:"timeout"`         // of one attempt; 30s when left out
}

// The values of Email.TLS.
const (
	StartTLS      = "starttls"
	ImplicitTLS   = "implicit"
	Opportunistic = "opportunistic"
	NoTLS         = "none"
)

// Slack posts to an incoming webhook.
type Slack struct {
	WebhookURL       Secret             `yaml:"webhook_url"`
	Channel          string             `yaml:"channel"`            // that of the webhook when left out
	MentionOnFailure string             `yaml:"mention_on_failure"` // @name, <@USERID> or <!subteam^ID>
	Timeout          component.Duration `yaml:"timeout"`            // of one attempt; 30s when left out
}

// Webhook sends JSON to an address.
type Webhook struct {
	URL        Secret             `yaml:"url"`
	Method     string             `yaml:"method"` // POST | PUT | PATCH | GET; POST when left out, and GET has no body
	Headers    map[string]Secret  `yaml:"headers"`
	HMACSecret Secret             `yaml:"hmac_secret"` // key of the signature in the header X-Signature-256
	CAFile     string             `yaml:"ca_file"`     // PEM file of who signed the server's certificate, instead of those the system trusts
	Timeout    component.Duration `yaml:"timeout"`     // of one attempt; 30s when left out
}

// Shoutrrr sends to one of the services of the shoutrrr library.
type Shoutrrr struct {
	URL     Secret             `yaml:"url"`     // SERVICE://…, as the library's documentation has it
	Timeout component.Duration `yaml:"timeout"` // of one attempt; 30s when left out
}

// Template is the text of a message, in the form of package text/template.
type Template struct {
	Subject string `yaml:"subject"`
	Body    string `yaml:"body"`
}

type channelCommon struct {
	Name    string   `yaml:"name"`
	Type    string   `yaml:"type"`
	Enabled *bool    `yaml:"enabled"`
	Events  []string `yaml:"events"`
}

// UnmarshalYAML reads a channel; what may be given in config goes by its type,
// and where none is given by its name.
func (c *Channel) UnmarshalYAML(decode func(any) error) error {
	var probe any
	if err := decode(&probe); err != nil {
		return err
	}
	m, ok := probe.(map[string]any)
	if !ok {
		return errors.New("want a map {name, type, enabled, config, events}")
	}
	kind := m["type"]
	if kind == nil {
		kind = m["name"]
	}
	var common channelCommon
	var err error
	switch kind {
	case EmailChannel:
		common, c.Email, err = readChannel[Email](decode)
	case SlackChannel:
		common, c.Slack, err = readChannel[Slack](decode)
	case WebhookChannel:
		common, c.Webhook, err = readChannel[Webhook](decode)
	case ShoutrrrChannel:
		common, c.Shoutrrr, err = readChannel[Shoutrrr](decode)
	default:
		types := strings.Join(ChannelTypes(), ", ")
		switch {
		case m["name"] == nil:
			return errors.New("name is not given; want one of " + types + ", or any name with a type")
		case m["type"] == nil:
			return fmt.Errorf("name %q tells no type of channel; add type: one of %s", fmt.Sprint(kind), types)
		}
		return fmt.Errorf("unknown type %q; want one of %s", fmt.Sprint(kind), types)
	}
	if err != nil {
		return err
	}
	if common.Name == "" {
		return errors.New("name is not given; want any that no other channel has")
	}
	if common.Enabled == nil {
		return errors.New("enabled is not given; want true or false")
	}
	c.Name, c.Type, c.Enabled, c.Events = common.Name, fmt.Sprint(kind), *common.Enabled, common.Events
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

// MarshalYAML gives the form that the file has.
func (c Channel) MarshalYAML() (any, error) {
	out := struct {
		Name    string   `yaml:"name"`
		Type    string   `yaml:"type"`
		Enabled bool     `yaml:"enabled"`
		Config  any      `yaml:"config"`
		Events  []string `yaml:"events"`
	}{Name: c.Name, Type: c.Type, Enabled: c.Enabled, Events: c.Events}
	switch {
	case c.Email != nil:
		out.Config = *c.Email
	case c.Slack != nil:
		out.Config = *c.Slack
	case c.Webhook != nil:
		out.Config = *c.Webhook
	case c.Shoutrrr != nil:
		out.Config = *c.Shoutrrr
	}
	return out, nil
}

// Wants reports whether the channel is to tell of an event.
func (c Channel) Wants(event string) bool { return c.Enabled && slices.Contains(c.Events, event) }

// Channel finds a channel by its name.
func (c *Notifications) Channel(name string) (Channel, bool) {
	for _, ch := range c.Channels {
		if ch.Name == name {
			return ch, true
		}
	}
	return Channel{}, false
}

// LoadNotifications reads the notifications below root; without a file there are
// none. ${SECRET:NAME} and ${VARIABLE} are filled in for channels that are
// enabled, and only there must they exist. Errors are as those of LoadPolicy.
func LoadNotifications(root layout.Root, env func(string) string) (*Notifications, error) {
	out, unresolved, err := loadNotifications(root, env)
	if err == nil {
		err = unresolved.Err()
	}
	return out, err
}

// LoadNotificationsAsFound is LoadNotifications for who queues messages or sends
// them: where what ${…} stands for does not exist that is a warning, and the messages
// of the channels that need it wait (Channel.Unresolved). The others work.
func LoadNotificationsAsFound(root layout.Root, env func(string) string) (n *Notifications, warnings error, err error) {
	n, unresolved, err := loadNotifications(root, env)
	return n, unresolved.Err(), err
}

func loadNotifications(root layout.Root, env func(string) string) (*Notifications, yamlfile.Errors, error) {
	out := &Notifications{File: root.Notifications()}
	n, wrong, err := load(out.File)
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	x := &expander{root: root, env: env}
	n, unresolved := expandChannels(n, x.expand)
	errs := wrong.Beside(append(unresolved, decode(n, out)...))
	out.Root, out.Secrets = n, x.found
	if all := errs.Beside(out.validate(n)); len(wrong) > 0 || len(all) > len(unresolved) {
		return out, nil, all.Err()
	}
	for i, ch := range out.Channels {
		if ch.Enabled {
			ch.complete()
			out.Channels[i].Unresolved = ofChannel(i, unresolved).Err()
		}
	}
	return out, unresolved, nil
}

// ofChannel are those of the errors that concern one channel.
func ofChannel(i int, errs yamlfile.Errors) yamlfile.Errors {
	return slices.DeleteFunc(slices.Clone(errs), func(e yamlfile.Error) bool {
		return !strings.HasPrefix(e.Key, fmt.Sprintf("channels[%d].", i))
	})
}

// complete fills in what is left out.
func (c Channel) complete() {
	timeout := func(d *component.Duration) {
		if *d == 0 {
			*d = component.Duration(defaultTimeout)
		}
	}
	switch {
	case c.Email != nil:
		timeout(&c.Email.Timeout)
		switch {
		case c.Email.TLS != "":
		case c.Email.SMTPPort == "465":
			c.Email.TLS = ImplicitTLS
		case c.Email.Password != "":
			c.Email.TLS = StartTLS
		default:
			c.Email.TLS = Opportunistic
		}
	case c.Slack != nil:
		timeout(&c.Slack.Timeout)
	case c.Webhook != nil:
		timeout(&c.Webhook.Timeout)
		if c.Webhook.Method == "" {
			c.Webhook.Method = "POST"
		}
	case c.Shoutrrr != nil:
		timeout(&c.Shoutrrr.Timeout)
	}
}

// The time that one attempt of a channel may take: what goes without saying, and
// the most that can be asked for.
const (
	defaultTimeout = 30 * time.Second
	maxTimeout     = 5 * time.Minute
)

// expandChannels fills in what ${…} stands for in the channels that are enabled,
// and returns with it what does not exist.
func expandChannels(n *yamlfile.Node, expand func(string) (string, bool, error)) (*yamlfile.Node, yamlfile.Errors) {
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
		conf, errs := conf.MapStrings(expand)
		for _, e := range errs {
			e.Key = strings.TrimSuffix(fmt.Sprintf("channels[%d].config.%s", i, e.Key), ".")
			all = append(all, e)
		}
		filled.Items[i] = ch.With("config", conf)
	}
	return n.With("channels", &filled), all
}
