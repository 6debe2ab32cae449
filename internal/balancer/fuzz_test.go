package balancer

import (
	"testing"
)

// What an administrator's command prints.
func FuzzExecStatus(f *testing.F) {
	for _, s := range []string{"admitted\n", "drained 0 1", "admitted 3", "admitted -1", "drained x", "", "admitted 1 2 3", "admitted 99999999999999999999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, out string) {
		st, err := parseStatus(out, "cmd")
		if err == nil && (st.Sessions < -1 || st.Others < -1) {
			t.Fatalf("%+v", st)
		}
	})
}
