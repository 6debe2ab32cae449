// Package schemas holds the JSON Schemas of the documents that the program prints
// and, below config, of the files that it reads.
package schemas

import (
	"embed"
	"slices"
	"strings"
)

//go:generate go run ../internal/schemagen ..

//go:embed config/*.schema.json
var files embed.FS

// ConfigNames lists the configuration files that there is a schema of.
func ConfigNames() []string {
	entries, err := files.ReadDir("config")
	if err != nil {
		panic(err) // they are embedded
	}
	var out []string
	for _, e := range entries {
		out = append(out, strings.TrimSuffix(e.Name(), ".schema.json"))
	}
	slices.Sort(out)
	return out
}

// Config is the schema of a configuration file; nil when there is none of it.
func Config(name string) []byte {
	data, err := files.ReadFile("config/" + name + ".schema.json")
	if err != nil {
		return nil
	}
	return data
}
