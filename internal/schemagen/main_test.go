package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/observability-upgrade/observability-upgrade/schemas"
)

const root = "../.."

// The committed schemas are those of the types as they are.
func TestCommitted(t *testing.T) {
	all, err := generate(root)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for name, want := range all {
		names = append(names, name)
		if got := schemas.Config(name); !bytes.Equal(got, want) {
			t.Errorf("%s is not what the types give; run `go generate ./schemas`", name)
		}
	}
	slices.Sort(names)
	if got := schemas.ConfigNames(); !slices.Equal(got, names) {
		t.Errorf("committed are %v, generated %v", got, names)
	}
}

// What the decoder takes the schema allows; an unknown key it refuses too.
func TestAgreesWithDecoder(t *testing.T) {
	for _, kind := range []struct{ schema, good, bad string }{
		{"policy", "internal/config/testdata/policy/*.good.yaml", "internal/config/testdata/policy/keys.bad.yaml"},
		{"matrix", "internal/config/testdata/matrix/*.good.yaml", ""},
		{"matrix", "internal/config/knowledge.yaml", ""},
		{"notifications", "internal/config/testdata/notifications/*.good.yaml", ""},
		{"component", "internal/catalogue/components/*.yaml", ""},
		{"component", "internal/catalogue/families/*.yaml", ""},
	} {
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(schemas.Config(kind.schema)))
		if err != nil {
			t.Fatal(err)
		}
		c := jsonschema.NewCompiler()
		if err := c.AddResource("schema.json", doc); err != nil {
			t.Fatal(err)
		}
		s, err := c.Compile("schema.json")
		if err != nil {
			t.Fatal(err)
		}
		good, err := filepath.Glob(filepath.Join(root, kind.good))
		if err != nil || len(good) == 0 {
			t.Fatalf("%s: %v, %v", kind.good, good, err)
		}
		for _, path := range good {
			v := load(t, path)
			if err := s.Validate(v); err != nil {
				t.Errorf("%s: %v", path, err)
			}
			if m, ok := v.(map[string]any); ok {
				m["no_such_key"] = "x"
				if s.Validate(m) == nil {
					t.Errorf("%s: the schema allows an unknown key", path)
				}
			}
		}
		if kind.bad != "" && s.Validate(load(t, filepath.Join(root, kind.bad))) == nil {
			t.Errorf("%s is allowed", kind.bad)
		}
	}
}

func load(t *testing.T, path string) any {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := yaml.Unmarshal(data, &v); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	j, err := yaml.YAMLToJSON(data)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	if strings.TrimSpace(string(j)) == "null" {
		return map[string]any{}
	}
	out, err := jsonschema.UnmarshalJSON(bytes.NewReader(j))
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return out
}
