package custody

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCustody(t *testing.T) {
	for name, tt := range map[string]struct {
		check   func(string) error
		prepare func(path string) error
		root    bool   // needs to give files away
		have    string // "" for none
		fix     string
	}{
		"no directory":           {check: Dir},
		"directory":              {check: Dir, prepare: mkdir(0o755)},
		"link to a directory":    {check: Dir, prepare: link, have: "a link", fix: "rm "},
		"file for a directory":   {check: Dir, prepare: write(0o600), have: "a file", fix: "rm "},
		"directory of all":       {check: Dir, prepare: mkdir(0o777), have: "mode 0777", fix: "chmod go-w "},
		"directory of a group":   {check: Dir, prepare: mkdir(0o775), have: "mode 0775", fix: "chmod go-w "},
		"directory of a user":    {check: Dir, prepare: give(mkdir(0o700)), root: true, have: "uid 4711", fix: "chown -R 0 "},
		"no file":                {check: File},
		"file":                   {check: File, prepare: write(0o644)},
		"link to a file":         {check: File, prepare: link, have: "a link", fix: "rm "},
		"directory for a file":   {check: File, prepare: mkdir(0o700), have: "none (d---------)", fix: "rm -r "},
		"file that a group owns": {check: File, prepare: write(0o660), have: "mode 0660", fix: "chmod go-w "},
		"file of a user":         {check: File, prepare: give(write(0o600)), root: true, have: "uid 4711", fix: "chown 0 "},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.root && os.Geteuid() != 0 {
				t.Skip("only root gives files away")
			}
			path := filepath.Join(t.TempDir(), "x")
			if tt.prepare != nil {
				if err := tt.prepare(path); err != nil {
					t.Fatal(err)
				}
			}
			err := tt.check(path)
			if tt.have == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			var e *Error
			if !errors.As(err, &e) || e.Have != tt.have || e.Fix != tt.fix+path || !strings.HasSuffix(e.Error(), e.Fix) {
				t.Fatalf("%v", err)
			}
		})
	}
}

func TestOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	if err := write(0o600)(path); err != nil {
		t.Fatal(err)
	}
	st, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := Owner(path, st, nil); err != nil || UID(st) != os.Geteuid() {
		t.Errorf("uid %d, %v", UID(st), err)
	}
	if os.Geteuid() != 0 {
		t.Skip("only root gives files away")
	}
	if err := os.Chown(path, 4711, 4711); err != nil {
		t.Fatal(err)
	}
	if st, err = os.Lstat(path); err != nil {
		t.Fatal(err)
	}
	if err := Owner(path, st, []int{4711}); err != nil {
		t.Errorf("a user who is named: %v", err)
	}
	if err := Owner(path, st, []int{4712}); err == nil || !strings.Contains(err.Error(), "expected it to belong to root, found uid 4711") {
		t.Errorf("another user: %v", err)
	}
}

func mkdir(mode os.FileMode) func(string) error {
	return func(path string) error { return errors.Join(os.Mkdir(path, 0o700), os.Chmod(path, mode)) }
}

func write(mode os.FileMode) func(string) error {
	return func(path string) error { return errors.Join(os.WriteFile(path, nil, 0o600), os.Chmod(path, mode)) }
}

func link(path string) error { return os.Symlink(filepath.Dir(path), path) }

func give(to func(string) error) func(string) error {
	return func(path string) error { return errors.Join(to(path), os.Lchown(path, 4711, 4711)) }
}
