package stack

import (
	"errors"
	"fmt"

	"github.com/observability-upgrade/observability-upgrade/internal/health"
	"github.com/observability-upgrade/observability-upgrade/internal/inventory"
)

// bringBack is what to do about a component whose binary is gone.
func bringBack(in *inventory.Installed) string {
	return fmt.Sprintf("observability-upgrade rollback --list shows the backups that bring it back; or install it again, then: observability-upgrade adopt --yes; where it was removed on purpose: observability-upgrade adopt --component=%s --yes forgets it", in.Component.Name)
}

// goneError refuses to act on a component whose binary is gone.
func goneError(in *inventory.Installed, how string) error {
	return &RefusedError{
		Component: in.Component.Name, Check: "binary",
		Err: errors.New(in.Problem + how), Next: bringBack(in),
	}
}

// judgeBinary adds to a report what is wrong with the file that the next start
// would execute: what runs now may be well.
func judgeBinary(in *inventory.Installed, r *health.Report) {
	if in.Gone != "" {
		r.Fail("binary", fmt.Sprintf("%s; the next start would fail: %s", in.Problem, bringBack(in)))
	}
}
