package timer

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/yamlfile"
)

// environment gives the services the variables that the configuration names. The
// units are for a systemd whose root is theirs, so the path has none before it.
var environment = `# What ${VARIABLE} in the configuration stands for, where an administrator says it.
EnvironmentFile=-` + layout.Root("/").Environment() + "\n"

var (
	variable   = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	assignment = regexp.MustCompile(`(?:^|[\s"'])([A-Za-z_][A-Za-z0-9_]*)(?:=|\s|$)`)
)

// ReadsEnvironment reports whether the service in a directory reads the file of
// variables: one that an older version wrote does not.
func ReadsEnvironment(dir string) bool {
	unit, err := own(filepath.Join(dir, Service))
	return err == nil && strings.Contains(string(unit), environment)
}

// Variables names the variables that the service of unattended runs has: of the file
// that its unit reads, and of the drop-ins beside the unit. It refuses, with a
// yamlfile.InsecureError, a file that others can write.
func Variables(root layout.Root, dir string) (map[string]bool, error) {
	out := map[string]bool{}
	data, err := yamlfile.ReadSecure(root.Environment())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if ReadsEnvironment(dir) {
		parseEnvironment(string(data), out)
	}
	for _, text := range dropIns(dir, Service) {
		for line := range strings.Lines(text) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			switch value = strings.TrimSpace(value); strings.TrimSpace(key) {
			case "Environment", "PassEnvironment":
				for _, m := range assignment.FindAllStringSubmatch(value, -1) {
					out[m[1]] = true
				}
			case "EnvironmentFile":
				data, err := os.ReadFile(root.Path(strings.TrimPrefix(value, "-")))
				if err == nil { // of one that cannot be read nothing is known to be set
					parseEnvironment(string(data), out)
				}
			}
		}
	}
	return out, nil
}

// parseEnvironment notes which variables a file for EnvironmentFile= sets, see
// systemd.exec(5), to something that is not empty.
func parseEnvironment(text string, into map[string]bool) {
	for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", "")) {
		line = strings.TrimSpace(line)
		name, value, ok := strings.Cut(line, "=")
		if name = strings.TrimSpace(name); ok && variable.MatchString(name) {
			into[name] = strings.Trim(value, " \t\"'") != ""
		}
	}
}

// dropIns are the texts that people laid over a unit, as `systemctl edit` does.
func dropIns(dir, unit string) []string {
	paths, err := filepath.Glob(filepath.Join(dir, unit+".d", "*.conf"))
	if err != nil {
		return nil // a directory whose name is a broken pattern has none that are found
	}
	var out []string
	for _, path := range paths {
		if data, err := os.ReadFile(path); err == nil {
			out = append(out, string(data))
		}
	}
	return out
}
