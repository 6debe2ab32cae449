package backup

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Names go up with every run, also where the clock does not.
func TestReserve(t *testing.T) {
	now := time.Date(2026, 11, 26, 3, 4, 5, 0, time.UTC)
	for name, tt := range map[string]struct {
		have []string
		want string
	}{
		"first":                  {nil, "20261126_030405"},
		"older ones":             {[]string{"20261126_030404", "20251126_030405_7"}, "20261126_030405"},
		"of this second":         {[]string{"20261126_030405"}, "20261126_030405_2"},
		"many of this second":    {[]string{"20261126_030405", "20261126_030405_2", "20261126_030405_10"}, "20261126_030405_11"},
		"others were removed":    {[]string{"20261126_030405_3"}, "20261126_030405_4"},
		"clock was set back":     {[]string{"20261127_000000"}, "20261127_000000_2"},
		"and again":              {[]string{"20261127_000000", "20261127_000000_2"}, "20261127_000000_3"},
		"clock was a year ahead": {[]string{"20261126_030404", "20271126_030404_9"}, "20271126_030404_10"},
		"other files":            {[]string{"zzz", "20991126_0304", "20991126_030405_"}, "20261126_030405"},
	} {
		t.Run(name, func(t *testing.T) {
			dirs := []string{t.TempDir(), t.TempDir(), "/nonexistent"}
			for i, n := range tt.have {
				if err := os.Mkdir(filepath.Join(dirs[i%2], n), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if got := Reserve(now, dirs...); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}
