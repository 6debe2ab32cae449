package backup

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

func TestPrune(t *testing.T) {
	for name, tt := range map[string]struct {
		points, broken, damaged []string // seconds of their names, oldest first
		keep                    int
		own                     string
		offered                 []string
		left                    string
		told                    string
	}{
		"fewer than that":                     {points: []string{"1", "2"}, keep: 5, own: "2", left: "1 2"},
		"the oldest go":                       {points: []string{"1", "2", "3"}, keep: 2, own: "3", offered: []string{"1", "2", "3"}, left: "2 3"},
		"a rollback does not push out":        {points: []string{"1", "2", "3"}, keep: 2, own: "3", offered: []string{"1"}, left: "1 3"},
		"nor do upgrades that fail":           {points: []string{"1", "2", "3", "4", "5"}, keep: 3, own: "5", offered: []string{"1", "2"}, left: "1 2 5"},
		"one, of an upgrade":                  {points: []string{"1", "2"}, keep: 1, own: "2", offered: []string{"1", "2"}, left: "2"},
		"one, of an upgrade that failed":      {points: []string{"1", "2", "3", "4"}, keep: 1, own: "4", offered: []string{"1", "2"}, left: "2 4"},
		"none is as one":                      {points: []string{"1", "2"}, keep: 0, own: "2", left: "2"},
		"of a run without a point":            {points: []string{"1", "2", "3"}, keep: 2, own: "4", offered: []string{"1"}, left: "1 3"},
		"what is incomplete goes":             {points: []string{"1", "3"}, broken: []string{"2"}, keep: 5, own: "3", left: "1 3"},
		"the run's own, whatever it is":       {points: []string{"1"}, broken: []string{"2"}, keep: 1, own: "2", left: "1 2"},
		"what is offered goes when too much":  {points: []string{"1", "2", "3", "4"}, keep: 2, own: "4", offered: []string{"1", "2", "3"}, left: "3 4"},
		"what is damaged stays":               {points: []string{"2", "3"}, damaged: []string{"1"}, keep: 1, own: "3", left: "1 3", told: "1"},
		"damaged, and offered":                {points: []string{"1", "3"}, damaged: []string{"2"}, keep: 1, own: "3", offered: []string{"1", "2"}, left: "1 2 3", told: "2"},
		"the run's own, damaged":              {points: []string{"1", "2"}, damaged: []string{"3"}, keep: 1, own: "3", left: "2 3"},
		"incomplete, offered by a false word": {points: []string{"1"}, broken: []string{"2"}, keep: 5, own: "1", offered: []string{"2"}, left: "1"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			stamp := func(second string) string { return "20260101_00000" + second }
			for _, p := range tt.points {
				fill(t, dir, map[string]string{stamp(p) + "/manifest.json": "{}", stamp(p) + "/SHA256SUMS": ""})
			}
			for _, p := range tt.broken {
				fill(t, dir, map[string]string{stamp(p) + "/manifest.json": "{}"})
			}
			for _, p := range tt.damaged {
				fill(t, dir, map[string]string{stamp(p) + "/manifest.json": "{", stamp(p) + "/SHA256SUMS": ""})
			}
			offered := map[string]bool{}
			for _, p := range tt.offered {
				offered[stamp(p)] = true
			}
			removed, err := Prune(&hostfs.Host{}, dir, Keep{Points: tt.keep, Own: stamp(tt.own), Offered: offered})
			switch path := filepath.Join(dir, stamp(tt.told)); {
			case tt.told == "" && err != nil:
				t.Fatal(err)
			case tt.told != "" && (!errors.As(err, new(*DamagedError)) || !strings.HasSuffix(err.Error(), "then: rm -r "+path)):
				t.Errorf("told %v, want that %s is kept", err, path)
			}
			entries, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			var left []string
			for _, e := range entries {
				left = append(left, strings.TrimPrefix(e.Name(), "20260101_00000"))
			}
			if got := strings.Join(left, " "); got != tt.left || len(left)+len(removed) != len(tt.points)+len(tt.broken)+len(tt.damaged) {
				t.Errorf("left %s, want %s; removed %v", got, tt.left, removed)
			}
			for _, path := range removed {
				if filepath.Dir(path) != dir {
					t.Errorf("removed %s", path)
				}
			}
		})
	}
}
