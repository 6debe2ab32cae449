package main

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/Masterminds/semver/v3"
)

// described is what `git describe` says of a commit after a tag.
var described = regexp.MustCompile(`^(.*)-([0-9]+)-g([0-9a-f]+)$`)

// semantic makes a semantic version of what git describes: a tag is itself, what
// comes after a tag has commits and hash as build metadata (1.2.3+4.gabcdef), which
// packages sort after the tag; a hash alone is 0.0.0+gHASH.
func semantic(s string) (string, error) {
	s, dirty := strings.CutSuffix(s, "-dirty")
	meta := ""
	if m := described.FindStringSubmatch(s); m != nil {
		s, meta = m[1], m[2]+".g"+m[3]
	} else if regexp.MustCompile(`^[0-9a-f]{7,40}$`).MatchString(s) {
		s, meta = "0.0.0", "g"+s
	}
	if dirty {
		meta = strings.TrimPrefix(meta+".dirty", ".")
	}
	v, err := semver.StrictNewVersion(strings.TrimPrefix(s, "v"))
	if err != nil {
		return "", fmt.Errorf("version %q: want a semantic version such as 1.2.3 or 1.2.3-rc.1: %w", s, err)
	}
	if meta != "" && v.Metadata() == "" {
		*v, err = v.SetMetadata(meta)
	}
	return v.String(), err
}
