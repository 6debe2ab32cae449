package notify

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/observability-upgrade/observability-upgrade/internal/config"
)

// slack posts to an incoming webhook: the payload of the specification, section 6.
type slack struct {
	conf   config.Slack
	client *http.Client
}

func newSlack(conf config.Slack) *slack {
	return &slack{conf: conf, client: client(&tls.Config{MinVersion: tls.VersionTLS12})}
}

// slackPayload is what Slack takes. Attachments carry the colour.
type slackPayload struct {
	Channel     string            `json:"channel,omitempty"`
	Text        string            `json:"text,omitempty"`       // mentions work only here
	LinkNames   bool              `json:"link_names,omitempty"` // makes @name in Text a mention
	Attachments []slackAttachment `json:"attachments"`
}

type slackAttachment struct {
	Fallback string `json:"fallback"` // for notifications of the system
	Color    string `json:"color"`
	Title    string `json:"title"`
	Text     string `json:"text"`
	Footer   string `json:"footer"`
	TS       int64  `json:"ts"`
}

// slackFooter signs every message.
const slackFooter = "Observability Upgrade System"

// maxSlackText is how much text is sent, in bytes; Slack cuts off what is longer
// than some 40,000 characters.
const maxSlackText = 30_000

// slackEscape does what Slack asks of text that is not markup.
var slackEscape = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

// slackColor goes by the event's name, as the specification's script does, and
// counts a rollback that needs a person among the failures.
func slackColor(event string) string {
	switch {
	case failing(event), strings.HasSuffix(event, "error"):
		return "danger"
	case strings.HasSuffix(event, "warning"):
		return "warning"
	}
	return "good"
}

func (s *slack) payload(m *message) slackPayload {
	title := slackEscape.Replace(m.Subject)
	p := slackPayload{Channel: s.conf.Channel, Attachments: []slackAttachment{{
		Fallback: title, Color: slackColor(m.Data.Event), Title: title,
		Text: clip(slackEscape.Replace(m.Body), maxSlackText), Footer: slackFooter, TS: m.Data.Timestamp.Unix(),
	}}}
	if failing(m.Data.Event) && s.conf.MentionOnFailure != "" {
		p.Text, p.LinkNames = s.conf.MentionOnFailure, strings.HasPrefix(s.conf.MentionOnFailure, "@")
	}
	return p
}

func (s *slack) send(ctx context.Context, m *message) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s.payload(m)); err != nil {
		return permanent(err)
	}
	h := http.Header{"Content-Type": {"application/json; charset=utf-8"}, "User-Agent": {userAgent}}
	return request(ctx, s.client, http.MethodPost, string(s.conf.WebhookURL), b.Bytes(), h)
}
