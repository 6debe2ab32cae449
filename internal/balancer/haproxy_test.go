package balancer

import (
	"strings"
	"testing"
)

// A server that a person drained is out also while it is down.
func TestHAProxyDrainedAndDown(t *testing.T) {
	r := setupHAProxy(false)(t)
	h := r.open(t, 0).(*haproxy)
	state := func(admitted, up bool) func() bool {
		return func() bool {
			st, err := h.State(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return st.Admitted == admitted && st.Up == up
		}
	}
	if err := h.set(t.Context(), "drain"); err != nil {
		t.Fatal(err)
	}
	await(t, "drained", state(false, true))
	r.back[0].Close()
	await(t, "drained and down", func() bool {
		text, err := h.command(t.Context(), "show stat")
		return err == nil && strings.Contains(text, "prom,a,") && strings.Contains(text, ",DOWN,")
	})
	if !state(false, false)() {
		t.Error("it passes for admitted")
	}
	if err := h.Admit(t.Context()); err != nil {
		t.Fatal(err)
	}
	await(t, "admitted and down", state(true, false))
}

func FuzzDrained(f *testing.F) {
	f.Add("1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state\n3 prom 1 a 127.0.0.1 0 8\n")
	f.Fuzz(func(t *testing.T, text string) {
		if out, err := parseDrained(text, "a"); out && (err != nil || !strings.Contains(text, "srv_admin_state")) {
			t.Errorf("%q: %v, %v", text, out, err)
		}
	})
}
