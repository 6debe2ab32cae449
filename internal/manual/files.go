package manual

import "github.com/observability-upgrade/observability-upgrade/internal/layout"

// files are those of this program, below --root.
func files() []Entry {
	const root = layout.Root("/")
	return []Entry{
		{root.Policy(), "Policy: upstream, verification, retention, unattended runs; see observability-upgrade-policy(5)."},
		{root.Matrix(), "Which versions go together, what is known broken; see observability-upgrade-matrix(5)."},
		{root.Notifications(), "Whom to tell what; see observability-upgrade-notifications(5)."},
		{root.ComponentsDir() + "/NAME.yaml", "Adds a component or overrides a built-in one; see observability-upgrade-component(5)."},
		{root.SecretsDir() + "/NAME", "Value of ${SECRET:NAME}; mode 0600 or 0400, else it is refused."},
		{root.Environment(), "Variables for the units of systemd, NAME=VALUE a line; mode 0600."},
		{root.State(), "What is installed, since when."},
		{root.History(), "Every upgrade, in SQLite."},
		{root.Audit(), "Who changed what, when, with which outcome; a JSON document a line."},
		{root.JournalDir() + "/", "Journal of a run in progress; recover reads it."},
		{root.RunsDir() + "/RUN/", "What a run recorded: its steps, its result, evidence."},
		{root.Cache() + "/", "Upstream's answers and downloaded archives; can be removed at any time."},
		{root.Backups() + "/TIMESTAMP/", "A backup point: binaries, configuration, units, checksums."},
		{root.Lock(), "Lock of the kernel, with the PID of who holds it."},
	}
}

// environment are the variables that the program reads.
func environment() []Entry {
	return []Entry{
		{"GITHUB_TOKEN", "Token for GitHub, where the policy names none; it raises the limit of requests."},
		{"OBSERVABILITY_UPGRADE_GITHUB_API_URL, OBSERVABILITY_UPGRADE_GITLAB_API_URL", "Addresses of the two, before those of the policy."},
		{"HTTP_PROXY, HTTPS_PROXY, NO_PROXY", "Proxy for requests to upstream."},
		{"OTEL_EXPORTER_OTLP_ENDPOINT", "Where traces of runs go; without it there are none."},
		{"NO_COLOR", "No colours, whatever its value."},
	}
}

// configFile is a configuration file that has a page of its own.
type configFile struct{ schema, page, path, short, long string }

func configFiles() []configFile {
	const root = layout.Root("/")
	return []configFile{
		{
			"policy", "observability-upgrade-policy", root.Policy(), "policy of upgrades",
			"Where releases are asked for, what must be verified, how long things may take, what is kept, and what runs without a person may do. Without the file the defaults hold.",
		},
		{
			"matrix", "observability-upgrade-matrix", root.Matrix(), "which versions go together",
			"Versions that need each other, versions that are known broken, versions that must be entered from others, and what it takes to come back. It is added to what is built in.",
		},
		{
			"notifications", "observability-upgrade-notifications", root.Notifications(), "whom to tell of upgrades",
			"Channels, and which events go to them. Without the file nobody is told.",
		},
		{
			"component", "observability-upgrade-component", root.ComponentsDir() + "/NAME.yaml", "definition of a component",
			"A file adds a component, or overrides fields of a built-in one. \"observability-upgrade components show NAME\" prints what is in force.",
		},
	}
}
