package discovery

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// entry is an instance as a test registers it; each store writes it its way.
type entry struct {
	name, unit, server string
	address            string // in 127.0.0.0/8 it is this host's
	port               int
	path               string // of the health address; the component's own when empty
}

// store is where a contract test registers instances. Functions that do not
// apply are nil.
type store struct {
	definition func() component.Instances // how a definition names it, with credentials that hold
	put        func(t *testing.T, e entry)
	remove     func(t *testing.T, name string)
	malformed  func(t *testing.T) (names string) // registers nonsense; names is what the error must hold
	wrong      component.Instances               // credentials that do not hold
	stop       func()                            // it goes away
}

const (
	secretText  = "c0ffee00-1111-2222-3333-444455556666"
	wrongSecret = "badbad00-1111-2222-3333-444455556666"
)

var remoteExec = []string{"ssh", "{address}", "sudo", "observability-upgrade", "--note={instance}"}

func prometheus(in component.Instances) *component.Component {
	return &component.Component{
		Name:      "prometheus",
		Service:   "prometheus",
		Health:    component.Health{URL: "http://localhost:9090/-/ready", MetricsURL: "http://localhost:9090/metrics", ExpectedMetric: "up"},
		Instances: in,
	}
}

// options makes 127.0.0.0/8 this host and everything else another.
func options() Options {
	return Options{
		Hostname: "this-host",
		Local:    func(addr string) bool { return strings.HasPrefix(addr, "127.") || addr == "this-host" },
		Expand: func(s string) (string, error) {
			switch s {
			case "${SECRET:right}":
				return secretText, nil
			case "${SECRET:wrong}":
				return wrongSecret, nil
			}
			return "", errors.New("secret does not exist")
		},
	}
}

// ask looks up and fails the test on an error.
func ask(t *testing.T, in component.Instances) []component.Instance {
	t.Helper()
	list, err := Instances(t.Context(), prometheus(in), options())
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// refused looks up and wants an error with all of the words, and no secret.
func refused(t *testing.T, in component.Instances, words ...string) {
	t.Helper()
	list, err := Instances(t.Context(), prometheus(in), options())
	if err == nil {
		t.Fatalf("got %+v, want an error", list)
	}
	t.Log(err)
	for _, w := range append(words, "instances of prometheus") {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error does not hold %q", w)
		}
	}
	if s := err.Error(); strings.Contains(s, secretText) || strings.Contains(s, wrongSecret) {
		t.Error("the error shows a secret")
	}
}

func names(list []component.Instance) []string {
	var out []string
	for _, i := range list {
		out = append(out, i.Name)
	}
	return out
}

func contract(t *testing.T, start func(t *testing.T) *store) {
	a := entry{name: "a", unit: "prometheus-a.service", server: "prom-a", address: "127.0.0.1", port: 9091}
	b := entry{name: "b", address: "192.0.2.7", port: 9092}
	with := func(t *testing.T, list ...entry) *store {
		s := start(t)
		for _, e := range list {
			s.put(t, e)
		}
		return s
	}
	t.Run("Empty", func(t *testing.T) {
		if list := ask(t, start(t).definition()); len(list) != 0 {
			t.Errorf("got %+v", list)
		}
	})
	t.Run("LocalAndRemote", func(t *testing.T) {
		list := ask(t, with(t, b, a).definition())
		if d := cmp.Diff([]string{"a", "b"}, names(list)); d != "" {
			t.Fatal(d)
		}
		if l := list[0]; l.Service != a.unit || l.Server != a.server || len(l.Exec) > 0 {
			t.Errorf("local: got %+v", l)
		}
		if d := cmp.Diff([]string{"ssh", "192.0.2.7", "sudo", "observability-upgrade", "--note=b"}, list[1].Exec); d != "" {
			t.Errorf("remote: %s", d)
		}
		for i, want := range []string{"http://127.0.0.1:9091/-/ready", "http://192.0.2.7:9092/-/ready"} {
			if h := list[i].Health; h == nil || h.URL != want {
				t.Errorf("%s: health %+v, want %s", list[i].Name, h, want)
			}
		}
	})
	t.Run("HealthURL", func(t *testing.T) {
		e := a
		e.path = "/prom/-/healthy"
		list := ask(t, with(t, e).definition())
		if want := "http://127.0.0.1:9091/prom/-/healthy"; list[0].Health.URL != want {
			t.Errorf("got %s, want %s", list[0].Health.URL, want)
		}
	})
	t.Run("RemoteWithoutExec", func(t *testing.T) {
		in := with(t, b).definition()
		if in.Type == "" {
			t.Skip("a static list says how to reach each")
		}
		in.Exec = nil
		refused(t, in, "b is on another host (192.0.2.7)", "exec: [ssh")
	})
	t.Run("Removed", func(t *testing.T) {
		s := with(t, a, b)
		s.remove(t, "a")
		if got := names(ask(t, s.definition())); !slices.Equal(got, []string{"b"}) {
			t.Errorf("got %q, want b", got)
		}
	})
	t.Run("Malformed", func(t *testing.T) {
		s := with(t, a)
		refused(t, func() component.Instances { t.Helper(); s.malformed(t); return s.definition() }(), s.malformed(t))
	})
	t.Run("WrongSecret", func(t *testing.T) {
		s := with(t, a)
		if s.wrong.Type == "" {
			t.Skip("a static list has no secret")
		}
		refused(t, s.wrong, "instances.", "127.0.0.1")
	})
	t.Run("MissingSecret", func(t *testing.T) {
		in := with(t, a).definition()
		if in.Type == "" {
			t.Skip("a static list has no secret")
		}
		in.Token, in.Password = "${SECRET:none}", "${SECRET:none}"
		refused(t, in, "secret does not exist")
	})
	t.Run("Away", func(t *testing.T) {
		s := with(t, a)
		if s.stop == nil {
			t.Skip("a static list is always there")
		}
		s.stop()
		begun := time.Now()
		refused(t, s.definition(), "127.0.0.1:", "refused", "type: ")
		if took := time.Since(begun); took > 20*time.Second {
			t.Errorf("took %s", took)
		}
	})
	t.Run("Cancelled", func(t *testing.T) {
		in := with(t, a).definition()
		if in.Type == "" {
			t.Skip("a static list asks nobody")
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		cause := errors.New("the test is over")
		cancel(cause)
		if _, err := Instances(ctx, prometheus(in), options()); !errors.Is(err, cause) {
			t.Errorf("got %v, want %v", err, cause)
		}
	})
}

func TestStaticContract(t *testing.T) {
	contract(t, func(*testing.T) *store {
		var list []component.Instance
		return &store{
			definition: func() component.Instances { return component.Instances{List: list} },
			put: func(_ *testing.T, e entry) {
				i := component.Instance{Name: e.name, Service: e.unit, Server: e.server, Health: &component.Health{URL: e.healthURL()}}
				if !strings.HasPrefix(e.address, "127.") {
					i.Exec = []string{"ssh", e.address, "sudo", "observability-upgrade", "--note=" + e.name}
				}
				list = append(list, i)
				slices.SortFunc(list, func(a, b component.Instance) int { return strings.Compare(a.Name, b.Name) })
			},
			remove: func(_ *testing.T, name string) {
				list = slices.DeleteFunc(list, func(i component.Instance) bool { return i.Name == name })
			},
			malformed: func(*testing.T) string {
				list = append(list, component.Instance{Name: "-o"})
				return `"-o" is not an instance's name`
			},
		}
	})
}

// The order of a static list is a person's choice and is kept; its copy is the
// caller's own.
func TestStaticOrder(t *testing.T) {
	in := component.Instances{List: []component.Instance{{Name: "canary"}, {Name: "a"}}}
	got := ask(t, in)
	if d := cmp.Diff([]string{"canary", "a"}, names(got)); d != "" {
		t.Error(d)
	}
	got[0].Name = "changed"
	if in.List[0].Name != "canary" {
		t.Error("the definition was changed")
	}
	refused(t, component.Instances{List: []component.Instance{{Name: "a"}, {Name: "a"}}}, `two instances have the name "a"`)
	refused(t, component.Instances{Type: "zookeeper"}, `unknown type "zookeeper"`)
}
