// Command observability-upgrade upgrades a self-hosted observability stack.
package main

import (
	"os"

	"github.com/observability-upgrade/observability-upgrade/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args, cli.System())) }
