package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/CycloneDX/cyclonedx-go"
)

// bom writes the bill of materials of a binary in CycloneDX: the modules that are in
// it, with versions, sums and licences. It has no serial number, and its time is the
// release's.
func (b *builder) bom(linked []linkedModule) ([]byte, error) {
	self := purl(module, "v"+b.source.version)
	doc := cyclonedx.NewBOM()
	doc.Metadata = &cyclonedx.Metadata{
		Timestamp: b.source.time.Format(time.RFC3339),
		Component: &cyclonedx.Component{
			BOMRef: self, Type: cyclonedx.ComponentTypeApplication, Name: name, Version: b.source.version, PackageURL: self,
			Licenses:           &cyclonedx.Licenses{{License: &cyclonedx.License{ID: "Apache-2.0"}}},
			ExternalReferences: &[]cyclonedx.ExternalReference{{Type: cyclonedx.ERTypeVCS, URL: "https://" + module, Comment: b.source.commit}},
		},
		Properties: &[]cyclonedx.Property{{Name: "observability-upgrade:platform", Value: b.target.name}},
	}
	var components []cyclonedx.Component
	var refs []string
	for _, m := range linked {
		ref := purl(m.path, m.version)
		c := cyclonedx.Component{BOMRef: ref, Type: cyclonedx.ComponentTypeLibrary, Name: m.path, Version: m.version, PackageURL: ref, Scope: cyclonedx.ScopeRequired}
		c.Licenses = &cyclonedx.Licenses{{Expression: m.license}}
		if !strings.Contains(m.license, " ") {
			c.Licenses = &cyclonedx.Licenses{{License: &cyclonedx.License{ID: m.license}}}
		}
		if m.sum != "" {
			// h1 is the SHA-256 of the list of the SHA-256 of its files, see
			// golang.org/x/mod/sumdb/dirhash.
			raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(m.sum, "h1:"))
			if err != nil {
				return nil, fmt.Errorf("%s: sum %q: %w", m.path, m.sum, err)
			}
			c.Hashes = &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: hex.EncodeToString(raw)}}
		}
		components, refs = append(components, c), append(refs, ref)
	}
	doc.Components = &components
	doc.Dependencies = &[]cyclonedx.Dependency{{Ref: self, Dependencies: &refs}}
	var out bytes.Buffer
	enc := cyclonedx.NewBOMEncoder(&out, cyclonedx.BOMFileFormatJSON).SetPretty(true)
	if err := enc.EncodeVersion(doc, cyclonedx.SpecVersion1_6); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// purl is the package URL of a Go module, see
// https://github.com/package-url/purl-spec.
func purl(path, version string) string {
	return "pkg:golang/" + path + "@" + url.PathEscape(version)
}
