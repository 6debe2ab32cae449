package component

import "fmt"

// UnmarshalYAML accepts a list of instances or the place to look them up.
func (i *Instances) UnmarshalYAML(decode func(any) error) error {
	if err := decode(&i.List); err == nil {
		return nil
	}
	var lookup struct {
		Type      string   `yaml:"type"`
		Address   string   `yaml:"address"`
		Service   string   `yaml:"service"`
		Endpoints []string `yaml:"endpoints"`
		Prefix    string   `yaml:"prefix"`
	}
	if err := decode(&lookup); err != nil {
		return fmt.Errorf("instances: want a list of {name, service, process, health} or {type: consul|etcd, …}: %w", err)
	}
	if lookup.Type != "consul" && lookup.Type != "etcd" {
		return fmt.Errorf("instances: type %q, want consul or etcd", lookup.Type)
	}
	i.Type, i.Address, i.Service, i.Endpoints, i.Prefix = lookup.Type, lookup.Address, lookup.Service, lookup.Endpoints, lookup.Prefix
	return nil
}
