package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

var sumLine = regexp.MustCompile(`^(\\?)([0-9a-f]{64}) [ *](.+)$`)

// Verify proves that a point holds exactly what was stored: every file listed
// has its sum, none is missing and none was added. It changes nothing.
func Verify(ctx context.Context, p *Point) error {
	listed, err := readSums(p)
	if err != nil {
		return err
	}
	names := make([]string, 0, len(listed))
	for n := range listed {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		path := filepath.Join(p.Path, name)
		st, err := os.Lstat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return &DamagedError{Path: p.Path, File: name, Problem: "is missing"}
		case err != nil:
			return err
		case !st.Mode().IsRegular():
			return &DamagedError{Path: p.Path, File: name, Problem: "is not a regular file any more"}
		}
		got, err := sumFile(path)
		if err != nil {
			return err
		}
		if got != listed[name] {
			return &DamagedError{Path: p.Path, File: name, Problem: "content changed", Expected: listed[name], Found: got}
		}
	}
	return verifyItems(p, listed)
}

func readSums(p *Point) (map[string]string, error) {
	data, err := os.ReadFile(filepath.Join(p.Path, sumsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &DamagedError{Path: p.Path, File: sumsFile, Problem: "is missing: the backup was never completed"}
	}
	if err != nil {
		return nil, err
	}
	listed := map[string]string{}
	for i, line := range strings.Split(strings.TrimSuffix(string(data), "\n"), "\n") {
		m := sumLine.FindStringSubmatch(line)
		if m == nil {
			return nil, &DamagedError{Path: p.Path, File: sumsFile, Problem: fmt.Sprintf("line %d is not a checksum line", i+1)}
		}
		name := m[3]
		if m[1] != "" {
			name = strings.NewReplacer(`\\`, `\`, `\n`, "\n", `\r`, "\r").Replace(name)
		}
		if !filepath.IsLocal(name) {
			return nil, &DamagedError{Path: p.Path, File: sumsFile, Problem: fmt.Sprintf("line %d names %q, outside the backup", i+1, name)}
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
			if !filepath.IsLocal(it.Stored) {
				return &DamagedError{Path: p.Path, File: manifestFile, Problem: fmt.Sprintf("names %q, outside the backup", it.Stored)}
			}
			got, err := hostfs.Digest(p.File(it))
			if err != nil {
				return err
			}
			if got != it.Digest {
				return &DamagedError{Path: p.Path, File: it.Stored, Problem: "content changed", Expected: it.Digest, Found: got}
			}
		}
	}
	return nil
}
