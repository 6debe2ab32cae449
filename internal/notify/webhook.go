package notify

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/config"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
)

// webhook sends a document to an address.
type webhook struct {
	conf   config.Webhook
	client *http.Client
}

func newWebhook(root layout.Root, conf config.Webhook) (*webhook, error) {
	c, err := tlsConfig(root, conf.CAFile, "")
	if err != nil {
		return nil, err
	}
	return &webhook{conf: conf, client: client(c)}, nil
}

// Document is the JSON body of a webhook (schemas/webhook.schema.json).
type Document struct {
	ID      string `json:"id"`      // the same in every attempt: who has seen it can ignore it
	SentAt  int64  `json:"sent_at"` // of this attempt, in seconds since 1970
	Subject string `json:"subject"`
	Body    string `json:"body"`
	Data
}

// The headers that a receiver can check a request by. The signature is that of the
// body, which holds the time too; the header that repeats it is for servers that
// turn old requests away before they read them, and proves nothing.
const (
	signatureHeader = "X-Signature-256"
	timestampHeader = "X-Signature-Timestamp"
)

// Sign is the value of the header X-Signature-256: "sha256=" and the HMAC-SHA256
// of the body in hexadecimal digits.
func Sign(key, body []byte) string {
	mac := hmac.New(sha256.New, key)
	mac.Write(body) // it never fails
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

func (w *webhook) send(ctx context.Context, m *message) error {
	at := time.Now().Unix()
	h := http.Header{"User-Agent": {userAgent}, "X-Observability-Event": {m.Data.Event}, "Idempotency-Key": {m.ID}}
	var body []byte
	if w.conf.Method != http.MethodGet {
		var err error
		d := m.Data
		d.Kept, d.Warnings = append([]Component{}, d.Kept...), append([]string{}, d.Warnings...) // never null
		if body, err = json.Marshal(Document{ID: m.ID, SentAt: at, Subject: m.Subject, Body: m.Body, Data: d}); err != nil {
			return permanent(err)
		}
		h.Set("Content-Type", "application/json")
	}
	for name, value := range w.conf.Headers {
		h.Set(name, string(value))
	}
	if w.conf.HMACSecret != "" {
		h.Set(timestampHeader, strconv.FormatInt(at, 10))
		h.Set(signatureHeader, Sign([]byte(w.conf.HMACSecret), body))
	}
	return request(ctx, w.client, w.conf.Method, string(w.conf.URL), body, h)
}
