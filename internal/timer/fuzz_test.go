package timer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

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
