package e2e

import (
	"maps"
	"slices"
	"testing"

	"github.com/observability-upgrade/observability-upgrade/internal/doctest"
)

const (
	repository = "../.."
	webConfig  = "/etc/observability/web.yml"
)

// elsewhere are commands that cannot be run by a reader on these hosts: why, and
// where they are run instead.
var elsewhere = map[string]map[string]string{
	"README.md": {
		"make demo":  "on the machine that builds; demo.txtar in test/script runs the same",
		"make test":  "on the machine that builds; it runs this",
		"make build": "on the machine that builds; the program that is tried here was built so",
	},
	"docs/benchmarks.md": {
		"make bench": "takes 40 minutes; each benchmark has tests of its own in bench/",
	},
	"docs/fleet.md": {
		"ansible-playbook -i hosts.ini upgrade.yml": "on a machine with Ansible: TestFleetByAnsible",
	},
	"docs/hostile-input.md": {
		"go test ./internal/artifact ./internal/upstream -run 'Hostile|Bombs|Many'": "on the machine that builds; `make unit` runs them",
		"go test ./test/script -run 'TestEveryFault|TestHostileReleases'":           "on the machine that builds; `make unit` runs them",
		"make fuzz FUZZTIME=10m FUZZ='artifact'":                                    "takes 10 minutes a target; `make fuzz` runs all",
	},
	"docs/signatures.md": {
		"cosign trusted-root create --with-default-services --out trusted_root.json": "asks Sigstore on the Internet; TestPublicSigstore in internal/artifact verifies by a root that was made so",
	},
}

// others are documents that other tests follow, or that are not instructions.
var others = map[string]string{
	"docs/campaign.md":      "for the machine that builds; `make unit` runs a slice of the campaign",
	"docs/install.md":       "TestDebianPackage (apt_test.go) follows it on fresh hosts",
	"docs/releasing.md":     "TestDebianPackage (apt_test.go) follows it",
	"docs/specification.md": "how the program was asked for; reference.md says what it does",
}

// hosts are what readers work on, and the pages that they read there, in order.
var hosts = map[string]struct {
	make  func(*testing.T) *host
	pages []document
}{
	"start": {func(t *testing.T) *host { return newHost(t, map[string]string{"prometheus": "2.42"}, newer) }, []document{readme}},
	"first": {func(t *testing.T) *host { return newHost(t, old, newer) }, []document{firstUpgrade}},
	"pair":  {func(t *testing.T) *host { return newPair(t, "haproxy", newer) }, []document{highAvailability}},
	"many":  {newFleet, []document{fleet, discovery}},
	"runs":  {func(t *testing.T) *host { return newHost(t, old, newer) }, []document{dataCopies, history}},
	"down":  {func(t *testing.T) *host { return newHost(t, map[string]string{"prometheus": "2.42"}, newer) }, []document{recovery}},
	"desk":  {func(t *testing.T) *host { return newHost(t, map[string]string{"prometheus": "2.42"}, newer) }, []document{configuration, components, airGapped, notifications, signatures, security, unattended}},
	"views": {func(t *testing.T) *host { return newHost(t, old, newer) }, []document{health, vulnerabilities, statusPage, logsAndTraces, monitoring}},
}

// What the documentation says to type is typed, on real hosts, in its order.
func TestDocumentation(t *testing.T) {
	t.Parallel()
	for name, on := range hosts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &reader{host: on.make(t), notes: map[string]string{}}
			for _, d := range on.pages {
				r.follow(d)
				if t.Failed() {
					return
				}
			}
		})
	}
}

// Every document with something to type or to write into a file is followed, every
// command of the tables is in its document, and what does not end with 0 has a reason.
func TestDocumentationIsFollowed(t *testing.T) {
	followed := map[string]document{}
	for _, on := range hosts {
		for _, d := range on.pages {
			followed[d.name] = d
		}
	}
	names, err := doctest.Documents(repository)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		shown := map[string]bool{}
		acts := false
		for _, b := range documentBlocks(t, name) {
			acts = acts || b.File != "" || b.Language == "ini"
			if b.Language == "ini" && b.File == "" {
				t.Errorf("%s: the first line does not say which file it is", b.Where())
			}
			if b.Language == "sh" {
				for _, c := range b.Commands() {
					shown[c] = true
				}
			}
		}
		d, ok := followed[name]
		if _, other := others[name]; other {
			if ok {
				t.Errorf("%s is followed, and is said not to be", name)
			}
			continue
		}
		for c, why := range elsewhere[name] {
			if !shown[c] || why == "" {
				t.Errorf("%s does not say %q any more, or there is no reason for it: %q", name, c, why)
			}
			delete(shown, c)
		}
		if !ok && (acts || len(shown) > 0) {
			t.Errorf("nobody follows %s: give it a setup in docs_pages_test.go: %q", name, slices.Sorted(maps.Keys(shown)))
		}
		for c, s := range d.steps {
			if !shown[c] {
				t.Errorf("%s does not say %q any more", name, c)
			}
			if (s.code != 0) != (s.why != "") {
				t.Errorf("%s: %q ends with %d, because: %q", name, c, s.code, s.why)
			}
		}
		delete(followed, name)
	}
	for name := range followed {
		t.Errorf("there is no %s", name)
	}
	for name := range elsewhere {
		if !slices.Contains(names, name) {
			t.Errorf("there is no %s", name)
		}
	}
}
