package component

import "maps"

// Variant is what is different in some of a component's releases: projects
// rename their files, sign or sum them otherwise, or begin to build for another
// architecture. What it leaves out is as in the definition.
type Variant struct {
	Versions  Range             `yaml:"versions" json:"versions"` // the releases it holds for, such as "<0.158.0"
	Asset     string            `yaml:"asset,omitempty" json:"asset,omitempty"`
	Arches    map[string]string `yaml:"arches,omitempty" json:"arches,omitempty"` // replaces the definition's whole map
	Checksums string            `yaml:"checksums,omitempty" json:"checksums,omitempty"`
	Paths     map[string]string `yaml:"paths,omitempty" json:"paths,omitempty"` // binary's name -> path inside the archive
}

// For is the definition as it applies to one version: the first variant that
// holds for it laid over the rest. The result has no variants.
func (c *Component) For(v Version) *Component {
	if len(c.Variants) == 0 {
		return c
	}
	out := *c
	out.Variants = nil
	for _, variant := range c.Variants {
		if variant.Versions.Contains(v) {
			variant.lay(&out)
			break
		}
	}
	return &out
}

// lay changes what it has to say of c, without touching what c shares with the
// definition it was copied from.
func (v Variant) lay(c *Component) {
	if v.Asset != "" {
		c.Asset = v.Asset
	}
	if len(v.Arches) > 0 {
		c.Arches = maps.Clone(v.Arches)
	}
	if v.Checksums != "" {
		c.Checksums = v.Checksums
	}
	binaries := make([]Binary, len(c.Binaries))
	for i, b := range c.Binaries {
		if p, ok := v.Paths[b.Name]; ok {
			b.Path = p
		}
		binaries[i] = b
	}
	c.Binaries = binaries
}
