package component

import (
	"encoding/hex"
	"fmt"
	"path"
	"strings"
	"time"
)

// Release is one published version of a component as its upstream lists it.
type Release struct {
	Version     Version   `json:"version"`
	Tag         string    `json:"tag"`
	PublishedAt time.Time `json:"published_at"` // zero when upstream does not say
	Prerelease  bool      `json:"prerelease,omitempty"`
	NotesURL    string    `json:"notes_url,omitempty"`
	Assets      []Asset   `json:"assets,omitempty"`
}

// Asset is one file of a release.
type Asset struct {
	Name   string `json:"name"`
	URL    string `json:"url"`
	Size   int64  `json:"size,omitempty"`   // bytes; 0 when upstream does not say
	Digest Digest `json:"digest,omitempty"` // as the release API states it; empty when it does not
}

// FindAsset returns the asset with exactly this name.
func (r Release) FindAsset(name string) (Asset, bool) {
	for _, a := range r.Assets {
		if a.Name == name {
			return a, true
		}
	}
	return Asset{}, false
}

// MatchAssets returns the assets that a definition's name means: the one with
// exactly this name, or, where the name holds "*", all that match it as
// path.Match has it.
func (r Release) MatchAssets(name string) []Asset {
	if !strings.Contains(name, "*") {
		if a, ok := r.FindAsset(name); ok {
			return []Asset{a}
		}
		return nil
	}
	var found []Asset
	for _, a := range r.Assets {
		if ok, err := path.Match(name, a.Name); err == nil && ok {
			found = append(found, a)
		}
	}
	return found
}

// AssetNames lists the names of all assets, for messages about a missing one.
func (r Release) AssetNames() []string {
	names := make([]string, 0, len(r.Assets))
	for _, a := range r.Assets {
		names = append(names, a.Name)
	}
	return names
}

// Digest is "ALGORITHM:HEX", lower case, with sha256 or sha512 as the algorithm;
// "" when there is none. The form is that of GitHub's asset digests and of OCI.
type Digest string

// ParseDigest checks the form and normalises case. Bare hex is taken as sha256
// or sha512 by its length.
func ParseDigest(s string) (Digest, error) {
	alg, hexPart, ok := strings.Cut(strings.TrimSpace(s), ":")
	if !ok {
		hexPart = alg
		switch len(hexPart) {
		case 64:
			alg = "sha256"
		case 128:
			alg = "sha512"
		default:
			return "", fmt.Errorf("digest %q: %d hex digits, want 64 (sha256) or 128 (sha512)", s, len(hexPart))
		}
	}
	alg, hexPart = strings.ToLower(alg), strings.ToLower(hexPart)
	want := map[string]int{"sha256": 64, "sha512": 128}[alg]
	if want == 0 {
		return "", fmt.Errorf("digest %q: algorithm %q is not sha256 or sha512", s, alg)
	}
	if len(hexPart) != want {
		return "", fmt.Errorf("digest %q: %d hex digits, want %d", s, len(hexPart), want)
	}
	if _, err := hex.DecodeString(hexPart); err != nil {
		return "", fmt.Errorf("digest %q: %w", s, err)
	}
	return Digest(alg + ":" + hexPart), nil
}

// Algorithm is "sha256" or "sha512"; "" for the empty digest.
func (d Digest) Algorithm() string {
	alg, _, _ := strings.Cut(string(d), ":")
	return alg
}

// Hex is the hexadecimal part.
func (d Digest) Hex() string {
	_, h, _ := strings.Cut(string(d), ":")
	return h
}
