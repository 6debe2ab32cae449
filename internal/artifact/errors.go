package artifact

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// ChecksumError reports bytes that are not those that were vouched for.
type ChecksumError struct {
	Component, Asset, Source string
	Expected, Got            component.Digest
	Hint                     string // what the bytes look like instead; may be empty
}

func (e *ChecksumError) Error() string {
	msg := fmt.Sprintf("checksum of %s does not match: expected %s (by %s), got %s", e.Asset, e.Expected, e.Source, e.Got)
	if e.Hint != "" {
		msg += "; " + e.Hint
	}
	return msg
}

// NoChecksumError reports an asset that nothing vouches for.
type NoChecksumError struct{ Asset, Reason string }

func (e *NoChecksumError) Error() string {
	return fmt.Sprintf("no checksum of %s: %s; it is not used unless verification.checksum is if_available", e.Asset, e.Reason)
}

// goneError says that a file of a release could not be had, as its server
// answered an error, or not at all. What could be had and is wrong is another.
type goneError struct{ err error }

func (e *goneError) Error() string { return e.err.Error() }

// Unwrap is the cause.
func (e *goneError) Unwrap() error { return e.err }

// ConflictError reports two sources of checksums that disagree.
type ConflictError struct {
	Asset   string
	Sources [2]string
	Digests [2]component.Digest
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("%s says %s is %s, %s says %s: one of them was tampered with or is broken; nothing is downloaded",
		e.Sources[0], e.Asset, e.Digests[0], e.Sources[1], e.Digests[1])
}

// SizeError reports more or other bytes than were announced, or than the limit
// of downloads allows.
type SizeError struct {
	Asset    string
	Expected int64
	Got      int64 // so many, or more
	Limit    bool  // Expected is our limit, not an announced size
}

func (e *SizeError) Error() string {
	if e.Limit {
		return fmt.Sprintf("%s is too big: %d bytes or more, the limit is %d", e.Asset, e.Got, e.Expected)
	}
	return fmt.Sprintf("%s: expected %d bytes, got %d or more", e.Asset, e.Expected, e.Got)
}

// UnsafeArchiveError reports an archive that is refused whole, for the entry
// named.
type UnsafeArchiveError struct{ Archive, Entry, Reason string }

func (e *UnsafeArchiveError) Error() string {
	return fmt.Sprintf("%s is refused: its entry %.200q %s", e.Archive, e.Entry, e.Reason)
}

// NoAssetError reports a release without the wanted asset.
type NoAssetError struct {
	Component string
	Version   component.Version
	Platform  string // OS/ARCH in Go's names
	Want      string // "" when the architecture is not published at all
	Have      []string
	Reason    string
}

func (e *NoAssetError) Error() string {
	msg := fmt.Sprintf("%s %s has no asset for %s", e.Component, e.Version, e.Platform)
	if e.Want != "" {
		msg = fmt.Sprintf("%s %s has no asset %s (for %s)", e.Component, e.Version, e.Want, e.Platform)
	}
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

// InsecureDirError refuses a directory that somebody else may have prepared.
type InsecureDirError struct{ Path, Reason, Fix string }

func (e *InsecureDirError) Error() string {
	return fmt.Sprintf("%s %s; if nobody needs it: `%s`", e.Path, e.Reason, e.Fix)
}

// CheckDirectory reports, as an InsecureDirError and without changing anything,
// why a staging directory, or the one of all of them, would be refused. One that
// is missing would be made.
func CheckDirectory(path string) error {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return ours(path, st)
}

// ours refuses what is a link, no directory, or somebody else's.
func ours(path string, st fs.FileInfo) error {
	if st.Mode()&os.ModeSymlink != 0 {
		return &InsecureDirError{path, "is a link", "rm " + path}
	}
	if !st.IsDir() {
		return &InsecureDirError{path, "is not a directory", "rm " + path}
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok && int(sys.Uid) != os.Geteuid() {
		return &InsecureDirError{path, fmt.Sprintf("belongs to uid %d", sys.Uid), "rm -r " + path}
	}
	return nil
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
	if err := ours(path, st); err != nil {
		return err
	}
	if st.Mode().Perm()&0o077 != 0 {
		return os.Chmod(path, 0o700)
	}
	return nil
}
