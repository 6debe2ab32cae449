package preflight

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/observability-upgrade/observability-upgrade/internal/artifact"
	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// checkStaging proves that nobody else prepared a directory to which downloads
// go (docs/reference.md, promise 10). The download looks again; here all that is
// wrong is told before anything is fetched.
func (c *checker) checkStaging(context.Context) finding {
	if checks := stagingChecks(c.Staging); len(checks) > 0 {
		return found(checks...) // what is in it is not ours either
	}
	var checks []component.Check
	for _, name := range c.StagingDirs {
		checks = append(checks, stagingChecks(filepath.Join(c.Staging, name))...)
	}
	if len(checks) > 0 {
		return found(checks...)
	}
	return found(ok(Staging, "", "%s is ours, or can be made", c.Staging))
}

// stagingChecks is what is wrong with one directory; empty when nothing is.
func stagingChecks(dir string) []component.Check {
	err := artifact.CheckDirectory(dir)
	var insecure *artifact.InsecureDirError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &insecure):
		return []component.Check{fail(Staging, "", insecure.Fix, "%s: expected a directory of our own, found that it %s", dir, insecure.Reason)}
	}
	return []component.Check{fail(Staging, "", "ls -ld "+dir, "%s: expected a directory of our own, found: %v", dir, err)}
}
