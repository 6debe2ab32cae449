package config

import (
	"os"
	"testing"
	"time"
)

func TestSalvagePolicy(t *testing.T) {
	const rest = "timeouts: {stop: 5s}\nservice_manager: process\nretention: {backups: 9}\n"
	for name, tt := range map[string]struct {
		text    string
		mode    os.FileMode
		env     func(string) string
		whole   bool // nothing is wrong
		kept    bool // rest is in force
		timeout bool // of rest alone, timeouts is
	}{
		"whole":                     {text: rest, whole: true, kept: true},
		"a secret is gone":          {text: "upstream: {github: {token: \"${SECRET:gone}\"}}\n" + rest, kept: true},
		"a variable is gone":        {text: "alert_gate: {url: \"http://localhost\", queries: [\"${GONE}\"]}\n" + rest, kept: true},
		"an unknown key":            {text: "upstraem: {}\n" + rest, kept: true},
		"two keys, one after other": {text: "upstream: {concurrency: 0}\nverification: {checksum: maybe}\nholds: [{}]\n" + rest, kept: true},
		"a wrong timeout":           {text: "timeouts: {stop: soon}\nservice_manager: process\nretention: {backups: 9}\n", kept: true, timeout: true},
		"the environment is wrong":  {text: rest, env: environment("OBSERVABILITY_UPGRADE_GITHUB_API_URL", "nowhere"), kept: true},
		"no YAML":                   {text: "timeouts: [\n" + rest},
		"others can write it":       {text: rest, mode: 0o666},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoot(t)
			mode, env := tt.mode, tt.env
			if mode == 0 {
				mode = 0o644
			}
			if env == nil {
				env = environment()
			}
			write(t, r.Policy(), tt.text, mode)
			_, strict := LoadPolicy(r, env)
			p, err := SalvagePolicy(r, env)
			if p == nil || (err == nil) != tt.whole || err != nil && err.Error() != strict.Error() {
				t.Fatalf("%+v, %v", p, err)
			}
			stop, manager, backups := 30*time.Second, "auto", 5
			if tt.kept {
				stop, manager, backups = 5*time.Second, "process", 9
			}
			if tt.timeout {
				stop = 30 * time.Second
			}
			if p.Timeouts.Stop.Std() != stop || p.ServiceManager != manager || p.Retention.Backups != backups || p.File != r.Policy() {
				t.Errorf("%+v", p)
			}
		})
	}
}

// Going back asks nothing of the network: what the policy says of it, and the
// secrets in it, are not read. Everything else is.
func TestPolicyWithoutUpstream(t *testing.T) {
	r := newRoot(t)
	env := environment("OBSERVABILITY_UPGRADE_GITHUB_API_URL", "nowhere")
	write(t, r.Policy(), "upstream: {github: {token: \"${SECRET:gone}\"}}\nretention: {backups: 9}\n", 0o644)
	p, err := LoadPolicy(r, env, "upstream", "alert_gate")
	if err != nil || p.Retention.Backups != 9 || p.Upstream.GitHub.APIURL != "https://api.github.com" {
		t.Fatalf("%+v, %v", p, err)
	}
	write(t, r.Policy(), "upstream: {github: {token: \"${SECRET:gone}\"}}\nretention: {backups: none}\n", 0o644)
	if _, err := LoadPolicy(r, env, "upstream", "alert_gate"); err == nil {
		t.Fatal("the rest was not checked")
	}
}
