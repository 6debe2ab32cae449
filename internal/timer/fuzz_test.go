package timer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Whatever a file of variables says, what is taken from it are names.
func FuzzEnvironment(f *testing.F) {
	f.Add("SMTP_HOST=mail\n# x=1\nA = \"b\"\nC=\\\nD")
	f.Fuzz(func(t *testing.T, text string) {
		got := map[string]bool{}
		parseEnvironment(text, got)
		for name := range got {
			if !variable.MatchString(name) {
				t.Fatalf("%q", name)
			}
		}
	})
}

// Whatever systemd prints, moments are read or nothing is known.
func FuzzCalendar(f *testing.F) {
	f.Add("    Next elapse: Sat 2026-11-28 13:00:00 EST\n       (in UTC): Sat 2026-11-28 18:00:00 UTC\n")
	f.Fuzz(func(t *testing.T, text string) {
		if at, ok := parseCalendar(text); !ok && len(at) > 0 {
			t.Fatalf("%v", at)
		}
	})
}

// What is read of a timer is what was written into it, and of another's file
// nothing is.
func FuzzRead(f *testing.F) {
	f.Add(timerUnit(Options{Policy: "patch_only", Schedule: []string{"Sun 03:00", "*-*-* 04:00"}, Delay: time.Minute}))
	f.Add(marker + "\n# policy: any\nOnCalendar=x\n")
	f.Add(marker)
	f.Add("[Timer]\nOnCalendar=daily\n")
	f.Fuzz(func(t *testing.T, text string) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, Timer), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		o, ok, err := Read(dir)
		ours := strings.HasPrefix(text, marker)
		if ok != ours || (err == nil) != ours {
			t.Fatalf("%+v %v %v", o, ok, err)
		}
		for _, s := range append(o.Schedule, o.Policy) {
			if strings.Contains(s, "\n") {
				t.Fatalf("%q", s)
			}
		}
	})
}
