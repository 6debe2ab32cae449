// Command observability-upgrade upgrades a self-hosted observability stack.
package main

import (
	"os"

	"github.com/observability-upgrade/observability-upgrade/internal/cli"
)

func main() {
	o := cli.System()
	o.Guard, o.Now = faults() // nil, but in builds for fault injection
	os.Exit(cli.Main(os.Args, o))
}
