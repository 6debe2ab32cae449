package catalogue

import (
	"fmt"
	"maps"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/yamlfile"
)

func (v *validator) service(at []any, unit string) {
	if unit != "" && !unitPattern.MatchString(unit) {
		v.fail(at, "%q cannot be the name of a unit", unit)
	}
}

func (v *validator) process(at []any, p *component.Process) {
	if len(p.Command) > 0 {
		program, before := p.Command[0], len(v.errs)
		if v.command(below(at, "command"), p.Command); len(v.errs) == before && strings.Contains(program, "/") && !path.IsAbs(strings.TrimPrefix(program, "{root}")) {
			v.fail(below(at, "command", 0), "%q: want the program's whole path, such as {root}/usr/local/bin/%s, or its name alone", program, v.c.Name)
		}
	}
	if p.Dir != "" {
		v.absolute(below(at, "dir"), strings.TrimPrefix(p.Dir, "{root}"))
	}
	for i, e := range p.Env {
		if key, _, ok := strings.Cut(e, "="); !ok || key == "" {
			v.fail(below(at, "env", i), "%q: want KEY=VALUE", e)
		}
	}
}

func (v *validator) health(at []any, h *component.Health) {
	v.url(below(at, "url"), h.URL)
	v.url(below(at, "metrics_url"), h.MetricsURL)
	for key, s := range map[string]string{"url": h.URL, "metrics_url": h.MetricsURL} {
		if strings.Contains(s, "{url}") {
			v.fail(below(at, key), "%q: {url} is what this address says", s)
		}
	}
	if _, err := regexp.Compile(h.Body); err != nil {
		v.fail(below(at, "body"), "%v", err)
	}
	if h.Body != "" && h.URL == "" {
		v.fail(below(at, "body"), "there is no url whose answer it could match")
	}
	if h.ExpectedMetric != "" && !metricPattern.MatchString(h.ExpectedMetric) {
		v.fail(below(at, "expected_metric"), "%q cannot be the name of a metric", h.ExpectedMetric)
	}
	if h.ExpectedMetric != "" && h.MetricsURL == "" {
		v.fail(below(at, "expected_metric"), "there is no metrics_url at which it could be found")
	}
	if h.Settle.Std() > maxSettle {
		v.fail(below(at, "settle"), "%s is longer than %s", h.Settle.Std(), maxSettle)
	}
	if h.Timeout.Std() > maxTimeout {
		v.fail(below(at, "timeout"), "%s is longer than %s", h.Timeout.Std(), maxTimeout)
	}
	v.startup(at, h)
	if h.Timeout > 0 && h.Timeout <= h.Settle {
		v.fail(below(at, "timeout"), "%s leaves no time beside settle, %s", h.Timeout.Std(), h.Settle.Std())
	}
}

func (v *validator) instances() {
	in := v.c.Instances
	switch in.Type {
	case "":
	case "consul":
		v.url(at("instances", "address"), in.Address)
		if in.Address == "" || in.Service == "" {
			v.fail(at("instances"), "a look-up in Consul needs address and service")
		}
	case "etcd":
		for i, e := range in.Endpoints {
			v.url(at("instances", "endpoints", i), e)
		}
		if len(in.Endpoints) == 0 || in.Prefix == "" {
			v.fail(at("instances"), "a look-up in etcd needs endpoints and prefix")
		}
	default:
		v.fail(at("instances", "type"), "unknown type %q; want consul or etcd, or a list of instances", in.Type)
	}
	if in.Type == "" && (in.Address != "" || in.Service != "" || len(in.Endpoints) > 0 || in.Prefix != "") {
		v.fail(at("instances"), "type is not given; want consul or etcd")
	}
	if in.Exec != nil {
		v.command(at("instances", "exec"), in.Exec, "address")
	}
	names := map[string]bool{}
	for i, one := range in.List {
		p := at("instances", i)
		switch {
		case !namePattern.MatchString(one.Name):
			v.fail(below(p, "name"), "%s; want a name that matches %s", given(one.Name), namePattern)
		case names[one.Name]:
			v.fail(below(p, "name"), "%q is the name of another instance too", one.Name)
		}
		names[one.Name] = true
		v.service(below(p, "service"), one.Service)
		if one.Process != nil {
			v.process(below(p, "process"), one.Process)
		}
		if one.Health != nil {
			v.health(below(p, "health"), one.Health)
		}
		if one.Data != nil {
			v.data(below(p, "data"), *one.Data)
		}
		if one.Exec != nil {
			v.command(below(p, "exec"), one.Exec)
		}
	}
}

func (v *validator) balancer() {
	b := v.c.Balancer
	if b == nil {
		return
	}
	if types := []string{"haproxy", "nginx", "consul", "exec"}; !slices.Contains(types, b.Type) {
		v.fail(at("balancer", "type"), "%s; want one of %s", given(b.Type), strings.Join(types, ", "))
	}
	if b.Socket != "" {
		v.absolute(at("balancer", "socket"), b.Socket)
	}
	v.placeholders(at("balancer", "server"), b.Server)
	need := func(key, value, why string) {
		if value == "" {
			v.fail(at("balancer"), "%s needs %s: %s", b.Type, key, why)
		}
	}
	switch b.Type {
	case "haproxy":
		need("backend", b.Backend, "the backend the servers are in")
		need("socket", b.Socket+b.Address, "its runtime API (or address: host:port)")
	case "nginx":
		need("file", b.File, "the file that holds the upstream")
		need("backend", b.Backend, "the name of the upstream")
	case "consul":
		need("address", b.Address, "the agent's, such as http://127.0.0.1:8500")
		v.url(at("balancer", "address"), b.Address)
		if b.CA != "" && !strings.HasPrefix(b.Address, "https:") {
			v.fail(at("balancer", "ca"), "the address %q is not https, so it proves nothing", b.Address)
		}
	case "exec":
		for key, words := range map[string][]string{"status": b.Status, "drain": b.Drain, "admit": b.Admit} {
			v.command(at("balancer", key), words, "server")
		}
	}
	if b.CA != "" && b.Type != "consul" {
		v.fail(at("balancer", "ca"), "belongs to consul")
	}
	if b.File != "" {
		v.absolute(at("balancer", "file"), b.File)
	}
}

func (v *validator) placeholders(at []any, s string) {
	if err := component.CheckPlaceholders(s); err != nil {
		v.fail(at, "%v", err)
	}
}

func (v *validator) absolute(at []any, p string) {
	if !path.IsAbs(p) || path.Clean(p) != p || p == "/" {
		v.fail(at, "%q: want an absolute path without \"..\", \"//\" or a slash at its end", p)
	}
}

func (v *validator) url(at []any, s string) {
	if s == "" {
		return
	}
	v.placeholders(at, s)
	if rest, own := strings.CutPrefix(s, "{url}"); own {
		s = "http://localhost" + rest
	}
	// {root} and {instance} are not known here; any word stands for them.
	u, err := url.Parse(strings.NewReplacer("{", "", "}", "").Replace(s))
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		v.fail(at, "%q: want an address such as http://localhost:9090/-/ready", s)
	}
}

// cycles names every circle of depends_on once, at the definition that comes
// first by name.
func cycles(all map[string]*component.Component, nodes map[string]*yamlfile.Node) yamlfile.Errors {
	var errs yamlfile.Errors
	done := map[string]bool{}
	var visit func(name string, trail []string)
	visit = func(name string, trail []string) {
		if i := slices.Index(trail, name); i >= 0 {
			circle := append(slices.Clone(trail[i:]), name)
			errs = append(errs, nodes[name].Errorf(at("depends_on"), "goes in a circle: %s", strings.Join(circle, " -> ")))
			return
		}
		if done[name] || all[name] == nil {
			return
		}
		for _, d := range all[name].DependsOn {
			visit(d, append(trail, name))
		}
		done[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		visit(name, nil)
	}
	return errs
}

// given begins a message about a value that is missing or unknown.
func given(value string) string {
	if value == "" {
		return "not given"
	}
	return fmt.Sprintf("unknown %q", value)
}

func words[T ~string](list []T) string {
	out := make([]string, len(list))
	for i, w := range list {
		out[i] = string(w)
	}
	return strings.Join(out, ", ")
}
