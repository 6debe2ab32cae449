package artifact

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// sumList is a parsed checksum file.
type sumList struct {
	byPath map[string]component.Digest   // by the name as written, cleaned
	byBase map[string][]component.Digest // by base name; several where they differ
	bare   component.Digest              // a file that holds one sum and no name
}

// asset returns the sum of an asset: its line, or the bare sum of a file that
// belongs to it alone ("ASSET.sha256").
func (l sumList) asset(name, file string) (d component.Digest, ok bool, err error) {
	if d, ok, err = l.lookup(name); ok || err != nil {
		return d, ok, err
	}
	if l.bare != "" && strings.HasPrefix(file, name) {
		return l.bare, true, nil
	}
	return "", false, nil
}

// lookup goes by the whole path, else by the base name where only one sum
// belongs to it.
func (l sumList) lookup(name string) (d component.Digest, ok bool, err error) {
	name = path.Clean(name)
	if d, ok := l.byPath[name]; ok {
		return d, true, nil
	}
	found := l.byBase[path.Base(name)]
	if strong := slices.DeleteFunc(slices.Clone(found), func(d component.Digest) bool { return d.Algorithm() != "sha256" }); len(strong) > 0 {
		found = strong // the same files may be listed with both algorithms
	}
	switch len(found) {
	case 0:
		return "", false, nil
	case 1:
		return found[0], true, nil
	default:
		return "", false, fmt.Errorf("%d different sums for %s", len(found), path.Base(name))
	}
}

// parseSums reads the forms of checksum files in use: "hex  name", "hex *name",
// a leading "./", SHA-512, BSD's "SHA256 (name) = hex", and a bare sum. A line
// that is none of these is an error: a half-understood file vouches for nothing.
func parseSums(data []byte) (sumList, error) {
	l := sumList{byPath: map[string]component.Digest{}, byBase: map[string][]component.Digest{}}
	for i, line := range strings.Split(strings.TrimPrefix(string(data), "\ufeff"), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		sum, name, err := parseSumLine(line)
		if err != nil {
			return sumList{}, fmt.Errorf("line %d: %w", i+1, err)
		}
		if name == "" {
			if l.bare != "" && l.bare != sum {
				return sumList{}, fmt.Errorf("line %d: a second sum without a name", i+1)
			}
			l.bare = sum
			continue
		}
		clean, base := path.Clean(name), path.Base(name)
		if have, ok := l.byPath[clean]; ok && have != sum && have.Algorithm() == sum.Algorithm() {
			return sumList{}, fmt.Errorf("line %d: a second, different sum for %s", i+1, clean)
		}
		if l.byPath[clean].Algorithm() != "sha256" {
			l.byPath[clean] = sum
		}
		if !slices.Contains(l.byBase[base], sum) {
			l.byBase[base] = append(l.byBase[base], sum)
		}
	}
	if l.bare == "" && len(l.byPath) == 0 {
		return sumList{}, errors.New("it holds no checksum")
	}
	return l, nil
}

func parseSumLine(line string) (component.Digest, string, error) {
	for _, alg := range []string{"sha256", "sha512"} {
		if rest, ok := strings.CutPrefix(line, strings.ToUpper(alg)+" ("); ok {
			name, sum, ok := strings.Cut(rest, ") = ")
			if !ok || name == "" {
				return "", "", fmt.Errorf("%.80q: want %s (NAME) = HEX", line, strings.ToUpper(alg))
			}
			d, err := component.ParseDigest(alg + ":" + strings.TrimSpace(sum))
			return d, name, err
		}
	}
	sum, name, _ := strings.Cut(line, " ")
	d, err := component.ParseDigest(sum)
	if err != nil {
		return "", "", err
	}
	return d, strings.TrimPrefix(strings.TrimSpace(name), "*"), nil
}
