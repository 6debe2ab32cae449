package discovery

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// fakeConsul speaks the part of Consul's HTTP API that is used, as documented at
// https://developer.hashicorp.com/consul/api-docs/health. TestFakeConsulIsHonest
// compares its answers with the real one's.
type fakeConsul struct {
	*httptest.Server
	mu       sync.Mutex
	services map[string]map[string]any // by service ID
}

func newFakeConsul(t *testing.T) *fakeConsul {
	f := &fakeConsul{services: map[string]map[string]any{}}
	f.Server = httptest.NewServer(http.HandlerFunc(f.serve))
	t.Cleanup(f.Close)
	return f
}

func (f *fakeConsul) serve(w http.ResponseWriter, r *http.Request) {
	out := []any{}
	switch token := r.Header.Get("X-Consul-Token"); {
	case r.Method != http.MethodGet || r.URL.Path != "/v1/health/service/prometheus":
		http.NotFound(w, r)
		return
	case token == "": // the anonymous token: what it may not see is left out
		w.Header().Set("X-Consul-Results-Filtered-By-ACLs", "true")
	case token != secretText:
		http.Error(w, "ACL not found", http.StatusForbidden)
		return
	default:
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, id := range slices.Backward(slices.Sorted(maps.Keys(f.services))) {
			out = append(out, map[string]any{"Node": fakeNode(), "Service": f.services[id], "Checks": []any{fakeCheck()}})
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(out)
}

func fakeNode() map[string]any {
	return map[string]any{
		"ID": "40e4a748-2192-161a-0510-9bf59fe950b5", "Node": "consul-node", "Address": "127.0.0.1", "Datacenter": "dc1",
		"TaggedAddresses": map[string]any{"lan": "127.0.0.1", "lan_ipv4": "127.0.0.1", "wan": "127.0.0.1", "wan_ipv4": "127.0.0.1"},
		"Meta":            map[string]any{"consul-network-segment": ""}, "CreateIndex": 10, "ModifyIndex": 11,
	}
}

func fakeCheck() map[string]any {
	return map[string]any{
		"Node": "consul-node", "CheckID": "serfHealth", "Name": "Serf Health Status", "Status": "passing", "Notes": "",
		"Output": "Agent alive and reachable", "ServiceID": "", "ServiceName": "", "ServiceTags": []any{}, "Type": "",
		"Definition": map[string]any{}, "CreateIndex": 10, "ModifyIndex": 10,
	}
}

func (f *fakeConsul) put(_ *testing.T, e entry) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.services[e.name] = map[string]any{
		"ID": e.name, "Service": "prometheus", "Tags": []any{}, "Address": e.address,
		"TaggedAddresses": map[string]any{
			"lan_ipv4": map[string]any{"Address": e.address, "Port": e.port},
			"wan_ipv4": map[string]any{"Address": e.address, "Port": e.port},
		},
		"Meta": e.consulMeta(), "Port": e.port, "Weights": map[string]any{"Passing": 1, "Warning": 1}, "EnableTagOverride": false,
		"Proxy":   map[string]any{"MeshGateway": map[string]any{}, "Expose": map[string]any{}},
		"Connect": map[string]any{}, "CreateIndex": 14, "ModifyIndex": 14,
	}
}

func (f *fakeConsul) remove(_ *testing.T, name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.services, name)
}

// consulStore is the store that both Consuls are.
func consulStore(url string, put func(*testing.T, entry), remove func(*testing.T, string), stop func()) *store {
	in := component.Instances{Type: "consul", Address: url, Service: "prometheus", Token: "${SECRET:right}", Exec: remoteExec}
	wrong := in
	wrong.Token = "${SECRET:wrong}"
	return &store{
		definition: func() component.Instances { return in },
		put:        put, remove: remove, wrong: wrong, stop: stop,
		malformed: func(t *testing.T) string {
			put(t, entry{name: "_x/y", address: "127.0.0.1", port: 1})
			return `"_x/y" is not an instance's name`
		},
	}
}

func TestFakeConsulContract(t *testing.T) {
	contract(t, func(t *testing.T) *store {
		f := newFakeConsul(t)
		return consulStore(f.URL, f.put, f.remove, f.Close)
	})
}
