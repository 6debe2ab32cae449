package main

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// linkedModule is a module that is in the binary.
type linkedModule struct {
	path, version string
	sum           string   // of go.sum; "" of the standard library
	license       string   // SPDX identifier
	texts         []string // of licences and notices
}

// linked reads from the binary which modules are in it, and from the module cache
// under which licences they come. One whose licence is not known is an error: a
// person has to look before it is published.
func (b *builder) linked(ctx context.Context, binary string) ([]linkedModule, error) {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	dirs, err := b.moduleDirs(ctx)
	if err != nil {
		return nil, err
	}
	goroot, err := output(ctx, "go", "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	list := []linkedModule{{path: "std", version: info.GoVersion}}
	dirs["std"] = goroot
	for _, m := range info.Deps {
		if m.Replace != nil {
			return nil, fmt.Errorf("%s is replaced in go.mod: a release is made of published modules", m.Path)
		}
		list = append(list, linkedModule{path: m.Path, version: m.Version, sum: m.Sum})
	}
	var errs []error
	for i := range list {
		errs = append(errs, list[i].read(dirs[list[i].path]))
	}
	return list, errors.Join(errs...)
}

// moduleDirs says where the modules of the program are.
func (b *builder) moduleDirs(ctx context.Context) (map[string]string, error) {
	var out bytes.Buffer
	if err := b.goCommand(ctx, &out, "list", "-deps", "-json=Module", "./cmd/"+name); err != nil {
		return nil, err
	}
	dirs := map[string]string{}
	for dec := json.NewDecoder(&out); ; {
		var p struct{ Module *struct{ Path, Dir string } }
		switch err := dec.Decode(&p); {
		case errors.Is(err, io.EOF):
			return dirs, nil
		case err != nil:
			return nil, fmt.Errorf("go list: %w", err)
		case p.Module != nil:
			dirs[p.Module.Path] = p.Module.Dir
		}
	}
}

var licenseFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying|unlicense|notice|copyright|patents)([.-].*)?$`)

// read reads the licences of a module.
func (m *linkedModule) read(dir string) error {
	entries, err := os.ReadDir(dir)
	if dir == "" || err != nil {
		return fmt.Errorf("%s: its files are not in the module cache: %w; next: go mod download", m.path, err)
	}
	var found []string
	for _, e := range entries {
		if !e.Type().IsRegular() || !licenseFile.MatchString(e.Name()) || strings.HasSuffix(e.Name(), ".go") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		m.texts = append(m.texts, strings.ReplaceAll(string(text), "\r\n", "\n"))
		found = append(found, e.Name())
		if id := identify(string(text)); id != "" && !slices.Contains(strings.Split(m.license, " AND "), id) {
			m.license = strings.TrimPrefix(m.license+" AND "+id, " AND ")
		}
	}
	if m.license == "" {
		return fmt.Errorf("%s %s: expected a licence that may be published with the program, found %q; next: read them, and teach packaging/release/linked.go", m.path, m.version, found)
	}
	return nil
}

// licences are recognised by words that are in no other; the first that fits wins.
var licences = []struct {
	id    string
	words []string
}{
	{"Apache-2.0", []string{"Apache License", "Version 2.0, January 2004"}},
	{"Apache-2.0", []string{"Licensed under the Apache License, Version 2.0"}},
	{"MPL-2.0", []string{"Mozilla Public License", "2.0"}},
	{"BSD-3-Clause", []string{"Redistribution and use in source and binary forms", "Neither the name"}},
	{"BSD-3-Clause", []string{"Redistribution and use in source and binary forms", "may not be used to endorse or promote"}},
	{"BSD-2-Clause", []string{"Redistribution and use in source and binary forms"}},
	{"ISC", []string{"Permission to use, copy, modify, and/or distribute this software for any purpose"}},
	{"ISC", []string{"Permission to use, copy, modify, and distribute this software for any purpose"}},
	{"MIT", []string{"Permission is hereby granted, free of charge, to any person obtaining a copy"}},
	{"Unlicense", []string{"This is free and unencumbered software released into the public domain"}},
}

// identify names the licence of a text; "" for one that is not among those that
// the project takes.
func identify(text string) string {
	flat := strings.Join(strings.Fields(text), " ")
	for _, l := range licences {
		if !slices.ContainsFunc(l.words, func(w string) bool { return !strings.Contains(flat, w) }) {
			return l.id
		}
	}
	return ""
}

// notices are the licences and notices of all that is in the binary, which those
// licences want to be passed on with it.
func notices(linked []linkedModule) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s is linked with the modules below, under their own licences.\n", name)
	rule := strings.Repeat("-", 80)
	for _, m := range linked {
		fmt.Fprintf(&b, "\n%s\n%s %s\n%s\n%s\n", rule, m.path, m.version, m.license, rule)
		for _, t := range m.texts {
			fmt.Fprintf(&b, "\n%s\n", strings.Trim(t, "\n"))
		}
	}
	return b.Bytes()
}
