package releaseserver

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Release is one published release.
type Release struct {
	Tag         string
	Name        string // the tag when empty
	PublishedAt time.Time
	Draft       bool
	Prerelease  bool // on GitLab: an upcoming release; on Grafana: the beta channel; not expressible in the HTML listing
	Assets      []Asset
	NoDigest    bool // the API states no digests, as for files uploaded before mid-2025
}

// Asset is one file of a release.
type Asset struct {
	Name string
	// Open returns the content and its size in bytes. It is called once per
	// request, possibly concurrently.
	Open    func() (io.ReadSeekCloser, int64, error)
	ModTime time.Time // the release's PublishedAt when zero
	Digest  string    // stated by the API instead of the true one ("sha256:…")
	State   string    // GitHub's upload state; "uploaded" when empty

	key string // identity for the digest cache
}

type memoryFile struct{ *bytes.Reader }

func (memoryFile) Close() error { return nil }

// Bytes is an asset held in memory.
func Bytes(name string, body []byte) Asset {
	return Asset{Name: name, Open: func() (io.ReadSeekCloser, int64, error) {
		return memoryFile{bytes.NewReader(body)}, int64(len(body)), nil
	}}
}

// FileAsset is an asset read from a file each time it is asked for.
func FileAsset(name, file string) Asset {
	return Asset{Name: name, Open: func() (io.ReadSeekCloser, int64, error) {
		f, err := os.Open(file)
		if err != nil {
			return nil, 0, err
		}
		info, err := f.Stat()
		if err != nil {
			return nil, 0, errors.Join(err, f.Close())
		}
		return f, info.Size(), nil
	}}
}

// Checksums is the content of a sha256sums.txt over the assets: a line
// "HEX  NAME" each, in the order given, as GNU sha256sum writes it.
func Checksums(assets ...Asset) ([]byte, error) {
	var b bytes.Buffer
	for _, a := range assets {
		sum, err := digestOf(a)
		if err != nil {
			return nil, fmt.Errorf("checksum of %s: %w", a.Name, err)
		}
		fmt.Fprintf(&b, "%s  %s\n", sum, a.Name)
	}
	return b.Bytes(), nil
}

func sha256Hex(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func digestOf(a Asset) (string, error) {
	f, _, err := a.Open()
	if err != nil {
		return "", err
	}
	h := sha256.New()
	_, err = io.Copy(h, f)
	if err = errors.Join(err, f.Close()); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// digest is the hexadecimal SHA-256 of an asset, computed once per content.
func (s *Server) digest(a Asset) (string, error) {
	s.mu.Lock()
	sum, ok := s.digests[a.key]
	s.mu.Unlock()
	if ok {
		return sum, nil
	}
	sum, err := digestOf(a)
	if err != nil {
		return "", fmt.Errorf("digest of %s: %w", a.Name, err)
	}
	s.mu.Lock()
	s.digests[a.key] = sum
	s.mu.Unlock()
	return sum, nil
}

// size is the asset's length in bytes.
func (a Asset) size() (int64, error) {
	f, n, err := a.Open()
	if err != nil {
		return 0, fmt.Errorf("open %s: %w", a.Name, err)
	}
	return n, f.Close()
}

// list returns the releases of a repository, newest first; ok is false when
// neither AddRelease nor the directory knows it.
func (s *Server) list(forge Forge, repo string) (out []Release, ok bool, err error) {
	s.mu.Lock()
	mem, ok := s.releases[forge][repo]
	mem = slices.Clone(mem)
	s.mu.Unlock()
	if s.opts.Dir == "" {
		return newestFirst(mem), ok, nil
	}
	disk, found, err := s.listDir(forge, repo)
	if err != nil {
		return nil, false, err
	}
	for _, r := range disk {
		if !slices.ContainsFunc(mem, func(m Release) bool { return m.Tag == r.Tag }) {
			mem = append(mem, r)
		}
	}
	return newestFirst(mem), ok || found, nil
}

func (s *Server) find(forge Forge, repo, tag string) (Release, bool, error) {
	all, _, err := s.list(forge, repo)
	if err != nil {
		return Release{}, false, err
	}
	i := slices.IndexFunc(all, func(r Release) bool { return r.Tag == tag })
	if i < 0 {
		return Release{}, false, nil
	}
	return all[i], true, nil
}

func (r Release) asset(name string) (Asset, bool) {
	i := slices.IndexFunc(r.Assets, func(a Asset) bool { return a.Name == name })
	if i < 0 {
		return Asset{}, false
	}
	return r.Assets[i], true
}

// metaFile is the optional DIR/…/TAG/.release.json.
const metaFile = ".release.json"

type releaseMeta struct {
	Name        string    `json:"name"`
	Draft       bool      `json:"draft"`
	Prerelease  bool      `json:"prerelease"`
	PublishedAt time.Time `json:"published_at"`
	NoDigest    bool      `json:"no_digest"`
	NoChecksums bool      `json:"no_checksums"` // do not make up a sha256sums.txt
}

func (s *Server) listDir(forge Forge, repo string) ([]Release, bool, error) {
	if !safePath(repo) {
		return nil, false, nil
	}
	dir := filepath.Join(s.opts.Dir, string(forge), filepath.FromSlash(repo))
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("read releases: %w", err)
	}
	var out []Release
	for _, e := range entries {
		full := filepath.Join(dir, e.Name())
		info, err := os.Stat(full) // follows links
		if err != nil || !info.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		rel, err := s.readRelease(full, e.Name())
		if err != nil {
			return nil, false, err
		}
		out = append(out, rel)
	}
	return out, true, nil
}

func (s *Server) readRelease(dir, name string) (Release, error) {
	tag, err := url.PathUnescape(name)
	if err != nil {
		return Release{}, fmt.Errorf("release directory %s: %w", dir, err)
	}
	var meta releaseMeta
	raw, err := os.ReadFile(filepath.Join(dir, metaFile))
	if err == nil {
		err = json.Unmarshal(raw, &meta)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Release{}, fmt.Errorf("%s: %w", filepath.Join(dir, metaFile), err)
	}
	rel := Release{
		Tag: tag, Name: meta.Name, Draft: meta.Draft, Prerelease: meta.Prerelease,
		PublishedAt: meta.PublishedAt, NoDigest: meta.NoDigest,
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return Release{}, fmt.Errorf("read release %s: %w", tag, err)
	}
	var newest time.Time
	for _, e := range entries {
		full := filepath.Join(dir, e.Name())
		info, err := os.Stat(full)
		if err != nil || !info.Mode().IsRegular() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		a := FileAsset(e.Name(), full)
		a.ModTime = info.ModTime()
		a.key = fmt.Sprintf("file|%s|%d|%d", full, info.Size(), info.ModTime().UnixNano())
		if a.ModTime.After(newest) {
			newest = a.ModTime
		}
		rel.Assets = append(rel.Assets, a)
	}
	if rel.PublishedAt.IsZero() {
		rel.PublishedAt = newest.UTC().Truncate(time.Second)
	}
	if _, has := rel.asset(checksumsName); !has && !meta.NoChecksums && len(rel.Assets) > 0 {
		rel.Assets = append(rel.Assets, s.generatedChecksums(rel))
	}
	return rel, nil
}

const checksumsName = "sha256sums.txt"

// generatedChecksums is a sha256sums.txt over all assets, made when it is read.
func (s *Server) generatedChecksums(rel Release) Asset {
	var keys strings.Builder
	for _, a := range rel.Assets {
		keys.WriteString(a.key + "\n")
	}
	assets := rel.Assets
	return Asset{
		Name: checksumsName, ModTime: rel.PublishedAt, key: "sums|" + keys.String(),
		Open: func() (io.ReadSeekCloser, int64, error) {
			var b bytes.Buffer
			for _, a := range assets {
				sum, err := s.digest(a)
				if err != nil {
					return nil, 0, err
				}
				fmt.Fprintf(&b, "%s  %s\n", sum, a.Name)
			}
			return memoryFile{bytes.NewReader(b.Bytes())}, int64(b.Len()), nil
		},
	}
}

// splitPath cuts an escaped URL path into decoded segments; an escaped slash
// stays inside its segment.
func splitPath(escaped string) ([]string, error) {
	var out []string
	for seg := range strings.SplitSeq(strings.Trim(escaped, "/"), "/") {
		if seg == "" {
			continue
		}
		dec, err := url.PathUnescape(seg)
		if err != nil {
			return nil, fmt.Errorf("path segment %q: %w", seg, err)
		}
		out = append(out, dec)
	}
	return out, nil
}

// safePath reports whether a repository path stays below its directory.
func safePath(p string) bool {
	if p == "" || path.Clean(p) != p || !filepath.IsLocal(filepath.FromSlash(p)) {
		return false
	}
	for seg := range strings.SplitSeq(p, "/") {
		if strings.HasPrefix(seg, ".") || strings.ContainsAny(seg, "\\\x00") {
			return false
		}
	}
	return true
}
