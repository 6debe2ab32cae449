package notify

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The process is on its own: session, directory, input and output; and no secret is
// among its arguments.
func TestKick(t *testing.T) {
	w := newWorld(t, "%s", hooks("a", "http://127.0.0.1:1/"))
	out := filepath.Join(t.TempDir(), "out")
	program := filepath.Join(t.TempDir(), "program")
	w.write(program, `#!/bin/sh
{ echo "$@"; pwd; readlink /proc/self/fd/0 /proc/$$/fd/1 /proc/$$/fd/2; cut -d' ' -f1,6 /proc/$$/stat; } 3>&1 >`+out+`.new 2>&1
mv `+out+`.new `+out+`
`, 0o755)
	if err := Kick(w.root, program); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(out + ".new"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("it was started with nothing to do")
	}
	w.send(UpgradeFailed)
	if err := Kick(w.root, program); err != nil {
		t.Fatal(err)
	}
	var got []string
	eventually(t, "it runs", func() bool {
		data, err := os.ReadFile(out)
		got = strings.Split(strings.TrimSpace(string(data)), "\n")
		return err == nil
	})
	if len(got) != 6 || got[0] != "--root "+string(w.root)+" notify deliver --quiet" || got[1] != "/" || got[2] != "/dev/null" {
		t.Fatalf("%q", got)
	}
	if pid, session, _ := strings.Cut(got[5], " "); pid != session {
		t.Errorf("process %s is in session %s", pid, session)
	}
	if err := Kick(w.root, filepath.Join(string(w.root), "missing")); err == nil || !strings.Contains(err.Error(), "observability-upgrade notify deliver") {
		t.Errorf("%v", err)
	}
}
