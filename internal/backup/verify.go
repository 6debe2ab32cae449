package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

var sumLine = regexp.MustCompile(`^(\\?)([0-9a-f]{64}) [ *](.+)$`)

// Verify proves that a point holds exactly what was stored: every file listed
// has its sum, none is missing and none was added. It changes nothing.
func Verify(ctx context.Context, p *Point) error {
	listed, err := readSums(p.Path, sumsFile)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(listed)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := checkListed(p.Path, name, listed[name]); err != nil {
			return err
		}
	}
	return verifyItems(p, listed)
}

// checkListed proves one file of a point.
func checkListed(point, name, want string) error {
	path := filepath.Join(point, name)
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &DamagedError{Path: point, File: name, Problem: "is missing"}
	case err != nil:
		return err
	case !st.Mode().IsRegular():
		return &DamagedError{Path: point, File: name, Problem: "is not a regular file any more"}
	}
	got, err := sumFile(path)
	if err != nil {
		return err
	}
	if got != want {
		return &DamagedError{Path: point, File: name, Problem: "content changed", Expected: want, Found: got}
	}
	return nil
}

// readSums reads a file of checksums that lies in a point.
func readSums(point, file string) (map[string]string, error) {
	data, err := os.ReadFile(filepath.Join(point, file))
	if errors.Is(err, fs.ErrNotExist) {
		problem := "is missing"
		if file == sumsFile {
			problem += ": the backup was never completed"
		}
		return nil, &DamagedError{Path: point, File: file, Problem: problem}
	}
	if err != nil {
		return nil, err
	}
	return parseSums(point, file, data)
}

func parseSums(point, file string, data []byte) (map[string]string, error) {
	listed := map[string]string{}
	for i, line := range strings.Split(strings.TrimSuffix(string(data), "\n"), "\n") {
		if len(data) == 0 {
			break // of data that has no files
		}
		m := sumLine.FindStringSubmatch(line)
		if m == nil {
			return nil, &DamagedError{Path: point, File: file, Problem: fmt.Sprintf("line %d is not a checksum line", i+1)}
		}
		name := m[3]
		if m[1] != "" {
			name = strings.NewReplacer(`\\`, `\`, `\n`, "\n", `\r`, "\r").Replace(name)
		}
		if !filepath.IsLocal(name) {
			return nil, &DamagedError{Path: point, File: file, Problem: fmt.Sprintf("line %d names %q, outside the backup", i+1, name)}
		}
		listed[name] = m[2]
	}
	return listed, nil
}

// verifyItems proves that what a rollback would put back is covered by the sums
// and that the stored items are as the manifest says.
func verifyItems(p *Point, listed map[string]string) error {
	if _, ok := listed[manifestFile]; !ok {
		return &DamagedError{Path: p.Path, File: manifestFile, Problem: "is not covered by " + sumsFile}
	}
	actual, err := sumTree(p.Path)
	if err != nil {
		return err
	}
	for name := range actual {
		if _, ok := listed[name]; !ok {
			return &DamagedError{Path: p.Path, File: name, Problem: "was added after the backup"}
		}
	}
	for _, c := range p.Manifest.Components {
		for _, it := range c.Items {
			if err := p.Intact(it); err != nil {
				return err
			}
		}
	}
	return nil
}

// Intact proves that what is stored of an item is what the manifest says.
func (p *Point) Intact(it Item) error {
	if !filepath.IsLocal(it.Stored) {
		return &DamagedError{Path: p.Path, File: manifestFile, Problem: fmt.Sprintf("names %q, outside the backup", it.Stored)}
	}
	got, err := hostfs.Digest(p.File(it))
	switch {
	case err != nil:
		return err
	case got == "":
		return &DamagedError{Path: p.Path, File: it.Stored, Problem: "is missing"}
	case got != it.Digest:
		return &DamagedError{Path: p.Path, File: it.Stored, Problem: "content changed", Expected: it.Digest, Found: got}
	}
	return nil
}
