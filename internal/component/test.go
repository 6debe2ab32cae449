package component

import (
	"strconv"
	"strings"
	"time"
)

// Test is one thing that a component must do. Exactly one of HTTP, PromQL, TCP
// and Exec is given. It serves functional checks, links between components and
// fingerprints of data.
type Test struct {
	Name   string      `yaml:"name" json:"name"`
	HTTP   *HTTPTest   `yaml:"http,omitempty" json:"http,omitempty"`
	PromQL *PromQLTest `yaml:"promql,omitempty" json:"promql,omitempty"`
	TCP    *TCPTest    `yaml:"tcp,omitempty" json:"tcp,omitempty"`
	Exec   *ExecTest   `yaml:"exec,omitempty" json:"exec,omitempty"`

	// SeverityVerify: it fails in `verify`; in a run, where what it depends on may
	// just be away, it is waited for and then inconclusive.
	Severity string `yaml:"severity,omitempty" json:"severity,omitempty"` // fail | warn | verify; fail when empty
	// Dependency marks a test whose outcome depends on something beyond the
	// component: failing, it is inconclusive and never alone undoes an upgrade.
	Dependency bool   `yaml:"dependency,omitempty" json:"dependency,omitempty"`
	Compare    string `yaml:"compare,omitempty" json:"compare,omitempty"` // equal | at_least | some; how a fingerprint's value must be to the one before, equal when empty
	// Timeout bounds the whole test; 10 s when empty.
	Timeout Duration `yaml:"timeout,omitempty" json:"timeout,omitempty"`
}

// SeverityVerify is the severity of tests that fail in `verify` alone.
const SeverityVerify = "verify"

// HTTPTest asks an address. Its value, for limits and fingerprints, is what JSON
// yields, else the first group of Match (or all it matches), else the body.
type HTTPTest struct {
	URL     string            `yaml:"url" json:"url"`
	Method  string            `yaml:"method,omitempty" json:"method,omitempty"` // GET | POST; GET when empty
	Headers map[string]string `yaml:"headers,omitempty" json:"headers,omitempty"`
	Body    string            `yaml:"body,omitempty" json:"body,omitempty"`
	Status  []int             `yaml:"status,omitempty" json:"status,omitempty"` // accepted; any 2xx when empty
	JSON    string            `yaml:"json,omitempty" json:"json,omitempty"`     // jq expression on the answer; it must yield one value
	Match   string            `yaml:"match,omitempty" json:"match,omitempty"`   // regexp that the value (or the body) must match
	AtLeast *float64          `yaml:"at_least,omitempty" json:"at_least,omitempty"`
	AtMost  *float64          `yaml:"at_most,omitempty" json:"at_most,omitempty"`
	// ForEach makes a list of values first; the test is done for each, with
	// {value} in URL replaced by it. An empty list fails.
	ForEach *HTTPList `yaml:"for_each,omitempty" json:"for_each,omitempty"`
}

// HTTPList asks an address for a list.
type HTTPList struct {
	URL  string `yaml:"url" json:"url"`
	JSON string `yaml:"json" json:"json"` // jq expression that yields the values, none to many
	What string `yaml:"what,omitempty" json:"what,omitempty"`
}

// PromQLTest asks a Prometheus query API. Its value is the sum of the samples
// answered.
type PromQLTest struct {
	URL     string   `yaml:"url" json:"url"` // of the server, without /api/v1
	Query   string   `yaml:"query" json:"query"`
	AtLeast *float64 `yaml:"at_least,omitempty" json:"at_least,omitempty"`
	AtMost  *float64 `yaml:"at_most,omitempty" json:"at_most,omitempty"`
	Empty   string   `yaml:"empty,omitempty" json:"empty,omitempty"` // fail | skip | zero; what an answer without samples means, fail when empty
	// Ago moves the moment the query is evaluated at into the past. A fingerprint
	// asks at the same moment before and after.
	Ago Duration `yaml:"ago,omitempty" json:"ago,omitempty"`
}

// TCPTest opens a connection.
type TCPTest struct {
	Address string `yaml:"address" json:"address"` // host:port
}

// ExecTest runs a command: exit code 0 passes. The command is not run through a
// shell.
type ExecTest struct {
	Command []string `yaml:"command" json:"command"`
	Match   string   `yaml:"match,omitempty" json:"match,omitempty"` // regexp that its output must match; the first group, else all it matches, is the value
}

// Link is a test of the way from this component to another. It runs where both
// are installed. Besides the usual placeholders, {with_url} is the scheme, host
// and port at which the other one is probed, {with_port} its port and
// {with_name} its name.
type Link struct {
	With     string `yaml:"with,omitempty" json:"with,omitempty"`           // the other component
	WithRole Role   `yaml:"with_role,omitempty" json:"with_role,omitempty"` // or each installed component of a role
	Test     Test   `yaml:"test" json:"test"`                               // its name is SELF-OTHER where it gives none
}

// Client says how to talk to a component over HTTP. Texts may hold
// ${SECRET:NAME} and ${VARIABLE}, which are read when they are needed and kept
// nowhere.
type Client struct {
	CA         string `yaml:"ca,omitempty" json:"ca,omitempty"`                   // PEM file, or ${SECRET:NAME} with the text, of who may have signed its certificate
	Cert       string `yaml:"cert,omitempty" json:"cert,omitempty"`               // PEM file, or ${SECRET:NAME} with the text, of our certificate
	Key        string `yaml:"key,omitempty" json:"key,omitempty"`                 // PEM file, or ${SECRET:NAME} with the text, of its key
	ServerName string `yaml:"server_name,omitempty" json:"server_name,omitempty"` // name its certificate must have; the URL's host when empty
	Username   string `yaml:"username,omitempty" json:"username,omitempty"`
	Password   string `yaml:"password,omitempty" json:"password,omitempty"`
	Bearer     string `yaml:"bearer,omitempty" json:"bearer,omitempty"`
}

// HasCredentials reports whether requests carry a name or a token.
func (c Client) HasCredentials() bool { return c.Username != "" || c.Bearer != "" || c.Cert != "" }

// AtMoment replaces {at} and {from} in a test's text by the moment a fingerprint
// is of and by one hour before it, in seconds since 1970.
func AtMoment(text string, at time.Time) string {
	return strings.NewReplacer(
		"{at}", strconv.FormatInt(at.Unix(), 10), "{from}", strconv.FormatInt(at.Add(-time.Hour).Unix(), 10),
	).Replace(text)
}
