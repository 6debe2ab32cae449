package component

import (
	"cmp"
	"errors"
	"strconv"
)

// Instance is one of several copies of a component that are upgraded one at a
// time. Empty fields fall back to the component's own.
type Instance struct {
	Name    string   `yaml:"name" json:"name"`
	Service string   `yaml:"service,omitempty" json:"service,omitempty"`
	Process *Process `yaml:"process,omitempty" json:"process,omitempty"`
	Health  *Health  `yaml:"health,omitempty" json:"health,omitempty"`
	Data    *Data    `yaml:"data,omitempty" json:"data,omitempty"`
	// Exec makes it an instance on another host: the command before this program's
	// own arguments there, such as [ssh, prometheus-b, sudo, observability-upgrade].
	Exec []string `yaml:"exec,omitempty" json:"exec,omitempty"`
	// Server is its name at the balancer where that is not balancer.server.
	Server string `yaml:"server,omitempty" json:"server,omitempty"`
}

// Instances is either a static list or a place to look one up.
type Instances struct {
	List      []Instance `json:"list,omitempty"`
	Type      string     `json:"type,omitempty"`    // "" for a static list; consul | etcd
	Address   string     `json:"address,omitempty"` // consul: the agent's address
	Service   string     `json:"service,omitempty"` // consul: the service's name
	Token     string     `json:"token,omitempty"`   // consul: ACL token, ${SECRET:NAME}
	Endpoints []string   `json:"endpoints,omitempty"`
	Prefix    string     `json:"prefix,omitempty"`   // etcd: the keys' prefix
	Username  string     `json:"username,omitempty"` // etcd
	Password  string     `json:"password,omitempty"` // etcd
	CA        string     `json:"ca,omitempty"`       // PEM file of who may have signed the server's certificate
	Exec      []string   `json:"exec,omitempty"`     // of the instances that are not on this host; {instance} and {address} expand
}

// SetName names what is changed as people type it: a component, or one instance of
// it, component@instance.
func SetName(component, instance string) string {
	if instance == "" {
		return component
	}
	return component + "@" + instance
}

// IsZero reports whether no instances are declared.
func (i Instances) IsZero() bool { return len(i.List) == 0 && i.Type == "" }

// lookup is the YAML form of a place to look instances up.
type lookup struct {
	Type      string   `yaml:"type"`
	Address   string   `yaml:"address,omitempty"`
	Service   string   `yaml:"service,omitempty"`
	Token     string   `yaml:"token,omitempty"`
	Endpoints []string `yaml:"endpoints,omitempty"`
	Prefix    string   `yaml:"prefix,omitempty"`
	Username  string   `yaml:"username,omitempty"`
	Password  string   `yaml:"password,omitempty"`
	CA        string   `yaml:"ca,omitempty"`
	Exec      []string `yaml:"exec,omitempty"`
}

// UnmarshalYAML reads a list of instances, or a map that says where they are
// looked up (docs/reference.md). Its form is that of the YAML libraries:
// decode reads the same value into whatever it is given.
func (i *Instances) UnmarshalYAML(decode func(any) error) error {
	var probe any
	if err := decode(&probe); err != nil {
		return err
	}
	switch probe.(type) {
	case []any:
		var list []Instance
		if err := decode(&list); err != nil {
			return err
		}
		*i = Instances{List: list}
		return nil
	case map[string]any:
		var l lookup
		if err := decode(&l); err != nil {
			return err
		}
		*i = Instances{
			Type: l.Type, Address: l.Address, Service: l.Service, Token: l.Token, Endpoints: l.Endpoints, Prefix: l.Prefix,
			Username: l.Username, Password: l.Password, CA: l.CA, Exec: l.Exec,
		}
		return nil
	}
	return errors.New("want a list of {name, service, process, health}, or a map {type: consul or etcd, …}")
}

// MarshalYAML writes what UnmarshalYAML reads.
func (i Instances) MarshalYAML() (any, error) {
	if i.Type == "" {
		return i.List, nil
	}
	return lookup{i.Type, i.Address, i.Service, i.Token, i.Endpoints, i.Prefix, i.Username, i.Password, i.CA, i.Exec}, nil
}

// Of is the component as one of its instances: what the instance says of itself
// takes the place of the component's own. An instance that says only where its
// health is seen is found there with all its other addresses.
func (c *Component) Of(i Instance) *Component {
	own := *c
	own.Instances = Instances{}
	if i.Service != "" {
		own.Service = i.Service
	}
	vars := Vars{Name: c.Name, Instance: i.Name}
	own.Service = vars.Expand(own.Service)
	if i.Process != nil {
		own.Process = c.Process.over(*i.Process)
	}
	if i.Health != nil {
		own.Health = c.Health.over(*i.Health)
		_, host, port, _ := SplitAddress(cmp.Or(i.Health.URL, i.Health.MetricsURL))
		_, was, _, _ := SplitAddress(cmp.Or(c.Health.URL, c.Health.MetricsURL))
		if n, err := strconv.Atoi(port); err == nil && host != "" && was != "" {
			own.Reload.HTTP = moved(c.Reload.HTTP, cmp.Or(c.Health.URL, c.Health.MetricsURL), host, n)
		}
	}
	if i.Data != nil {
		own.Data = c.Data.over(*i.Data)
	}
	return &own
}

// over puts what o says in place of what p says, each list as a whole.
func (p Process) over(o Process) Process {
	if len(o.Command) > 0 {
		p.Command = o.Command
	}
	replace(&p.Dir, o.Dir)
	if len(o.Env) > 0 {
		p.Env = o.Env
	}
	return p
}

// over puts what o says in place of what h says.
func (h Health) over(o Health) Health {
	if at := cmp.Or(o.URL, o.MetricsURL); at != "" {
		_, host, port, _ := SplitAddress(at)
		n, _ := strconv.Atoi(port)
		if moved := h.At(host, n); moved != nil && host != "" {
			h = *moved
		}
	}
	replace(&h.URL, o.URL)
	replace(&h.Body, o.Body)
	replace(&h.MetricsURL, o.MetricsURL)
	replace(&h.ExpectedMetric, o.ExpectedMetric)
	replace(&h.Settle, o.Settle)
	replace(&h.Timeout, o.Timeout)
	replace(&h.Startup, o.Startup)
	replace(&h.Logs, o.Logs)
	replace(&h.Resources, o.Resources)
	return h
}

func (d Data) over(o Data) Data {
	replace(&d.Path, o.Path)
	replace(&d.Flag, o.Flag)
	replace(&d.Backup.Method, o.Backup.Method)
	replace(&d.Backup.URL, o.Backup.URL)
	replace(&d.Backup.File, o.Backup.File)
	if len(o.Backup.Exclude) > 0 {
		d.Backup.Exclude = o.Backup.Exclude
	}
	d.Backup.Always = d.Backup.Always || o.Backup.Always
	if len(o.Fingerprint) > 0 {
		d.Fingerprint = o.Fingerprint
	}
	return d
}

func replace[T comparable](place *T, with T) {
	var zero T
	if with != zero {
		*place = with
	}
}
