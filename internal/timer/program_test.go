package timer

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheckProgram(t *testing.T) {
	if err := CheckProgram("/bin/sh"); err != nil {
		t.Error(err)
	}
	if err := CheckProgram("/nonexistent/program"); err == nil || errors.As(err, new(*ProgramError)) {
		t.Errorf("a program that is not there: %v", err)
	}
	var refused *ProgramError
	below := filepath.Join(t.TempDir(), "program") // /tmp/…
	if err := os.WriteFile(below, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := CheckProgram(below); !errors.As(err, &refused) || refused.Path != below {
		t.Errorf("%s: %v", below, err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink("/bin/sh", link); err != nil {
		t.Fatal(err)
	}
	if err := CheckProgram(link); err != nil {
		t.Errorf("what a link leads to counts: %v", err)
	}
}

// Whoever can change the program, or a directory above it, could have root start
// what he likes.
func TestCheckProgramOthersCanWrite(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make a directory that is root's and not below /tmp")
	}
	dir, err := os.MkdirTemp("/usr/local", "observability-upgrade-test-")
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	for name, tt := range map[string]struct {
		dir, file os.FileMode
		uid, gid  int // of the file
		want      string
	}{
		"root's":             {0o755, 0o755, 0, 0, ""},
		"of root's group":    {0o775, 0o775, 0, 0, ""},
		"open file":          {0o755, 0o757, 0, 0, "which everybody can write (mode 0757)"},
		"open directory":     {0o777, 0o755, 0, 0, "below " + dir + ", which everybody can write (mode 0777)"},
		"open to a group":    {0o755, 0o775, 0, 65534, "which group 65534 can write"},
		"another's":          {0o755, 0o755, 65534, 0, "which belongs to user 65534"},
		"another's, closed":  {0o755, 0o500, 65534, 0, "which belongs to user 65534"},
		"closed to a group":  {0o755, 0o755, 0, 65534, ""},
		"sticky and open is": {0o777 | os.ModeSticky, 0o755, 0, 0, "which everybody can write"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, "program")
			err := errors.Join(os.WriteFile(path, nil, 0o755), os.Chown(path, tt.uid, tt.gid), os.Chmod(path, tt.file), os.Chmod(dir, tt.dir))
			if err != nil {
				t.Fatal(err)
			}
			err = CheckProgram(path)
			if tt.want == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}
