package stack

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"

	"github.com/observability-upgrade/observability-upgrade/internal/artifact"
	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/yamlfile"
)

// nextAfter is what to type after a release could not be staged: what mends the
// cause where that is known. To try again is advice only where it may help.
func (s *Stack) nextAfter(err error, c *component.Component, to component.Version) string {
	var (
		dir       *artifact.InsecureDirError
		file      *yamlfile.InsecureError
		signature *artifact.SignatureError
	)
	leaveOut := fmt.Sprintf("to leave it out: observability-upgrade hold %s@%s --reason=…", c.Name, to)
	refresh := "observability-upgrade check --refresh --component=" + c.Name
	switch {
	case errors.As(err, &dir):
		return dir.Fix
	case errors.As(err, &file):
		return file.Fix
	case errors.As(err, new(*artifact.UnsignedError)):
		return s.unsignedNext(c.Name)
	case errors.As(err, &signature):
		switch {
		case signature.Pinned != "" && errors.Is(err, fs.ErrNotExist):
			return fmt.Sprintf("install -D -m 0644 KEY %s, with the key that %s is signed with (docs/signatures.md)", signature.Pinned, c.Name)
		case signature.Mismatch():
			return fmt.Sprintf("compare %s with the key that upstream publishes (docs/signatures.md); %s", signature.Pinned, leaveOut)
		}
		return fmt.Sprintf("correct `signature` in %s (docs/signatures.md); %s", filepath.Join(s.Root.ComponentsDir(), c.Name+".yaml"), leaveOut)
	case errors.As(err, new(*artifact.ChecksumError)), errors.As(err, new(*artifact.ConflictError)), errors.As(err, new(*artifact.SizeError)):
		return refresh + ", and apply again, in case upstream has published it anew; " + leaveOut
	case errors.As(err, new(*artifact.UnsafeArchiveError)):
		return leaveOut
	case errors.As(err, new(*artifact.NoChecksumError)):
		return fmt.Sprintf("name the file of its checksums in %s; to go without them all the same, write checksum: if_available below verification in %s",
			filepath.Join(s.Root.ComponentsDir(), c.Name+".yaml"), s.Root.Policy())
	case errors.As(err, new(*artifact.NoAssetError)):
		return refresh
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Sprintf("df -h %s %s", s.staging(), s.Root.Cache())
	}
	return "observability-upgrade apply --component=" + c.Name
}
