package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// unknownKeys are the members of a JSON object that this program does not know,
// as they were read. The map is shared between copies and never changed.
type unknownKeys map[string]json.RawMessage

var (
	fileKeys      = []string{"last_updated", "components", "upgrade_history", "format_version"}
	componentKeys = []string{
		"current_version", "previous_version", "installed_at", "upgraded_at", "checksum", "binary_path",
		"backups", "binaries", "checksums", "service", "failed_versions", "released_at",
		"signature_verified", "instances", "archive",
	}
)

// errNewer is how decode reports a newer format to Load, which knows the path.
type errNewer int

func (e errNewer) Error() string { return fmt.Sprintf("format_version %d", int(e)) }

// decode reads a state file. The format is looked at before anything else: of a
// newer one nothing else may be understood.
func decode(data []byte) (*File, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, errors.New("it is empty")
	}
	known, unknown, err := split(data, fileKeys)
	if err != nil {
		return nil, err
	}
	var head struct {
		Format *int `json:"format_version"`
	}
	if err := json.Unmarshal(known, &head); err != nil {
		return nil, err
	}
	format := formatVersion // the specification's file has no such key
	if head.Format != nil {
		format = *head.Format
	}
	switch {
	case format > formatVersion:
		return nil, errNewer(format)
	case format < 1:
		return nil, fmt.Errorf("format_version is %d, expected %d", format, formatVersion)
	}
	f := &File{}
	if err := json.Unmarshal(known, f); err != nil {
		return nil, err
	}
	if f.Components == nil {
		return nil, errors.New(`it has no "components"`)
	}
	if _, ok := f.Components[""]; ok {
		return nil, errors.New("a component has an empty name")
	}
	if f.UpgradeHistory == nil {
		f.UpgradeHistory = []RunSummary{}
	}
	f.Format, f.unknown = format, unknown
	return f, nil
}

// encode is the text of a state file: indented, the specification's keys in its
// order, then unknown ones by name.
func (f *File) encode() ([]byte, error) {
	type plain File
	out := plain(*f)
	out.Format = formatVersion
	if out.Components == nil {
		out.Components = map[string]Component{}
	}
	if out.UpgradeHistory == nil {
		out.UpgradeHistory = []RunSummary{}
	}
	data, err := join(out, f.unknown)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := json.Indent(&b, data, "", "  "); err != nil {
		return nil, err
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

// UnmarshalJSON keeps the keys it does not know.
func (c *Component) UnmarshalJSON(data []byte) error {
	known, unknown, err := split(data, componentKeys)
	if err != nil {
		return fmt.Errorf("component: %w", err)
	}
	type plain Component
	var p plain
	if err := json.Unmarshal(known, &p); err != nil {
		return err
	}
	*c = Component(p)
	c.unknown = unknown
	return nil
}

// MarshalJSON writes back the keys it did not know.
func (c Component) MarshalJSON() ([]byte, error) {
	type plain Component
	return join(plain(c), c.unknown)
}

// split parts a JSON object into the members named in known, as an object
// again, and the others. Names are compared exactly, unlike encoding/json does.
func split(data []byte, known []string) ([]byte, unknownKeys, error) {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, nil, err
	}
	if all == nil {
		return nil, nil, errors.New("null where an object is expected")
	}
	mine := map[string]json.RawMessage{}
	for _, k := range known {
		if v, ok := all[k]; ok {
			mine[k] = v
			delete(all, k)
		}
	}
	out, err := marshal(mine)
	return out, all, err
}

// join is split's inverse: the object that v encodes as, and the unknown
// members after its own.
func join(v any, unknown unknownKeys) ([]byte, error) {
	data, err := marshal(v)
	if err != nil || len(unknown) == 0 {
		return data, err
	}
	more, err := marshal(unknown)
	if err != nil {
		return nil, err
	}
	return append(append(data[:len(data)-1], ','), more[1:]...), nil
}

// marshal is json.Marshal without the escapes that only HTML needs.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
