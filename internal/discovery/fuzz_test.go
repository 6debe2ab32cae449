package discovery

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// FuzzConsul: whatever Consul answers, an instance has a name, runs somewhere,
// and nothing of it can be taken for a command's option.
func FuzzConsul(f *testing.F) {
	for _, s := range []string{
		`[]`, `null`, `<html>`,
		`[{"Node": {"Node": "n", "Address": "192.0.2.1"}, "Service": {"ID": "a", "Address": "::1", "Port": 9090, "Meta": {"unit": "a.service", "server": "s", "health_url": "http://h/"}}}]`,
		`[{"Node": {"Node": "this-host"}, "Service": {"ID": "a", "Address": "-o"}}, {"Node": {}, "Service": {"ID": "b", "Port": -1}}]`,
	} {
		f.Add([]byte(s))
	}
	find := finder{c: prometheus(component.Instances{}), in: component.Instances{Exec: []string{"ssh", "{address}", "{instance}"}}, o: options()}
	var err error
	if find.here, err = find.o.whereabouts(f.Context()); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := decodeConsul(data)
		if err != nil {
			return
		}
		list, err := find.consulInstances(entries)
		if err != nil {
			return
		}
		if err := checkNames(list); err != nil || len(list) != len(entries) {
			t.Fatalf("%d of %d: %v", len(list), len(entries), err)
		}
		for _, i := range list {
			if i.Service == "" && len(i.Exec) == 0 {
				t.Errorf("%+v runs nowhere", i)
			}
			for _, arg := range append(i.Exec, i.Service) {
				if strings.HasPrefix(arg, "-") || strings.ContainsAny(arg, " ;$`\n") {
					t.Errorf("argument %q", arg)
				}
			}
			if i.Health == nil || checkURL(i.Health.URL) != nil {
				t.Errorf("health %+v", i.Health)
			}
		}
	})
}

// FuzzEtcdValue: what is accepted is an instance that can be written and read
// again.
func FuzzEtcdValue(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"name": "a", "service": "prometheus-a", "server": "s", "exec": ["ssh", "b"]}`, `{"health": {"url": "http://h/", "settle": "5s", "logs": {"warn_above": 1}}}`,
		`{"process": {"command": ["p", "--x"], "env": ["A=B"]}, "data": {"path": "/d"}}`, `{"name": null, "exec": [null]}`, "{\"name\":\t\"\\ud83d\"}", `{"health": null}`, `[`, `{"a": 1e999}`,
	} {
		f.Add("/x/a", []byte(s))
	}
	f.Add("/x/", []byte(`{}`))
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		i, err := decodeEtcd(key, value)
		if err != nil {
			if !strings.Contains(err.Error(), key) {
				t.Fatalf("%v does not name the key %q", err, key)
			}
			return
		}
		if !namePattern.MatchString(i.Name) {
			t.Fatalf("name %q", i.Name)
		}
		data, err := json.Marshal(i)
		if err != nil {
			t.Fatal(err)
		}
		again, err := decodeEtcd(key, data)
		if err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		first, second := string(data), ""
		if data, err = json.Marshal(again); err == nil {
			second = string(data)
		}
		if d := cmp.Diff(first, second); d != "" {
			t.Fatal(d)
		}
	})
}
