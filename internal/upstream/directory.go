package upstream

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// listDirectory reads PATH/VERSION/ASSET. Links are followed: mirrors use them.
func (c *Client) listDirectory(ctx context.Context, comp *component.Component) (listing, error) {
	dir := c.expand(comp, comp.Source.Path)
	if !filepath.IsAbs(dir) {
		return listing{}, fmt.Errorf("source.path %q is not absolute", dir)
	}
	unknown := func(err error) error { return &UnknownError{URL: dir, Err: err} }
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return listing{}, notFound("directory "+dir, "check source.path, and that the mirror is mounted")
	}
	if err != nil {
		return listing{}, unknown(err)
	}
	l := listing{where: dir, checkedAt: c.opts.Now()}
	for _, e := range entries {
		if ctx.Err() != nil {
			return listing{}, unknown(context.Cause(ctx))
		}
		raw := rawRelease{tag: e.Name()}
		if _, ok := versionOf(comp, raw); !ok {
			continue // no release ("keys", "lost+found") or not of this component
		}
		info, err := os.Stat(filepath.Join(dir, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			c.log.Warn("mirror holds a dangling link", "component", comp.Name, "link", filepath.Join(dir, e.Name()))
			continue
		}
		if err != nil {
			return listing{}, unknown(err)
		}
		if !info.IsDir() {
			continue
		}
		if err := readReleaseDir(filepath.Join(dir, e.Name()), &raw); err != nil {
			return listing{}, unknown(err)
		}
		l.releases = append(l.releases, raw)
	}
	return l, nil
}

// readReleaseDir lists the files of one release; its date is the newest file's.
func readReleaseDir(dir string, raw *rawRelease) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		file := filepath.Join(dir, e.Name())
		info, err := os.Stat(file)
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			continue
		}
		if info.ModTime().After(raw.publishedAt) {
			raw.publishedAt = info.ModTime()
		}
		raw.assets = append(raw.assets, rawAsset{
			name: e.Name(), size: info.Size(),
			url: (&url.URL{Scheme: "file", Path: file}).String(),
		})
	}
	return nil
}
