// Package discovery finds the instances of a component: those its definition
// lists, or those that Consul or etcd knows.
//
// What a store cannot say is an error, never a shorter list: an upgrade that
// does not know of an instance would leave it behind on the old version.
package discovery

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/certificate"
	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// deadline is how long one look-up may take in all.
const deadline = 10 * time.Second

// Options say how stores are asked and what counts as this host. The zero value
// is ready to use.
type Options struct {
	HTTP     *http.Client                 // consul; nil: a direct one (no proxy, no keep-alive)
	Expand   func(string) (string, error) // expands ${SECRET:NAME} in tokens and passwords; nil: none
	Root     string                       // the --root directory, below which instances.ca is; "" for none
	Hostname string                       // this host; empty: os.Hostname
	Local    func(addr string) bool       // whether an address (IP or host name, no port) is this host's; nil: by its interfaces
}

// Instances lists a component's instances: the list of its definition in the
// order written there, or what Consul or etcd says, sorted by name. A component
// without instances, and a store that has none, give an empty list.
//
// A store is asked once, for 10 s at most. Errors name the store's address, what
// was expected of it and what to type next; they never show a token or password.
// It may be called concurrently.
func Instances(ctx context.Context, c *component.Component, o Options) ([]component.Instance, error) {
	in := c.Instances
	var (
		list []component.Instance
		err  error
	)
	switch in.Type {
	case "":
		list = slices.Clone(in.List)
	case "consul", "etcd":
		ctx, cancel := context.WithTimeoutCause(ctx, deadline, fmt.Errorf("no answer within %s", deadline))
		defer cancel()
		f := finder{c: c, in: in, o: o}
		if f.here, err = o.whereabouts(ctx); err != nil {
			break
		}
		if in.Type == "consul" {
			list, err = f.consul(ctx)
		} else {
			list, err = f.etcd(ctx)
		}
		slices.SortFunc(list, func(a, b component.Instance) int { return cmp.Compare(a.Name, b.Name) })
	default:
		err = fmt.Errorf("unknown type %q; want consul or etcd, or a list of instances", in.Type)
	}
	if err == nil {
		err = checkNames(list)
	}
	if err != nil {
		return nil, fmt.Errorf("instances of %s: %w", c.Name, err)
	}
	return list, nil
}

// finder is one look-up.
type finder struct {
	c    *component.Component
	in   component.Instances
	o    Options
	here *here
}

// secret expands a token or password.
func (f *finder) secret(key, text string) (string, error) {
	if f.o.Expand == nil || text == "" {
		return text, nil
	}
	v, err := f.o.Expand(text)
	if err != nil {
		return "", fmt.Errorf("instances.%s: %w", key, err)
	}
	return v, nil
}

// authorities are those that instances.ca names.
func (f *finder) authorities() (*x509.CertPool, error) {
	return certificate.Authorities("instances.ca", component.Vars{Name: f.c.Name, Root: f.o.Root}.Path(f.in.CA))
}

// exec is the command that reaches an instance on another host.
func (f *finder) exec(name, address string) ([]string, error) {
	if len(f.in.Exec) == 0 {
		return nil, fmt.Errorf("%s is on another host (%s) and nothing says how to reach it; write into the definition of %s, below instances: "+
			"exec: [ssh, \"{address}\", sudo, observability-upgrade]", name, address, f.c.Name)
	}
	if !validHost(address) {
		return nil, fmt.Errorf("%s: its address %q is neither an IP address nor a host name, so it is not used in a command", name, address)
	}
	r := strings.NewReplacer("{instance}", name, "{address}", address)
	out := make([]string, len(f.in.Exec))
	for i, s := range f.in.Exec {
		out[i] = r.Replace(s)
	}
	return out, nil
}

var (
	namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)
	unitPattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.:@\\-]*$`)
	hostPattern = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9.])?$`)
)

// validHost reports whether s is an IP address or can be a host's name; neither
// begins with a dash, which a command would take for an option.
func validHost(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil && !strings.Contains(s, "%") || hostPattern.MatchString(s)
}

// checkNames refuses names that cannot be typed on the command line or become
// part of a file's name, and names given twice.
func checkNames(list []component.Instance) error {
	seen := map[string]bool{}
	for _, i := range list {
		if err := checkName(i.Name); err != nil {
			return err
		}
		if seen[i.Name] {
			return fmt.Errorf("two instances have the name %q; give each a name of its own", i.Name)
		}
		seen[i.Name] = true
	}
	return nil
}

func checkName(name string) error {
	if !namePattern.MatchString(name) {
		return fmt.Errorf("%q is not an instance's name; want letters, digits, \"_\", \".\" and \"-\", beginning with a letter or digit", name)
	}
	return nil
}

// checkUnit is for units that a store names: they become a command's argument.
func checkUnit(unit string) error {
	if unit != "" && !unitPattern.MatchString(unit) {
		return fmt.Errorf("%q is not the name of a systemd unit; want a form such as prometheus@a.service", unit)
	}
	return nil
}

// checkURL is for addresses that a store names.
func checkURL(text string) error {
	if text == "" {
		return nil
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("%q is not an http or https URL; want a form such as http://localhost:9090/-/ready", text)
	}
	return nil
}
