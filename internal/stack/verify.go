package stack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/health"
	"github.com/observability-upgrade/observability-upgrade/internal/inventory"
)

const (
	// measureFor is how long `verify` watches the use of processors.
	measureFor = time.Second
	// atOnce bounds how many components are probed side by side.
	atOnce = 8
)

// Verification is the document of `verify`.
type Verification struct {
	Components  []health.Report `json:"components"`
	Integration []health.Check  `json:"integration"`
}

// Unhealthy reports whether anything failed.
func (v *Verification) Unhealthy() bool {
	return slices.ContainsFunc(v.Components, func(r health.Report) bool { return !r.Healthy }) ||
		slices.ContainsFunc(v.Integration, func(c health.Check) bool { return c.Status == health.Fail })
}

// Verify makes specification section 4's tests on the named components, or all
// that are installed, and with integration those of the links between them.
func (s *Stack) Verify(ctx context.Context, names []string, integration bool) (*Verification, error) {
	comps, err := s.Components(names)
	if err != nil {
		return nil, err
	}
	all, err := s.Inventory(ctx, s.Catalogue.All())
	if err != nil {
		return nil, err
	}
	var found []*inventory.Installed
	for _, in := range all {
		if slices.ContainsFunc(comps, func(c *component.Component) bool { return c.Name == in.Component.Name }) {
			found = append(found, in)
		}
	}
	for _, c := range comps {
		if len(names) > 0 && !slices.ContainsFunc(found, func(in *inventory.Installed) bool { return in.Component.Name == c.Name }) {
			return nil, notInstalled(c.Name)
		}
	}
	v := &Verification{Components: []health.Report{}, Integration: []health.Check{}}
	var every []*inventory.Installed
	for _, in := range found {
		every = append(every, parts(in)...)
	}
	if v.Components, err = s.probeAll(ctx, every, measureFor); err != nil {
		return nil, err
	}
	if integration {
		v.Integration = s.testLinks(ctx, local(found), local(all))
	}
	return v, ctx.Err()
}

// probeAll takes one health report per component, or per instance of it, side by
// side. Of one on another host its own program is asked; what cannot be asked has a
// check that failed. measure is how long the use of processors is watched; 0 for
// not at all.
func (s *Stack) probeAll(ctx context.Context, found []*inventory.Installed, measure time.Duration) ([]health.Report, error) {
	reports := make([]health.Report, len(found))
	errs := make([]error, len(found))
	var g errgroup.Group
	g.SetLimit(atOnce)
	for i, in := range found {
		g.Go(func() error {
			switch {
			case in.Unlisted != "":
				reports[i] = unasked(in, "instances", in.Problem)
				return nil
			case in.Remote():
				var err error
				if reports[i], err = s.verifyAway(ctx, in); err != nil {
					reports[i] = unasked(in, "its host", err.Error())
				}
				return nil
			}
			t, err := s.target(in)
			if err != nil {
				errs[i] = err
				return nil
			}
			t.Measure = measure
			reports[i] = s.prober.Once(ctx, t)
			s.judgeBinary(in, &reports[i])
			return nil
		})
	}
	_ = g.Wait() // errors are kept by component
	return reports, errors.Join(errs...)
}

// link is one test of the way from a component to another that is here too.
type link struct {
	name    string
	test    component.Test
	clients health.Clients
	absent  string // why it cannot be tested; "" when it can
}

// testLinks makes the integration tests of the given components and says which
// it could not make.
func (s *Stack) testLinks(ctx context.Context, from, all []*inventory.Installed) []health.Check {
	var links []link
	for _, in := range from {
		for _, l := range in.Component.Integration {
			links = append(links, s.links(in, l, all)...)
		}
	}
	checks := make([]health.Check, len(links))
	var g errgroup.Group
	g.SetLimit(atOnce)
	for i, l := range links {
		checks[i] = health.Check{Name: l.name, Status: health.Skipped, Detail: "not tested: " + l.absent}
		if l.absent != "" {
			continue
		}
		g.Go(func() error {
			o := s.prober.TestAs(ctx, l.clients, l.test, time.Time{})
			checks[i].Status, checks[i].Detail = o.Status, o.Detail
			if o.Status == health.Skipped {
				checks[i].Detail = "not tested: " + o.Detail
			}
			return nil
		})
	}
	_ = g.Wait() // it never fails
	slices.SortStableFunc(checks, func(a, b health.Check) int { return cmp.Compare(a.Name, b.Name) })
	return checks
}

// links makes of a declared link the tests of the pairs that are here.
func (s *Stack) links(in *inventory.Installed, l component.Link, all []*inventory.Installed) []link {
	var out []link
	for _, other := range all {
		c := other.Component
		if c.Name == in.Component.Name || c.Name != l.With && (l.WithRole == "" || c.Role != l.WithRole) {
			continue
		}
		vars, its := s.vars(in).WithURL(in.Component.Health), s.vars(other).WithURL(c.Health)
		one := link{
			name:    linkName(l, in, other.Set()),
			clients: health.Clients{Own: s.client(in), Of: s.clientsOf(all)},
			test:    withOther(health.ExpandTests([]component.Test{l.Test}, vars)[0], c.Name, its.URL),
		}
		if asksOther(l.Test) {
			one.clients.Own = s.client(other)
		}
		if its.URL == "" {
			one.absent = fmt.Sprintf("the definition of %s names no address (health.url or health.metrics_url)", c.Name)
		}
		out = append(out, one)
	}
	if len(out) > 0 {
		return out
	}
	other, what := l.With, l.With+" is"
	if l.WithRole != "" {
		other, what = string(l.WithRole), fmt.Sprintf("no %s is", l.WithRole)
	}
	if l.With != "" {
		what += " not"
	}
	return []link{{name: linkName(l, in, other), absent: what + " installed here"}}
}

// asksOther reports whether a link's test asks the other component first, and not
// the one it belongs to.
func asksOther(t component.Test) bool {
	switch {
	case t.PromQL != nil:
		return strings.HasPrefix(t.PromQL.URL, "{with_url}")
	case t.HTTP != nil && t.HTTP.ForEach != nil:
		return strings.HasPrefix(t.HTTP.ForEach.URL, "{with_url}")
	}
	return t.HTTP != nil && strings.HasPrefix(t.HTTP.URL, "{with_url}")
}

// clientsOf tells who lives at an address: one component's credentials are never
// shown to another, nor to a stranger.
func (s *Stack) clientsOf(all []*inventory.Installed) func(origin string) component.Client {
	return func(origin string) component.Client {
		for _, in := range all {
			if own := s.vars(in).WithURL(in.Component.Health).URL; own != "" && samePlace(own, origin) {
				return s.client(in)
			}
		}
		return component.Client{}
	}
}

// samePlace reports whether two addresses are one: this host has several names.
func samePlace(a, b string) bool {
	schemeA, hostA, _, _ := component.SplitAddress(a)
	schemeB, hostB, _, _ := component.SplitAddress(b)
	return schemeA == schemeB && component.PortOf(a) == component.PortOf(b) && (strings.EqualFold(hostA, hostB) || isHere(hostA) && isHere(hostB))
}

// isHere reports whether a host is this one by its loopback names, its name or an
// address of its interfaces. Names are not looked up: who answers could lie.
func isHere(host string) bool {
	if name, err := os.Hostname(); strings.EqualFold(host, "localhost") || err == nil && strings.EqualFold(host, name) {
		return true
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	addrs, err := net.InterfaceAddrs()
	return ip.IsLoopback() || err == nil && slices.ContainsFunc(addrs, func(a net.Addr) bool {
		p, err := netip.ParsePrefix(a.String())
		return err == nil && p.Addr().Unmap() == ip.Unmap()
	})
}

// linkName is what the test of a link is called: by its definition, else by both
// its ends.
func linkName(l component.Link, in *inventory.Installed, other string) string {
	if l.Test.Name == "" {
		return in.Set() + "-" + other
	}
	_, instance, several := strings.Cut(other, "@")
	name := l.Test.Name
	if in.Instance != "" {
		name += "@" + in.Instance
	}
	if several {
		name += "@" + instance
	}
	return name
}

// withOther fills in what a link's test says of the other component.
func withOther(t component.Test, name, address string) component.Test {
	port := ""
	if u, err := url.Parse(address); err == nil {
		port = u.Port()
	}
	put := strings.NewReplacer("{with_url}", address, "{with_port}", port, "{with_name}", name).Replace
	switch {
	case t.HTTP != nil:
		t.HTTP.URL, t.HTTP.Body = put(t.HTTP.URL), put(t.HTTP.Body)
		if t.HTTP.ForEach != nil {
			t.HTTP.ForEach.URL = put(t.HTTP.ForEach.URL)
		}
	case t.PromQL != nil:
		t.PromQL.URL, t.PromQL.Query = put(t.PromQL.URL), put(t.PromQL.Query)
	case t.TCP != nil:
		t.TCP.Address = put(t.TCP.Address)
	case t.Exec != nil:
		for i, w := range t.Exec.Command {
			t.Exec.Command[i] = put(w)
		}
	}
	return t
}
