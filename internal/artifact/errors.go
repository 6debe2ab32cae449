package artifact

import (
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// ChecksumError reports bytes that are not those that were vouched for.
type ChecksumError struct {
	Component, Asset, Source string
	Expected, Got            component.Digest
}

func (e *ChecksumError) Error() string {
	return fmt.Sprintf("checksum of %s does not match: expected %s (by %s), got %s", e.Asset, e.Expected, e.Source, e.Got)
}

// NoChecksumError reports an asset that nothing vouches for.
type NoChecksumError struct{ Asset, Reason string }

func (e *NoChecksumError) Error() string {
	return fmt.Sprintf("no checksum of %s: %s; it is not used unless verification.checksum is if_available", e.Asset, e.Reason)
}

// ConflictError reports two sources of checksums that disagree.
type ConflictError struct {
	Asset  string
	File   component.Digest
	API    component.Digest
	Source string
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("%s says %s is %s, the release API says %s: one of them was tampered with or is broken; nothing is downloaded", e.Source, e.Asset, e.File, e.API)
}

// SizeError reports more or fewer bytes than announced.
type SizeError struct {
	Asset    string
	Expected int64
	Got      int64
}

func (e *SizeError) Error() string {
	return fmt.Sprintf("%s: expected %d bytes, got %d or more", e.Asset, e.Expected, e.Got)
}

// UnsafeArchiveError reports an archive that is refused whole.
type UnsafeArchiveError struct{ Archive, Entry, Reason string }

func (e *UnsafeArchiveError) Error() string {
	return fmt.Sprintf("%s is refused: its entry %q %s", e.Archive, e.Entry, e.Reason)
}

// NoAssetError reports a release without the wanted asset.
type NoAssetError struct {
	Component string
	Version   component.Version
	Want      string
	Have      []string
	Reason    string
}

func (e *NoAssetError) Error() string {
	msg := fmt.Sprintf("%s %s has no asset %s", e.Component, e.Version, e.Want)
	if e.Reason != "" {
		msg += ": " + e.Reason
	}
	if n := len(e.Have); n > 0 {
		show := e.Have
		if n > 8 {
			show = show[:8]
		}
		msg += fmt.Sprintf("; it has %s", strings.Join(show, ", "))
		if n > 8 {
			msg += fmt.Sprintf(" and %d more", n-8)
		}
	}
	return msg
}

// SignatureError reports a signature that does not hold.
type SignatureError struct {
	Asset  string
	Reason string
}

func (e *SignatureError) Error() string {
	return fmt.Sprintf("signature of %s: %s", e.Asset, e.Reason)
}

// InsecureDirError refuses a directory that somebody else may have prepared.
type InsecureDirError struct{ Path, Reason, Fix string }

func (e *InsecureDirError) Error() string {
	return fmt.Sprintf("%s %s: `%s`", e.Path, e.Reason, e.Fix)
}

// ownDirectory makes sure that a directory exists, is no link, is ours and
// closed to others.
func ownDirectory(path string) error {
	if err := os.Mkdir(path, 0o700); err != nil && !os.IsExist(err) {
		return err
	}
	st, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if st.Mode()&os.ModeSymlink != 0 {
		return &InsecureDirError{path, "is a link", "rm " + path}
	}
	if !st.IsDir() {
		return &InsecureDirError{path, "is not a directory", "rm " + path}
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok && int(sys.Uid) != os.Geteuid() {
		return &InsecureDirError{path, fmt.Sprintf("belongs to uid %d", sys.Uid), "rm -r " + path}
	}
	if st.Mode().Perm()&0o077 != 0 {
		return os.Chmod(path, 0o700)
	}
	return nil
}
