package cli

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// Build is what this binary was built from.
type Build struct {
	Version   string `json:"version"`
	Commit    string `json:"commit"`
	Date      string `json:"date"`
	GoVersion string `json:"go_version"`
	Platform  string `json:"platform"`
}

// Set by the linker for releases, whose bytes must not depend on a checkout:
// -X …/internal/cli.buildVersion=1.2.3, the commit and its time (RFC 3339).
var buildVersion, buildCommit, buildDate string

// Version tells what this binary was built from, by the linker's word or by the
// build information Go embeds.
func Version() Build {
	b := Build{Version: buildVersion, Commit: buildCommit, Date: buildDate, GoVersion: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if b.Version == "" {
		b.Version = info.Main.Version
	}
	if b.Version == "" || b.Version == "(devel)" {
		b.Version = "dev"
	}
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && b.Commit == "":
			b.Commit = s.Value
		case s.Key == "vcs.time" && b.Date == "":
			b.Date = s.Value
		}
	}
	return b
}

func newVersion(g *global) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print this program's version",
		Example: "  observability-upgrade version --output=json",
		RunE: func(*cobra.Command, []string) error {
			b := Version()
			return g.print(b, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "observability-upgrade %s (commit %s, %s, %s)\n", b.Version, orDash(b.Commit), b.GoVersion, b.Platform)
				return err
			})
		},
	}
}
