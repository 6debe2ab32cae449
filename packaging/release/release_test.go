package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Masterminds/semver/v3"
)

func TestSemantic(t *testing.T) {
	for in, want := range map[string]string{
		"v1.2.3": "1.2.3", "1.2.3": "1.2.3", "v1.2.3-rc.1": "1.2.3-rc.1", "v1.2.3-dirty": "1.2.3+dirty",
		"v1.2.3-4-gabcdef0": "1.2.3+4.gabcdef0", "v1.2.3-rc.1-4-gabcdef0-dirty": "1.2.3-rc.1+4.gabcdef0.dirty",
		"abcdef0": "0.0.0+gabcdef0", "abcdef0-dirty": "0.0.0+gabcdef0.dirty", "1.2.3+7": "1.2.3+7",
	} {
		if got, err := semantic(in); err != nil || got != want {
			t.Errorf("%s: %s, want %s (%v)", in, got, want, err)
		}
	}
	for _, in := range []string{"", "v1.2", "one", "v1.2.3.4", "1.2.3 x", "1.2.3/../x"} {
		if got, err := semantic(in); err == nil || !strings.Contains(err.Error(), "want a semantic version") {
			t.Errorf("%q: %s, %v", in, got, err)
		}
	}
}

// Whatever git says, what comes of it can be a version and a part of a file's name.
func FuzzSemantic(f *testing.F) {
	for _, s := range []string{"v1.2.3-4-gabc", "abcdef0-dirty", "1.0.0-rc.1+x", "-dirty", "v-1-g0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := semantic(s)
		if err != nil {
			return
		}
		if _, err := semver.StrictNewVersion(got); err != nil || strings.ContainsAny(got, "/ \n") {
			t.Errorf("%q gives %q: %v", s, got, err)
		}
	})
}

func TestFlags(t *testing.T) {
	none := func(string) string { return "" }
	for want, args := range map[string][]string{"no target": {"-targets=mips"}, "unexpected argument": {"x"}, "not defined": {"-frobnicate"}} {
		if err := run(t.Context(), args, none, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", args, err)
		}
	}
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "x"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for want, args := range map[string][]string{
		"to be empty, found 1 files": {"-out=" + full, "-version=1.0.0", "-epoch=1"},
		"SOURCE_DATE_EPOCH":          {"-version=1.0.0", "-epoch=yesterday"},
		"want a semantic version":    {"-version=one", "-epoch=1"},
	} {
		if err := run(t.Context(), args, none, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", args, err)
		}
	}
}

func TestTarball(t *testing.T) {
	at := time.Unix(1735269000, 0)
	parts := map[string]part{"b/x.sh": {[]byte("x"), 0o755}, "a": {[]byte("a"), 0o644}, "b/c/y": {nil, 0o644}}
	data, err := tarball("top", parts, at)
	if err != nil {
		t.Fatal(err)
	}
	again, err := tarball("top", parts, at)
	if err != nil || !bytes.Equal(data, again) {
		t.Errorf("a second time it has other bytes (%v)", err)
	}
	zr, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if zr.Name != "" || !zr.ModTime.IsZero() {
		t.Errorf("gzip tells %q, %v", zr.Name, zr.ModTime)
	}
	var got []string
	for tr := tar.NewReader(zr); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if !h.ModTime.Equal(at) || h.Uid != 0 || h.Gid != 0 || h.Uname != "root" {
			t.Errorf("%+v", h)
		}
		got = append(got, fmt.Sprintf("%s %o", h.Name, h.Mode))
	}
	if want := []string{"top/ 755", "top/a 644", "top/b/ 755", "top/b/c/ 755", "top/b/c/y 644", "top/b/x.sh 755"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func TestIdentify(t *testing.T) {
	own, err := os.ReadFile("../../LICENSE")
	if err != nil {
		t.Fatal(err)
	}
	const bsd = "Redistribution and use in source and binary forms, with or without\nmodification, are permitted"
	for text, want := range map[string]string{
		string(own):                   "Apache-2.0",
		bsd:                           "BSD-2-Clause",
		bsd + "\n Neither the\n name": "BSD-3-Clause",
		"Permission is hereby granted, free of charge, to any person obtaining a\ncopy of": "MIT",
		"GNU GENERAL PUBLIC LICENSE Version 3":                                             "", "all rights reserved": "", "": "",
	} {
		if got := identify(text); got != want {
			t.Errorf("%.40q is %q, want %q", text, got, want)
		}
	}
	m := linkedModule{path: "example.org/m", version: "v1.0.0"}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "LICENSE.txt"), []byte("all rights reserved"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := m.read(dir); err == nil || !strings.Contains(err.Error(), `found ["LICENSE.txt"]`) {
		t.Errorf("a licence that nobody knows: %v", err)
	}
	if err := m.read(""); err == nil || !strings.Contains(err.Error(), "go mod download") {
		t.Errorf("a module that is not here: %v", err)
	}
}

// copyTree copies what git would commit, changes and new files included, so that
// a release of what lies here is built elsewhere.
func copyTree(t *testing.T, to string) {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = root
	list, err := cmd.Output()
	if err != nil {
		t.Skip("it takes a checkout to copy one: ", err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list), "\x00"), "\x00") {
		data, err := os.ReadFile(filepath.Join(root, name))
		if errors.Is(err, os.ErrNotExist) {
			continue // removed, and not committed yet
		}
		if err == nil {
			err = os.MkdirAll(filepath.Dir(filepath.Join(to, name)), 0o755)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(to, name), data, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// tool builds nfpm as the Makefile pins it, once for all tests.
func tool(t *testing.T) string {
	t.Helper()
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(makefile)) {
		if rest, ok := strings.CutPrefix(line, "NFPM"); ok {
			to := filepath.Join(t.TempDir(), "nfpm")
			if err := buildTool(t.Context(), strings.TrimSpace(strings.TrimLeft(rest, " :=")), to); err != nil {
				t.Fatal(err)
			}
			return to
		}
	}
	t.Fatal("the Makefile pins no nfpm")
	return ""
}

// coldBuild has the second release compile everything anew, which takes minutes.
const coldBuild = "OBSUP_COLD_BUILD"

// `make release` twice, in two directories, with two masks, time zones and clocks,
// and where there is time for it two caches: each file has the same bytes, those of
// the signature too.
func TestReproducible(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds everything from nothing")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 25*time.Minute)
	defer cancel()
	_, key := newKey(t)
	nfpm := tool(t)
	var sums [2]map[string]string
	for i, dir := range []string{"a", "another/place"} {
		dir = filepath.Join(t.TempDir(), dir)
		copyTree(t, dir)
		mask := "umask 022"
		env := append(os.Environ(), "VERSION=1.2.3", "SOURCE_DATE_EPOCH=1735269000", keyVariable+"="+key, "GOFLAGS=-buildvcs=false")
		if i == 1 {
			mask = "umask 077"
			env = append(env, "TZ=Pacific/Auckland", "LC_ALL=C", "HOME="+os.Getenv("HOME"))
			if os.Getenv(coldBuild) != "" {
				env = append(env, "GOCACHE="+t.TempDir(), "GOAMD64=v3")
			}
		}
		cmd := exec.CommandContext(ctx, "sh", "-c", mask+"; make release NFPM="+nfpm+" RELEASE_TARGETS=amd64")
		cmd.Dir, cmd.Env = dir, env
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if !strings.Contains(string(out), "dist/SHA256SUMS is signed by key") {
			t.Errorf("%s", out)
		}
		sums[i] = digests(t, filepath.Join(dir, "dist"))
		if i == 0 {
			inspect(t, filepath.Join(dir, "dist"))
		}
	}
	for name, sum := range sums[0] {
		if sums[1][name] != sum {
			t.Errorf("%s has other bytes the second time", name)
		}
	}
	if len(sums[0]) != len(sums[1]) || len(sums[0]) != 6 {
		t.Errorf("%d files, then %d; want 6: %v", len(sums[0]), len(sums[1]), sums)
	}
}

func digests(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		out[e.Name()] = fmt.Sprintf("%x", sha256.Sum256(data))
	}
	return out
}
