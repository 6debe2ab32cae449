package catalogue

import (
	"errors"
	"os"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/observability-upgrade/observability-upgrade/internal/artifact"
)

// TestVersionOfRealPrograms reads the version from what real programs printed,
// with the code that reads it when a program is staged or found on the host.
func TestVersionOfRealPrograms(t *testing.T) {
	data, err := os.ReadFile("testdata/version_output.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var outputs []struct {
		Component string `yaml:"component"`
		Package   string `yaml:"package"` // name and version of the distribution's package
		Version   string `yaml:"version"` // "" where the program tells none
		Stdout    string `yaml:"stdout"`
		Stderr    string `yaml:"stderr"`
	}
	if err := yaml.UnmarshalWithOptions(data, &outputs, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	c := builtIn(t)
	for _, o := range outputs {
		d, ok := c.Get(o.Component)
		if !ok {
			t.Errorf("%s is not in the catalogue", o.Component)
			continue
		}
		got, err := artifact.FindVersion(o.Stdout+o.Stderr, d.Version.Regexp)
		if got.String() != o.Version || (err == nil) != (o.Version != "") || err != nil && !errors.Is(err, artifact.ErrVersionUnknown) {
			t.Errorf("%s (%s): got %q, %v; want %q", o.Component, o.Package, got, err, o.Version)
		}
	}
	if len(outputs) < 60 {
		t.Errorf("only %d outputs", len(outputs))
	}
}
