package discovery

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/test/e2e/rig"
)

// consulProgram is the real Consul, from the last Debian release that has it;
// fetched once for all tests and kept in the rig's cache.
var consulProgram = sync.OnceValues(func() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	dir, err := rig.DebianPackage(ctx, "bullseye", "consul", nil)
	return filepath.Join(dir, "usr/bin/consul"), err
})

// realConsul is an agent in development mode on loopback, with access control.
type realConsul struct {
	url  string
	stop func()
}

func startConsul(t *testing.T) *realConsul {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: the real Consul is not started")
	}
	if reason := rig.PackageAvailable(); reason != "" {
		t.Skip(reason)
	}
	program, err := consulProgram()
	if err != nil {
		t.Skipf("the real Consul cannot be fetched: %v", err)
	}
	// The ports are free a moment before only, so another process may take one.
	for try := 1; ; try++ {
		c, err := tryConsul(t, program)
		if err == nil {
			return c
		}
		if try == 3 {
			t.Fatal(err)
		}
		t.Log(err)
	}
}

func tryConsul(t *testing.T, program string) (*realConsul, error) {
	ports := freePorts(t, 3)
	config := map[string]any{
		"node_name": "consul-node", "bind_addr": "127.0.0.1", "client_addr": "127.0.0.1", "log_level": "err",
		"disable_update_check": true, "disable_host_node_id": true,
		"ports": map[string]int{"http": ports[0], "server": ports[1], "serf_lan": ports[2], "serf_wan": -1, "dns": -1, "grpc": -1},
		"acl": map[string]any{
			"enabled": true, "default_policy": "deny",
			"tokens": map[string]string{"master": secretText, "agent": secretText},
		},
	}
	data, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(t.TempDir(), "consul.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		return nil, err
	}
	var log bytes.Buffer
	cmd := exec.Command(program, "agent", "-dev", "-config-file="+file)
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.Dir = t.TempDir()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stop := sync.OnceFunc(func() {
		_ = cmd.Process.Kill() // it keeps nothing on disk
		<-ended
	})
	t.Cleanup(stop)
	c := &realConsul{url: fmt.Sprintf("http://127.0.0.1:%d", ports[0]), stop: stop}
	err = until(t.Context(), 20*time.Second, func() error {
		select {
		case err := <-ended:
			ended <- err
			return fatal{fmt.Errorf("consul ended: %w\n%s", err, log.String())}
		default:
		}
		// It is ready once its own node is in the catalogue.
		nodes, err := c.call(http.MethodGet, "/v1/health/node/consul-node", nil)
		if err == nil && !strings.Contains(string(nodes), "serfHealth") {
			err = fmt.Errorf("consul has no node yet: %s", nodes)
		}
		return err
	})
	return c, err
}

// fatal is an error for which until does not try again.
type fatal struct{ error }

// until tries again until there is no error or the time is over.
func until(ctx context.Context, most time.Duration, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil || errors.As(err, &fatal{}) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not within %s: %w", most, err)
		case <-tick.C:
		}
	}
}

func freePorts(t *testing.T, n int) []int {
	t.Helper()
	var out []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		out = append(out, l.Addr().(*net.TCPAddr).Port)
	}
	return out
}

func (c *realConsul) call(method, path string, body any) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	data, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, c.url+path, bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	req.Header.Set("X-Consul-Token", secretText)
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, out)
	}
	return out, err
}

// listed waits until the catalogue has a service or no longer has it: agents
// bring it there by themselves.
func (c *realConsul) listed(t *testing.T, id string, want bool) {
	t.Helper()
	if err := until(t.Context(), 10*time.Second, func() error {
		out, err := c.call(http.MethodGet, "/v1/health/service/prometheus", nil)
		if err == nil && strings.Contains(string(out), fmt.Sprintf(`"ID": %q`, id)) != want && strings.Contains(string(out), fmt.Sprintf(`"ID":%q`, id)) != want {
			err = fmt.Errorf("service %s listed: want %v in %s", id, want, out)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

func (c *realConsul) put(t *testing.T, e entry) {
	t.Helper()
	_, err := c.call(http.MethodPut, "/v1/agent/service/register", map[string]any{
		"ID": e.name, "Name": "prometheus", "Address": e.address, "Port": e.port, "Meta": e.consulMeta(),
	})
	if err != nil {
		t.Fatal(err)
	}
	c.listed(t, e.name, true)
}

func (c *realConsul) remove(t *testing.T, name string) {
	t.Helper()
	if _, err := c.call(http.MethodPut, "/v1/agent/service/deregister/"+name, nil); err != nil {
		t.Fatal(err)
	}
	c.listed(t, name, false)
}

func TestRealConsulContract(t *testing.T) {
	startConsul(t) // or skip once for all
	contract(t, func(t *testing.T) *store {
		c := startConsul(t)
		return consulStore(c.url, c.put, c.remove, c.stop)
	})
}

// The small server of the other tests answers as the real one does: the same
// fields with the same types, for the same registrations.
func TestFakeConsulIsHonest(t *testing.T) {
	c, f := startConsul(t), newFakeConsul(t)
	e := entry{name: "a", unit: "prometheus-a.service", server: "x", address: "127.0.0.1", port: 9091}
	c.put(t, e)
	f.put(t, e)
	shape := func(url string) map[string]string {
		data, err := (&realConsul{url: url}).call(http.MethodGet, "/v1/health/service/prometheus", nil)
		if err != nil {
			t.Fatal(err)
		}
		var list []any
		if err := json.Unmarshal(data, &list); err != nil || len(list) != 1 {
			t.Fatalf("%v: %s", err, data)
		}
		out := map[string]string{}
		describe(out, "", list[0])
		return out
	}
	got, want := shape(f.URL), shape(c.url)
	for key, kind := range got {
		if want[key] != kind {
			t.Errorf("%s: the small server gives %s, Consul %s", key, kind, want[key])
		}
	}
	for _, key := range []string{".Node.Node", ".Node.Address", ".Service.ID", ".Service.Address", ".Service.Port", ".Service.Meta.unit", ".Checks"} {
		if got[key] == "" || want[key] == "" {
			t.Errorf("%s: the small server gives %q, Consul %q", key, got[key], want[key])
		}
	}
}

func describe(out map[string]string, path string, v any) {
	out[path] = fmt.Sprintf("%T", v)
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			describe(out, path+"."+k, e)
		}
	case []any:
		for i, e := range v {
			describe(out, fmt.Sprintf("%s[%d]", path, i), e)
		}
	}
}
