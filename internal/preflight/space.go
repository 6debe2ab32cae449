package preflight

import (
	"context"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/inventory"
	"github.com/observability-upgrade/observability-upgrade/internal/plan"
)

const (
	unknownSize = 100_000_000 // of a component whose size nobody states (docs/specification.md, section 2)
	ownRecords  = 4_000_000   // journal, history, state file
	spareFiles  = 100         // directories, records and temporary files of a run
)

// usage is what a run adds to a directory.
type usage struct {
	dir   string // as it is meant; it need not exist
	bytes int64
	files int64
}

// volume is one file system and all that a run adds to it.
type volume struct {
	FS
	dir          string // the first directory on it, for messages
	bytes, files int64
}

// checkFileSystems adds up what the run needs on each file system it really
// writes to. Directories count together when stat(2) gives them one st_dev.
func (c *checker) checkFileSystems(ctx context.Context) finding {
	var volumes []*volume
	var mounts []component.Check
	for _, u := range c.usages(ctx) {
		dir := existing(u.dir)
		stat, err := c.FileSystems.Stat(dir)
		if err != nil {
			mounts = append(mounts, fail(FileSystem, "", "findmnt -T "+dir, "%s cannot be looked at: %v", dir, err))
			continue
		}
		mounts = append(mounts, c.checkMount(dir, u.dir, stat)...)
		i := slices.IndexFunc(volumes, func(v *volume) bool { return v.Device == stat.Device })
		if i < 0 {
			i = len(volumes)
			volumes = append(volumes, &volume{FS: stat, dir: dir})
		}
		volumes[i].bytes += u.bytes
		volumes[i].files += u.files
	}
	var f finding
	for _, v := range volumes {
		f.checks = append(f.checks, v.checkSpace(), v.checkInodes())
	}
	mounts = slices.Compact(mounts)
	if len(mounts) == 0 {
		mounts = append(mounts, ok(FileSystem, "", "every directory the run writes to is on a file system that can be written"))
	}
	f.checks = append(f.checks, mounts...)
	return f
}

func (v *volume) checkSpace() component.Check {
	want := v.bytes * 6 / 5 // the specification's margin of 20 %
	if want > v.Bytes {
		return fail(DiskSpace, "", "df -h "+v.dir, "the file system of %s: expected at least %s free, found %s: %s are missing",
			v.dir, plan.Bytes(want), plan.Bytes(v.Bytes), plan.Bytes(want-v.Bytes))
	}
	return ok(DiskSpace, "", "%s: needs %s, has %s", v.dir, plan.Bytes(want), plan.Bytes(v.Bytes))
}

func (v *volume) checkInodes() component.Check {
	want := v.files*6/5 + spareFiles
	switch {
	case !v.CountsFiles:
		return ok(Inodes, "", "%s: its file system has no fixed number", v.dir)
	case want > v.Files:
		return fail(Inodes, "", "df -i "+v.dir, "the file system of %s: expected at least %d inodes free, found %d: %d are missing",
			v.dir, want, v.Files, want-v.Files)
	}
	return ok(Inodes, "", "%s: needs %d, has %d", v.dir, want, v.Files)
}

// checkMount refuses where nothing can be written, and staging from which
// nothing can be run: the new binary is asked for its version there.
func (c *checker) checkMount(dir, meant string, stat FS) []component.Check {
	var out []component.Check
	mount := "$(findmnt -no TARGET -T " + dir + ")"
	if stat.ReadOnly {
		out = append(out, fail(FileSystem, "", "mount -o remount,rw "+mount, "%s: expected a file system that can be written, found one mounted read-only", dir))
	}
	if stat.NoExec && meant == c.Staging {
		out = append(out, fail(FileSystem, "", "mount -o remount,exec "+mount,
			"staging in %s: expected a file system that programs can run from, found one mounted noexec; or move it with paths.staging in %s", dir, c.Root.Policy()))
	}
	return out
}

// usages lists what is written where: the archive in the cache, its files in
// staging, copies of them beside those installed, the backup, and room for a copy
// of data to be put back.
func (c *checker) usages(ctx context.Context) []usage {
	staging, cache := usage{dir: c.Staging}, usage{dir: c.Root.Cache()}
	backups := usage{dir: c.Root.Backups()}
	var installs []usage
	for i, st := range c.steps {
		old := map[string]usage{} // installed binaries by path
		var all usage
		for _, name := range slices.Sorted(maps.Keys(st.in.Binaries)) {
			path := st.in.Binaries[name]
			u := measure(ctx, path)
			old[path] = u
			all.bytes += u.bytes
			all.files += u.files
		}
		download := st.DownloadBytes
		if download == 0 {
			download = max(all.bytes, unknownSize)
		}
		// An archive unpacks to about three times its size; a release is seldom
		// more than a quarter bigger than the one before.
		fresh := max(all.bytes*5/4, download*3)
		if !c.cached(i) {
			cache.bytes += download
			cache.files++
		}
		staging.bytes += fresh
		staging.files += all.files*5/4 + 1
		for _, path := range slices.Sorted(maps.Keys(old)) {
			u := old[path]
			share := fresh / int64(len(old))
			if all.bytes > 0 {
				share = int64(float64(fresh) * float64(u.bytes) / float64(all.bytes))
			}
			installs = append(installs, usage{dir: filepath.Dir(path), bytes: share, files: u.files*5/4 + 1})
		}
		backups.bytes += all.bytes
		backups.files += all.files
		for _, path := range c.kept(st.in) {
			u := measure(ctx, path)
			backups.bytes += u.bytes
			backups.files += u.files
		}
	}
	for _, d := range c.Data {
		backups.bytes += d.Bytes
		backups.files += d.Files
		installs = append(installs, usage{dir: d.Dir, bytes: d.Bytes, files: d.Files})
	}
	return append([]usage{staging, cache, backups, {dir: c.Root.Lib(), bytes: ownRecords, files: 10}}, installs...)
}

// kept lists what a backup point holds of a component besides its binaries.
func (c *checker) kept(in *inventory.Installed) []string {
	vars := component.Vars{Name: in.Component.Name}
	var out []string
	for _, p := range in.Component.Config.Paths {
		out = append(out, c.Root.Path(vars.Expand(p)))
	}
	if in.Status.FragmentPath != "" {
		out = append(out, in.Status.FragmentPath)
	}
	out = append(out, in.Status.DropIns...)
	return out
}

func (c *checker) cached(i int) bool {
	name := c.steps[i].Component
	return slices.ContainsFunc(c.Downloads, func(d Download) bool { return d.Component == name && d.Cached })
}

// measure adds up a file or all below a directory. What cannot be read counts
// nothing: the backup, which must read it, says so.
func measure(ctx context.Context, path string) usage {
	var u usage
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	_ = filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return nil //nolint:nilerr // see above
		}
		u.files++
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() {
			u.bytes += info.Size()
		}
		return nil
	})
	return u
}

// existing is the nearest parent of path that exists, or path itself.
func existing(path string) string {
	for {
		if _, err := os.Stat(path); err == nil {
			return path
		}
		parent := filepath.Dir(path)
		if parent == path {
			return path
		}
		path = parent
	}
}
