package balancer

import (
	"fmt"
	"strings"
	"testing"
)

func TestParseStats(t *testing.T) {
	head := "# pxname,svname,scur,status\n"
	for text, want := range map[string]string{
		head + "p,a,3,UP\np,b,0,DRAIN\np,BACKEND,3,UP\nq,a,9,UP\n":     "{Admitted:true Up:true Sessions:3 Others:0 Detail:UP}",
		head + "p,a,0,MAINT (via p/b)\np,b,0,UP 1/2\np,c,0,no check\n": "{Admitted:false Up:false Sessions:0 Others:2 Detail:MAINT (via p/b)}",
		head + "p,b,0,UP\n": "no server a; it has b",
		head + "q,a,0,UP\n": "no backend p",
		"":                  "expected CSV",
		"Permission denied": "no column",
		head + "p,a,x,UP\n": `are "x"`,
	} {
		st, err := parseStats(text, "p", "a")
		got := fmt.Sprintf("%+v", st)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func FuzzStats(f *testing.F) {
	f.Add("# pxname,svname,scur,status\np,a,3,UP\n")
	f.Fuzz(func(t *testing.T, text string) {
		if st, err := parseStats(text, "p", "a"); err == nil && st.Detail == "" && st.Up {
			t.Errorf("up without a status: %+v", st)
		}
	})
}

// states is an answer of HAProxy 2.6 to "show servers state", shortened.
const states = `1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight
3 prom 1 a 127.0.0.1 2 0 1
3 prom 2 b 127.0.0.1 2 8 1
3 prom 3 c 127.0.0.1 0 1 1
4 other 1 a 127.0.0.1 0 0x21 1
4 other 2 odd 127.0.0.1 0 maint 1

`

func TestParseAdmin(t *testing.T) {
	for _, tt := range []struct {
		backend, server string
		want            int64
		err             string
	}{
		{"prom", "a", 0, ""},
		{"prom", "b", forcedDrain, ""},
		{"prom", "c", forcedMaint, ""},
		{"other", "a", 0x21, ""},
		{"other", "odd", 0, `the administrative state of other/odd is "maint"`},
		{"prom", "nobody", 0, "expected a line of prom/nobody"},
	} {
		got, err := parseAdmin(states, tt.backend, tt.server)
		if got != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s/%s: %d, %v", tt.backend, tt.server, got, err)
		}
	}
	if _, err := parseAdmin("Unknown command.\n", "prom", "a"); err == nil {
		t.Error("an answer without servers was taken")
	}
}

func FuzzAdmin(f *testing.F) {
	f.Add(states)
	f.Add("# be_name\nprom")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		if flags, err := parseAdmin(text, "prom", "a"); err != nil && flags != 0 {
			t.Errorf("%d with an error: %v", flags, err)
		}
	})
}

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
