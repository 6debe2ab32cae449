package discovery

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/yamlfile"
)

var block = regexp.MustCompile("(?s)```([a-z]+)\n(.*?)```")

// examples returns the blocks of docs/discovery.md in one language.
func examples(t *testing.T, language string) []string {
	t.Helper()
	data, err := os.ReadFile("../../docs/discovery.md")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range block.FindAllStringSubmatch(string(data), -1) {
		if m[1] == language {
			out = append(out, m[2])
		}
	}
	if len(out) == 0 {
		t.Fatalf("docs/discovery.md has no %s", language)
	}
	return out
}

// definitions are the examples of definitions: list, list, consul, etcd.
func definitions(t *testing.T) []component.Instances {
	t.Helper()
	var out []component.Instances
	for _, text := range examples(t, "yaml") {
		var c component.Component
		if err := yamlfile.Decode("docs/discovery.md", []byte(text), &c); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		out = append(out, c.Instances)
	}
	if len(out) != 4 {
		t.Fatalf("%d definitions, want 4", len(out))
	}
	return out
}

func TestDocumentedLists(t *testing.T) {
	for _, in := range definitions(t)[:2] {
		if got := names(ask(t, in)); !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("got %q", got)
		}
	}
}

// The registration is given to the real program as the page says.
func TestDocumentedConsul(t *testing.T) {
	c := startConsul(t)
	program, err := consulProgram()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "prometheus-a.json")
	if err := os.WriteFile(file, []byte(examples(t, "json")[0]), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, "services", "register", file)
	cmd.Env = append(os.Environ(), "CONSUL_HTTP_ADDR="+c.url, "CONSUL_HTTP_TOKEN="+secretText)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	c.listed(t, "prometheus-a", true)
	in := definitions(t)[2]
	in.Address, in.Token = c.url, "${SECRET:right}"
	list := ask(t, in)
	want := prometheus(in).Health
	if d := cmp.Diff([]component.Instance{{Name: "prometheus-a", Service: "prometheus.service", Server: "prom-a", Health: &component.Health{
		URL: "http://localhost:9090/-/ready", MetricsURL: "http://127.0.0.1:9090/metrics", ExpectedMetric: want.ExpectedMetric,
	}}}, list); d != "" {
		t.Error(d)
	}
}

// Before 1.11, Consul leaves out what a token may not see and does not say so:
// the trap that the page warns of.
func TestDocumentedConsulTrap(t *testing.T) {
	c := startConsul(t)
	c.put(t, entry{name: "a", address: "127.0.0.1", port: 9090})
	if list := ask(t, consulAt(c.url)); len(list) != 0 {
		t.Errorf("got %+v", list)
	}
}

func TestDocumentedEtcd(t *testing.T) {
	s := startEtcd(t)
	puts := regexp.MustCompile(`etcdctl put (\S+) '([^']*)'`).FindAllStringSubmatch(strings.Join(examples(t, "sh"), ""), -1)
	for _, m := range puts {
		s.set(t, m[1], m[2])
	}
	in := definitions(t)[3]
	in.Endpoints, in.CA, in.Username, in.Password = []string{s.url}, "", "reader", "${SECRET:right}"
	ssh := func(host string) []string {
		return []string{"ssh", "-oBatchMode=yes", host, "sudo", "observability-upgrade"}
	}
	if d := cmp.Diff([]component.Instance{
		{Name: "a", Service: "prometheus.service", Server: "prom-a"},
		{Name: "b", Health: &component.Health{URL: "http://prometheus-b:9090/-/ready"}, Exec: ssh("prometheus-b")},
		{Name: "c", Exec: ssh("prometheus-c")},
	}, ask(t, in)); d != "" {
		t.Error(d)
	}
}
