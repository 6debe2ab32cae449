package component

import "errors"

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
		var lookup struct {
			Type      string   `yaml:"type"`
			Address   string   `yaml:"address"`
			Service   string   `yaml:"service"`
			Endpoints []string `yaml:"endpoints"`
			Prefix    string   `yaml:"prefix"`
		}
		if err := decode(&lookup); err != nil {
			return err
		}
		*i = Instances{Type: lookup.Type, Address: lookup.Address, Service: lookup.Service, Endpoints: lookup.Endpoints, Prefix: lookup.Prefix}
		return nil
	}
	return errors.New("want a list of {name, service, process, health}, or a map {type: consul or etcd, …}")
}

// MarshalYAML writes what UnmarshalYAML reads.
func (i Instances) MarshalYAML() (any, error) {
	if i.Type == "" {
		return i.List, nil
	}
	return struct {
		Type      string   `yaml:"type"`
		Address   string   `yaml:"address,omitempty"`
		Service   string   `yaml:"service,omitempty"`
		Endpoints []string `yaml:"endpoints,omitempty"`
		Prefix    string   `yaml:"prefix,omitempty"`
	}{i.Type, i.Address, i.Service, i.Endpoints, i.Prefix}, nil
}
