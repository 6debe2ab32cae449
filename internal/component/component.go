package component

import (
	"fmt"
	"slices"
	"time"
)

// Role groups components into the phases of an upgrade.
type Role string

// The roles, in the order their phases run.
const (
	RoleExporter  Role = "exporter"
	RoleDatastore Role = "datastore"
	RoleShipper   Role = "shipper"
	RoleAlerting  Role = "alerting"
	RoleUI        Role = "ui"
	RoleProxy     Role = "proxy"
)

// Roles lists all roles in phase order.
func Roles() []Role {
	return []Role{RoleExporter, RoleDatastore, RoleShipper, RoleAlerting, RoleUI, RoleProxy}
}

// Phase is the human name of the role's phase, as `plan` prints it.
func (r Role) Phase() string {
	switch r {
	case RoleExporter:
		return "Exporters"
	case RoleDatastore:
		return "Data Stores"
	case RoleShipper:
		return "Shippers"
	case RoleAlerting:
		return "Alerting"
	case RoleUI:
		return "UI"
	case RoleProxy:
		return "Proxy"
	}
	return string(r)
}

// Order is the role's place among the phases, from 0; unknown roles come last.
func (r Role) Order() int {
	if i := slices.Index(Roles(), r); i >= 0 {
		return i
	}
	return len(Roles())
}

// Component is the definition of one thing that can be upgraded: where its
// releases are, what they contain, and how it runs on a host. The YAML form is
// that of etc/observability/components.d/NAME.yaml.
//
// Strings may hold the placeholders {version} {os} {arch} {tag} {root} {name}
// {asset} {instance}; see Vars.
type Component struct {
	Name        string            `yaml:"name" json:"name"`
	Family      string            `yaml:"family,omitempty" json:"family,omitempty"` // embedded definition whose fields this one starts from
	Description string            `yaml:"description,omitempty" json:"description,omitempty"`
	Homepage    string            `yaml:"homepage,omitempty" json:"homepage,omitempty"`
	Role        Role              `yaml:"role" json:"role"`
	Source      Source            `yaml:"source" json:"source"`
	Asset       string            `yaml:"asset,omitempty" json:"asset,omitempty"`
	Arches      map[string]string `yaml:"arches,omitempty" json:"arches,omitempty"` // Go architecture -> the name assets use; an architecture not listed is not published
	Checksums   string            `yaml:"checksums,omitempty" json:"checksums,omitempty"`
	Signature   *Signature        `yaml:"signature,omitempty" json:"signature,omitempty"`
	Binaries    []Binary          `yaml:"binaries,omitempty" json:"binaries,omitempty"`
	Variants    []Variant         `yaml:"variants,omitempty" json:"variants,omitempty"` // the first that holds for a version applies; see For
	Version     VersionProbe      `yaml:"version,omitempty" json:"version"`
	Service     string            `yaml:"service,omitempty" json:"service,omitempty"`
	Process     Process           `yaml:"process,omitempty" json:"process"`
	Config      Config            `yaml:"config,omitempty" json:"config"`
	Health      Health            `yaml:"health,omitempty" json:"health"`
	Reload      Reload            `yaml:"reload,omitempty" json:"reload"`
	Client      Client            `yaml:"client,omitempty" json:"client"`                   // how this program talks to it over HTTP
	Functional  []Test            `yaml:"functional,omitempty" json:"functional,omitempty"` // what it must do besides being ready
	Integration []Link            `yaml:"integration,omitempty" json:"integration,omitempty"`
	Data        Data              `yaml:"data,omitempty" json:"data"`
	DependsOn   []string          `yaml:"depends_on,omitempty" json:"depends_on,omitempty"`
	// Vulnerabilities says by which names databases of known vulnerabilities have it.
	Vulnerabilities []Package `yaml:"vulnerabilities,omitempty" json:"vulnerabilities,omitempty"`
	Instances       Instances `yaml:"instances,omitempty" json:"instances"`
	Balancer        *Balancer `yaml:"balancer,omitempty" json:"balancer,omitempty"`
	Recalled        []string  `yaml:"recalled,omitempty" json:"recalled,omitempty"` // fields nobody has yet checked against a real release
}

// SourceType names the kind of place releases are listed at.
type SourceType string

// The source types. SourcePackage marks a component that the distribution's
// package manager owns: it can be restarted, reloaded and probed, never swapped.
const (
	SourceGitHub    SourceType = "github"
	SourceGitLab    SourceType = "gitlab"
	SourceGrafana   SourceType = "grafana"
	SourceDirectory SourceType = "directory"
	SourceHTTP      SourceType = "http"
	SourcePackage   SourceType = "package"
)

// Source says where a component's releases are listed.
type Source struct {
	Type SourceType `yaml:"type" json:"type"`
	Repo string     `yaml:"repo,omitempty" json:"repo,omitempty"` // OWNER/NAME on GitHub; path or numeric id on GitLab; product on grafana; package on package
	Path string     `yaml:"path,omitempty" json:"path,omitempty"` // directory source: PATH/VERSION/ASSET
	URL  string     `yaml:"url,omitempty" json:"url,omitempty"`   // http source: index below which VERSION/ASSET lie
	Tag  string     `yaml:"tag,omitempty" json:"tag,omitempty"`   // template with {version}; tags of another form are not this component's
	// AcceptPrereleaseFlag keeps releases that upstream flags as pre-release
	// (process-exporter flags all of its releases). Versions with a pre-release
	// part ("-rc.1") are dropped all the same.
	AcceptPrereleaseFlag bool `yaml:"accept_prerelease_flag,omitempty" json:"accept_prerelease_flag,omitempty"`
}

// Signature says how a release is signed and by whom. Keys and identities are
// pinned on the host: nothing that comes with a release says whom to trust.
type Signature struct {
	Type    string `yaml:"type" json:"type"` // gpg | cosign | minisign
	Asset   string `yaml:"asset" json:"asset"`
	Of      string `yaml:"of,omitempty" json:"of,omitempty"`           // asset the signature covers; the checksum file when empty
	Keyring string `yaml:"keyring,omitempty" json:"keyring,omitempty"` // gpg: keyring; minisign: public key

	// Of a cosign signature, either a public key or a certificate's identity.
	Key            string `yaml:"key,omitempty" json:"key,omitempty"`                         // PEM file
	Identity       string `yaml:"identity,omitempty" json:"identity,omitempty"`               // subject alternative name, exactly
	IdentityRegexp string `yaml:"identity_regexp,omitempty" json:"identity_regexp,omitempty"` // must match the whole name
	Issuer         string `yaml:"issuer,omitempty" json:"issuer,omitempty"`                   // who vouched for the identity, exactly
	TrustedRoot    string `yaml:"trusted_root,omitempty" json:"trusted_root,omitempty"`       // Sigstore's certificates and log keys, a file
}

// Binary is one executable of a component.
type Binary struct {
	Name    string `yaml:"name" json:"name"`
	Path    string `yaml:"path,omitempty" json:"path,omitempty"` // inside the archive; ignored for a bare binary
	Install string `yaml:"install" json:"install"`
	// Tree marks a whole directory (Path inside the archive, "*" allowed as the
	// top directory) that is installed as one, e.g. Grafana's share directory.
	Tree bool `yaml:"tree,omitempty" json:"tree,omitempty"`
}

// VersionProbe says how an executable tells its version. Standard output and
// standard error are both searched.
type VersionProbe struct {
	Binary string   `yaml:"binary,omitempty" json:"binary,omitempty"` // name of the binary to ask; the first when empty
	Path   string   `yaml:"path,omitempty" json:"path,omitempty"`     // of the executable inside a tree, e.g. bin/grafana
	Args   []string `yaml:"args,omitempty" json:"args,omitempty"`
	Regexp string   `yaml:"regexp,omitempty" json:"regexp,omitempty"` // first group is the version
}

// Process is the command line for hosts without systemd.
type Process struct {
	Command []string `yaml:"command,omitempty" json:"command,omitempty"`
	Dir     string   `yaml:"dir,omitempty" json:"dir,omitempty"`
	Env     []string `yaml:"env,omitempty" json:"env,omitempty"` // KEY=VALUE
}

// Config names the configuration that belongs to a component and how the new
// release's tools check it.
type Config struct {
	Paths []string   `yaml:"paths,omitempty" json:"paths,omitempty"`
	Check [][]string `yaml:"check,omitempty" json:"check,omitempty"`
	// The new tools need what the sandbox denies, as a name server or a file to write:
	// they run as the caller.
	Unconfined bool `yaml:"unconfined,omitempty" json:"unconfined,omitempty"`
}

// Health says what a healthy component answers.
type Health struct {
	URL        string `yaml:"url,omitempty" json:"url,omitempty"`
	Body       string `yaml:"body,omitempty" json:"body,omitempty"` // regexp the answer's body must match
	MetricsURL string `yaml:"metrics_url,omitempty" json:"metrics_url,omitempty"`
	// ExpectedMetric must be there; of several names, parted by "|", one: projects
	// rename them.
	ExpectedMetric string    `yaml:"expected_metric,omitempty" json:"expected_metric,omitempty"`
	Settle         Duration  `yaml:"settle,omitempty" json:"settle,omitempty"`   // how long it must stay healthy with the same process; DefaultSettle when not given
	Timeout        Duration  `yaml:"timeout,omitempty" json:"timeout,omitempty"` // overrides timeouts.health
	Startup        Startup   `yaml:"startup,omitempty" json:"startup,omitzero"`
	Logs           Logs      `yaml:"logs,omitempty" json:"logs,omitzero"`
	Resources      Resources `yaml:"resources,omitempty" json:"resources,omitzero"`
}

// DefaultSettle is how long a component is watched whose definition says nothing:
// what dies just after it was ready must not count as a success. Specification
// section 3 waits as long before it validates. "settle: 0s" turns it off.
const DefaultSettle = Duration(3 * time.Second)

// Startup says how to see that a component that is not ready yet is at work, as
// while it replays a write-ahead log. While it is, the time to become ready is
// extended.
type Startup struct {
	URL     string   `yaml:"url,omitempty" json:"url,omitempty"`           // answers 2xx while it is alive
	Current string   `yaml:"current,omitempty" json:"current,omitempty"`   // jq expression on the answer: how far it is
	Total   string   `yaml:"total,omitempty" json:"total,omitempty"`       // jq expression on the answer: how far there is to go
	What    string   `yaml:"what,omitempty" json:"what,omitempty"`         // for people: "segments of the write-ahead log replayed"
	MaxWait Duration `yaml:"max_wait,omitempty" json:"max_wait,omitempty"` // never longer than this in all; 1h when empty
}

// Logs says what the log of a start may hold. A limit that is not given is
// DefaultLogErrors for warn_above and none for fail_above.
type Logs struct {
	Pattern   string `yaml:"pattern,omitempty" json:"pattern,omitempty"`       // regexp of an error line; the common forms when empty
	Ignore    string `yaml:"ignore,omitempty" json:"ignore,omitempty"`         // regexp of lines that do not count
	WarnAbove *int   `yaml:"warn_above,omitempty" json:"warn_above,omitempty"` // error lines
	FailAbove *int   `yaml:"fail_above,omitempty" json:"fail_above,omitempty"` // error lines
}

// Resources are the limits above which use is worth a warning, in percent of the
// processors and of the memory that the component may use: those of its control
// group, else all of the host. Not given:
// specification section 4's 90 and 80.
type Resources struct {
	CPUPercent    float64 `yaml:"cpu_percent,omitempty" json:"cpu_percent,omitempty"`
	MemoryPercent float64 `yaml:"memory_percent,omitempty" json:"memory_percent,omitempty"`
}

// Reload says how a component re-reads its configuration without a restart. Where
// HTTP is refused, Signal is sent.
type Reload struct {
	HTTP    string `yaml:"http,omitempty" json:"http,omitempty"`
	Signal  string `yaml:"signal,omitempty" json:"signal,omitempty"`   // HUP, USR1 …
	Service bool   `yaml:"service,omitempty" json:"service,omitempty"` // the service manager's own reload
	Confirm *Test  `yaml:"confirm,omitempty" json:"confirm,omitempty"` // its value changes when the configuration was read again
}

// Data is where a component keeps what it has collected, how that is backed up,
// and what must be the same after an upgrade as before.
type Data struct {
	Path        string `yaml:"path,omitempty" json:"path,omitempty"`
	Flag        string `yaml:"flag,omitempty" json:"flag,omitempty"` // command-line flag that says where it is; wins over path where the service has it
	Backup      Backup `yaml:"backup,omitempty" json:"backup,omitzero"`
	Fingerprint []Test `yaml:"fingerprint,omitempty" json:"fingerprint,omitempty"`
}

// Backup says how data is copied.
type Backup struct {
	Method  string   `yaml:"method,omitempty" json:"method,omitempty"`   // copy | prometheus | sqlite; copy (of the stopped service's directory) when empty, its snapshot API, an online backup
	URL     string   `yaml:"url,omitempty" json:"url,omitempty"`         // prometheus: the snapshot address
	File    string   `yaml:"file,omitempty" json:"file,omitempty"`       // sqlite: the database, relative to data.path
	Exclude []string `yaml:"exclude,omitempty" json:"exclude,omitempty"` // names directly below data.path that are not data
	Always  bool     `yaml:"always,omitempty" json:"always,omitempty"`   // small and precious: kept by every run, not only with --backup-data
}

// Duration is a time.Duration written as "5s", "2m".
type Duration time.Duration

// UnmarshalText reads Go's duration form.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("duration %q: want a form such as 30s, 5m or 1h30m", b)
	}
	if v < 0 {
		return fmt.Errorf("duration %q is negative", b)
	}
	*d = Duration(v)
	return nil
}

// MarshalText writes Go's duration form.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// Std is the standard library's form.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// Swappable reports whether this program replaces the component's binaries.
func (c *Component) Swappable() bool {
	return c.Source.Type != SourcePackage && len(c.Binaries) > 0
}

// Unit is the systemd unit, with ".service" added where the definition leaves
// it out; "" when the component has none.
func (c *Component) Unit() string {
	if c.Service == "" {
		return ""
	}
	for _, suffix := range []string{".service", ".socket", ".target"} {
		if len(c.Service) > len(suffix) && c.Service[len(c.Service)-len(suffix):] == suffix {
			return c.Service
		}
	}
	return c.Service + ".service"
}

// MainBinary is the executable that tells the component's version.
func (c *Component) MainBinary() (Binary, bool) {
	for _, b := range c.Binaries {
		if c.Version.Binary == "" && !b.Tree || c.Version.Binary != "" && b.Name == c.Version.Binary {
			return b, true
		}
	}
	return Binary{}, false
}

// ArchName is the name the component's assets use for a Go architecture
// ("arm" -> "armv7"), and whether upstream publishes it at all.
func (c *Component) ArchName(goarch string) (string, bool) {
	if len(c.Arches) == 0 {
		def := map[string]string{"arm": "armv7"}
		if n, ok := def[goarch]; ok {
			return n, true
		}
		return goarch, true
	}
	n, ok := c.Arches[goarch]
	return n, ok
}
